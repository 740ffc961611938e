"""The store: items in MongoDB.

groupcommit: the items that arrive during a write form the next one.
writer: a batch of items becomes one bulk write.
documents: an item as BSON, and how it is written over what is stored.
store: the collection, its unique index, and what a crawl reads.
found: the collection as it is found, and what would be stored twice.
retry: a read or a write waits while MongoDB is away.
connection: the way to MongoDB, by motor.
errors: what an error means, to a crawl and to people.
judge: whether a crawl is complete.
span: which crawl a person means, or since when.
changes: what a crawl changed, from history and collection.
export: stored documents as items again, for feeds.
server: the embedded server, shared by the crawls of one directory.
mongod: its process.
directory: its data directory, and the locks in it.
"""
