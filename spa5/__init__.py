"""Brings the catalogue of a JSON API into MongoDB, and keeps it there.

The data's way:

    index page -> SkipStored -> detail -> Item.from_api -> MongoPipeline -> Writer -> MongoDB

The rooms, from the top to the bottom; each imports only from those below it:

spiders, items: one site each, what a person writes for his own.
commands: `scrapy crawl` with a truthful exit code, and commands of the project's own.
doctor, screen: what people ask and see.
middlewares, extensions, feeds: Scrapy's words, where Scrapy people look for them.
pipelines, downloadermiddlewares: the same.
crew: workers that share one crawl through Redis.
mongo: the store.
catalogue: how a catalogue is walked, cleaned and judged complete.
engine: what is used of Scrapy's private parts.
"""
