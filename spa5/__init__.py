"""Brings the catalogue of a book site into MongoDB, and keeps it there.

The data's way:

    index page -> SkipStored -> detail -> Book.from_api -> MongoPipeline -> BookStore -> MongoDB

api: the site's URLs, and what an answer must look like.
arguments: checks what a crawl is given, before any request.
spiders.books: asks for index pages and details, and turns them into books.
walk: which index page comes next, and what a walk through the catalogue met.
listing: the ids that the site listed, what became of each, and the verdict.
handlers: the download handler.
downloadermiddlewares: keeps requests on the API, and tries again what failed.
extensions: obeys what robots.txt says of the pace.
sitegate: waits while the site as a whole is away.
middlewares: drops what needs no fetching, and repeats the walk until nothing is missing.
items: the book, cleaned and validated.
pipelines: an item comes out when MongoDB has acknowledged it.
groupcommit: what arrives during a write forms the next one.
drift: keeps a site that changed for everybody from emptying what is stored.
documents: a book as BSON, and how it is written over what is stored.
store: the collection: reads, writes, and their retries.
connection: the way to MongoDB, and what people are told where it fails.
found: the collection as it is found, and what would be stored twice.
mongod: the embedded server.
stats: Scrapy's counts, at the price of a dictionary.
progress: what people see of a crawl, and the summary at its end.
plain: what is shown can't break a terminal, whatever the site sends.
bar: the line at the bottom of a terminal.
feeds: books in CSV.
crew: workers that share one crawl through Redis.
compare: how books differ from what is stored.
doctor, reach: what goes wrong in practice, checked; on this machine, and where a crawl goes.
commands: `scrapy crawl` with a truthful exit code, `scrapy mongod`, `scrapy diff`, `scrapy doctor`.
"""
