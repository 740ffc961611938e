"""The store: items in MongoDB.

groupcommit: the items that arrive during a write form the next one.
store: what a crawl reads and writes.
documents: an item as BSON, and how it is written over what is stored.
collection: single reads and writes, each by the unique index.
found: the collection as it is found, and what would be stored twice.
retry: a read or a write waits while MongoDB is away.
connection: the way to MongoDB, by motor.
uri, errors: what people are told where that fails.
judge, crawls: whether a crawl is complete, and what complete ones found.
server: the embedded server.
"""
