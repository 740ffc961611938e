"""The store: items in MongoDB.

store: the collection: reads, writes, and their retries.
documents: an item as BSON, and how it is written over what is stored.
groupcommit: what arrives during a write forms the next one.
connection: the way to MongoDB, and what people are told where it fails.
found: the collection as it is found, and what would be stored twice.
server: the embedded server, shared by the crawls of one directory.
mongod: its process.
directory: its data directory, and the locks in it.
"""
