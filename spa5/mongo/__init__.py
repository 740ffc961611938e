"""The store: items in MongoDB.

groupcommit: the items that arrive during a write form the next one.
writer: a batch of items becomes one bulk write.
documents: an item as BSON.
plan: how an item is written over what is stored, and what that replaces.
history: what was replaced, kept once whatever is killed.
bulk: a bulk write in which what MongoDB refuses fails alone.
store: the collection, its unique index, and what a crawl reads.
found: the collection as it is found, and what would be stored twice.
retry: a read or a write waits while MongoDB is away.
connection: the way to MongoDB, by motor.
errors: what an error means, to a crawl and to people.
judge: whether a crawl is complete.
census: what a complete crawl no longer met, and how full the fields are.
ledger: a document for each crawl, from its first second on.
crawls: what such a document counts.
status: whether a crawl runs, was killed, or how it ended.
span: which crawl a person means, or since when.
changes: what a crawl changed, from history and collection.
restore: puts back what a crawl replaced.
note: what the ledger has of a restore.
export: stored documents as items again, for feeds.
server: the embedded server, shared by the crawls of one directory.
mongod: its process.
directory: its data directory, and the locks in it.
"""
