"""The pipeline alone, and the driver without it: books from memory into an empty collection."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import MongoClient, UpdateOne
from scrapy.utils.test import get_crawler

from spa5.items import Book
from spa5.pipelines import MongoPipeline
from tests.standin.books import Books

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def catalogue(books: int) -> list[Book]:
    """The stand-in's books as the spider makes them of the API's answers."""
    site = Books(books)
    return [Book.from_api(json.loads(json.dumps(site.detail(one)))) for one in site.ids]


def through_pipeline(uri: str, database: str, books: list[Book], in_flight: int) -> float:
    """Books a second through `MongoPipeline.process_item`."""
    return _through_pipeline(uri, database, [books], in_flight, {})


def changed_through_pipeline(
    uri: str, database: str, books: list[Book], in_flight: int, *, history: bool
) -> float:
    """Books a second that are stored already, and of which one field has changed."""
    changed = [replace(book, price=f"{book.price} net") for book in books]
    settings = {"HISTORY_ENABLED": history}
    return _through_pipeline(uri, database, [books, changed], in_flight, settings)


def _through_pipeline(
    uri: str, database: str, versions: list[list[Book]], in_flight: int, settings: dict[str, Any]
) -> float:
    """Write one version of all books after the other; return the books a second of the last."""
    settings |= {"MONGO_URI": uri, "MONGO_DATABASE": database, "MONGO_RETRY_SECONDS": 0}
    settings |= {"MONGO_COLLECTION": "books", "STATS_CLASS": "spa5.engine.Stats"}
    crawler = get_crawler(settings_dict=settings)

    async def run() -> float:
        pipeline = MongoPipeline.from_crawler(crawler)
        await pipeline.open_spider()
        for books in versions:
            speed = await _feed(pipeline.process_item, books, in_flight)
        await pipeline.close_spider()
        return speed

    return asyncio.run(run())


def one_by_one(uri: str, database: str, books: list[Book], in_flight: int) -> float:
    """Books a second by motor with one `update_one` each, of which so many at a time."""

    async def run() -> float:
        collection: Any = AsyncIOMotorClient(uri, journal=True)[database]["books"]
        await collection.create_index("id", unique=True)

        async def save(book: Book) -> None:
            await collection.update_one({"id": book.id}, {"$set": _content(book)}, upsert=True)

        return await _feed(save, books, in_flight)

    return asyncio.run(run())


def raw_bulk(uri: str, database: str, books: list[Book], batch: int) -> float:
    """Books a second by PyMongo's synchronous `bulk_write` in batches of so many upserts."""
    with MongoClient[dict[str, Any]](uri, journal=True) as client:
        collection = client[database]["books"]
        collection.create_index("id", unique=True)
        began = perf_counter()
        for start in range(0, len(books), batch):
            some = books[start : start + batch]
            upserts = [UpdateOne({"id": b.id}, {"$set": _content(b)}, upsert=True) for b in some]
            collection.bulk_write(upserts, ordered=False)
        return len(books) / (perf_counter() - began)


async def _feed(
    process: Callable[[Book], Awaitable[Any]], books: list[Book], in_flight: int
) -> float:
    """Have so many books processed at a time; return the books a second."""
    rest = iter(books)

    async def work() -> None:
        for book in rest:
            await process(book)

    began = perf_counter()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return len(books) / (perf_counter() - began)


def _content(book: Book) -> dict[str, Any]:
    return {name: value for name, value in vars(book).items() if name != "extra" or value}
