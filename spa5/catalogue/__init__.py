"""How a catalogue is walked, cleaned and judged complete. It knows neither MongoDB nor Redis.

spider: asks for index pages and details, and turns them into items.
arguments: checks what a crawl is given, before any request.
demand: when the next index page is to be asked for.
walk: which index page that is, and what a walk through the catalogue met.
answers: which URLs are the API's, and what its answers must look like.
item, fields: what an item is, and how its values are cleaned.
outcomes: what became of what was asked for.
listing: the ids that the site listed, what became of each, and the verdict.
drift: keeps a site that changed for everybody from emptying what is stored.
login: exchanges an account for a token, and keeps that valid.
gate: waits while the site as a whole is away.
outage: what is said and counted while the site, or anything else, is away.
probe, layout, sketch: what an API looks like, and the spider for it (`scrapy genspider`).
text: what people are told can't break a terminal, whatever the site sends.
"""
