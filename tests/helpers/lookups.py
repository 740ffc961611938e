"""The commands that look up what is stored, run in the test's own process; and stored documents."""

from __future__ import annotations

import argparse
import asyncio
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from bson.codec_options import CodecOptions
from scrapy.settings import Settings
from scrapy.utils.project import get_project_settings

from spa5.catalogue.item import schema_of
from spa5.mongo.history import versions
from spa5.mongo.store import Store
from tests.helpers.stored import content

if TYPE_CHECKING:
    from pymongo.database import Database as MongoDatabase

    from spa5.catalogue.spider import CatalogueSpider
    from spa5.commands import LooksUp
    from tests.helpers.databases import Database

AWARE: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)
BEGAN = datetime(2025, 11, 25, 17, 6, 3, tzinfo=timezone.utc)
CRAWL = "20251125-170603-4f2a1b"


def minute(number: float) -> datetime:
    """A moment of the crawl that `add_crawl` adds; it begins at 0 and ends at 10."""
    return BEGAN + timedelta(minutes=number)


def look(command: LooksUp, spider: type[CatalogueSpider], database: Database, *given: str) -> int:
    """Run `scrapy COMMAND` with what a person has given; return the exit code."""
    options = {"MONGO_URI": database.uri, "MONGO_DATABASE": database.name}
    command.settings = Settings({**get_project_settings(), **options})
    parser = argparse.ArgumentParser()
    command.add_options(parser)
    opts, args = parser.parse_known_args(given)
    command.check(args, opts)
    schema = schema_of(spider.item_class)
    store = Store(command.settings, spider.name, schema, lambda stat, by: None)

    async def main() -> int:
        try:
            await store.open(read_only=command.read_only)
            return await command.look(store, spider, args, opts)
        finally:
            await store.close()

    return asyncio.run(main())


def add_crawl(
    mongo: MongoDatabase[dict[str, Any]], spider: str = "books", _id: str = CRAWL, **more: Any
) -> None:
    crawl: dict[str, Any] = {
        "_id": _id,
        "spider": spider,
        "collection": spider,
        "site": "https://site.example",
    }
    crawl |= {"began": BEGAN, "alive_at": minute(10), "ended": minute(10), "reason": "finished"}
    own = {name: value for name, value in (crawl | more).items() if value is not None}
    mongo["crawls"].insert_one(own)


def add_item(mongo: MongoDatabase[dict[str, Any]], spider: str = "books", **fields: Any) -> None:
    """Store an item that has not changed since long before the crawl."""
    long_ago = minute(-100_000)
    times = dict.fromkeys(("first_crawled_at", "crawled_at", "changed_at", "listed_at"), long_ago)
    mongo[spider].create_index("id", unique=True)
    mongo[spider].insert_one({**times, "crawl": CRAWL, **fields})


def add_version(
    mongo: MongoDatabase[dict[str, Any]],
    key: int | str,
    span: tuple[float, float],
    fields: dict[str, Any],
    spider: str = "books",
    **more: Any,
) -> None:
    """Add a replaced version; `span` holds the minutes from which and until which it was valid."""
    begins, until = map(minute, span)
    entry = {"_id": {"id": key, "until": until}, "id": key, "fields": fields, "from": begins}
    mongo[f"{spider}_history"].insert_one(entry | {"until": until, "crawl": CRAWL} | more)


def entries(database: Database) -> list[dict[str, Any]]:
    """What the history holds, oldest first."""
    history = database.books.database.get_collection("books_history", codec_options=AWARE)
    return list(history.find(sort=[("until", 1)]))


def kept(database: Database, one: str = "1") -> list[dict[str, Any]]:
    """The versions of a book, oldest first, put together from the history and the collection."""
    book = database.stored()[one]
    found = [content(book)]
    for entry in versions(book, (entry for entry in entries(database) if entry["id"] == one)):
        older, absent = found[0] | entry["fields"], entry.get("absent", ())
        found.insert(0, {name: older[name] for name in older if name not in absent})
    return found
