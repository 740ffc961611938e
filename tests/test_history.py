"""What a change replaced is kept, once, whatever is killed or written in between."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from bson.codec_options import CodecOptions
from scrapy.settings import Settings
from scrapy.utils.project import get_project_settings

from spa5.catalogue.item import schema_of
from spa5.items import Book
from spa5.mongo.documents import Document, Rejected
from spa5.mongo.history import History
from spa5.mongo.store import Store
from spa5.mongo.writer import Writer
from tests.helpers.lookups import entries, kept
from tests.standin.site import running_site

if TYPE_CHECKING:
    from tests.helpers.databases import Database

BOOK = schema_of(Book)
AWARE: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)


def names(database: Database, one: str = "1") -> list[Any]:
    return [book["name"] for book in kept(database, one)]


class Crawler:
    """A crawl's store, history and writer, without the crawl."""

    def __init__(self, database: Database, keep_days: float | None = None) -> None:
        settings = {**get_project_settings(), "MONGO_URI": database.uri}
        settings |= {"MONGO_DATABASE": database.name, "MONGO_RETRY_SECONDS": 0}
        self.store = Store(Settings(settings), "books", BOOK, lambda stat, by: None)
        self.history = History(self.store, keep_days)
        self.writer = Writer(self.store, self.history)

    async def __aenter__(self) -> Crawler:
        await self.store.open()
        await self.history.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.store.close()

    async def write(self, *books: Book) -> list[Any]:
        documents = [Document.from_item(vars(book), BOOK) for book in books]
        results = await self.writer.write(documents)
        return [one if isinstance(one, str) else type(one) for one in results]


def crawl(database: Database, *steps: list[Book]) -> list[Any]:
    async def write() -> list[Any]:
        async with Crawler(database) as crawler:
            return [await crawler.write(*books) for books in steps]

    return asyncio.run(write())


def test_a_change_keeps_the_values_that_it_replaces_and_nothing_else(database: Database) -> None:
    first = Book("1", name="a", score=7.5, authors=["b"])
    second = Book("1", name="A", score=None, authors=["b"])
    other = Book("2", name="same")
    outcomes = crawl(database, [first, other], [second, other], [second, other])
    assert outcomes[1:] == [["changed", "unchanged"], ["unchanged", "unchanged"]]
    (entry,) = entries(database)
    stored = database.stored()["1"]
    assert entry.pop("_id") == {"id": "1", "until": stored["changed_at"]}
    assert entry == {
        "id": "1",
        "fields": {"name": "a", "score": 7.5},
        "from": stored["first_crawled_at"],
        "until": stored["changed_at"],
        "crawl": stored["crawl"],
    }


def test_a_field_that_a_version_lacked_is_absent_again_when_it_is_put_together(
    database: Database,
) -> None:
    plain, more = Book("1", name="a"), Book("1", name="a", extra={"edition": 2})
    crawl(database, [plain], [more], [plain])
    absent = [entry.get("absent") for entry in entries(database)]
    assert absent == [["extra"], None]
    assert [book.get("extra", "none") for book in kept(database)] == [
        "none",
        {"edition": 2},
        "none",
    ]


def test_versions_stay_in_order_when_a_clock_goes_back(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    crawl(database, [Book("1", name="a")], [Book("1", name="b")])
    before = database.stored()["1"]["changed_at"]
    monkeypatch.setattr("spa5.mongo.store.now", lambda: before.replace(year=2001))
    crawl(database, [Book("1", name="c")], [Book("1", name="d")])
    assert names(database) == ["a", "b", "c", "d"]
    assert database.stored()["1"]["changed_at"] > before


def test_what_the_history_has_of_a_deleted_book_is_not_mixed_with_the_one_that_came_after_it(
    database: Database,
) -> None:
    crawl(database, [Book("1", name="a", isbn="A")], [Book("1", name="b", isbn="A")])
    database.books.delete_one({"id": "1"})
    crawl(database, [Book("1", name="c", isbn="C")], [Book("1", name="d", isbn="C")])
    assert [(book["name"], book["isbn"]) for book in kept(database)] == [("c", "C"), ("d", "C")]
    assert len(entries(database)) == 2


class Interrupted(Exception):
    """Something kills the crawl here."""


async def killed_before_the_item(crawler: Crawler, book: Book) -> None:
    """Write the history's entry and not the item: what a kill between the two leaves."""

    async def never(updates: Any) -> Any:
        raise Interrupted

    crawler.writer._write = never  # type: ignore[method-assign]
    crawler.writer._expects_new = False
    with pytest.raises(Interrupted):
        await crawler.write(book)


@pytest.mark.parametrize("then", ["a", "b", "c"])
def test_a_kill_between_the_two_writes_loses_nothing_and_doubles_nothing(
    database: Database, then: str
) -> None:
    """Whether the site then sends the old value, the one that was being written, or another."""

    async def run() -> None:
        async with Crawler(database) as crawler:
            await crawler.write(Book("1", name="a"))
            note(database, crawler)
            await killed_before_the_item(crawler, Book("1", name="b"))
        assert len(entries(database)) == 1
        assert names(database) == ["a"]
        async with Crawler(database) as again:
            assert set(again.history.unsettled) == {"1"}
            await again.write(Book("1", name=then))
            assert not again.history.unsettled

    asyncio.run(run())
    assert names(database) == ["a"] + [then] * (then != "a")
    assert len(entries(database)) == (then != "a")


def note(database: Database, crawler: Crawler) -> None:
    """The ledger knows of a crawl that has not ended."""
    database.books.database["crawls"].insert_one(
        {"_id": crawler.store.crawl(), "collection": "books"}
    )


def test_the_next_crawl_fetches_what_a_killed_one_was_writing(database: Database) -> None:
    """Though the book is stored, was fetched just now, and is listed as it is stored."""
    with running_site(20) as site:
        assert database.crawl(site.url).exitcode == 0
        one = site.catalogue.ids[3]
        changed_at = database.stored()[one]["changed_at"]
        until = changed_at + timedelta(seconds=1)
        left = {"_id": {"id": one, "until": until}, "id": one, "fields": {"isbn": "?"}}
        left |= {"from": changed_at, "until": until, "crawl": "a killed one"}
        database.books.database["books_history"].insert_one(left)
        killed = {"_id": "a killed one", "collection": "books"}
        database.books.database["crawls"].insert_one(killed)
        for asked in (1, 0):
            site.reset()
            assert database.crawl(site.url).exitcode == 0
            assert site.stats()["detail"] == asked
            assert entries(database) == []


@pytest.mark.parametrize("first", ["a", "b"])
def test_a_crawl_that_slept_between_the_two_writes_does_not_lose_what_others_wrote(
    database: Database, first: str
) -> None:
    """Another one fetches the book meanwhile: as it is stored, or changed."""

    async def run() -> None:
        async with Crawler(database) as sleeper, Crawler(database) as other:
            await other.write(Book("1", name="a"))
            note(database, sleeper)
            write = sleeper.writer._write

            async def after_others(updates: Any) -> Any:
                sleeper.writer._write = write  # type: ignore[method-assign]
                async with Crawler(database) as awake:
                    assert set(awake.history.unsettled) == {"1"}
                    await awake.write(Book("1", name=first))
                return await write(updates)

            sleeper.writer._write = after_others  # type: ignore[method-assign]
            sleeper.writer._expects_new = False
            assert await sleeper.write(Book("1", name="c")) == ["changed"]

    asyncio.run(run())
    assert names(database) == (["a", "c"] if first == "a" else ["a", "b", "c"])
    assert len(entries(database)) == len(names(database)) - 1


def test_a_write_that_mongodb_refuses_leaves_no_version_behind(database: Database) -> None:
    crawl(database, [Book("1", name="a"), Book("2", name="a")])
    refused = {"$jsonSchema": {"properties": {"name": {"not": {"enum": ["b"]}}}}}
    database.books.database.command("collMod", "books", validator=refused)
    outcomes = crawl(database, [Book("1", name="b"), Book("2", name="c")])
    assert outcomes == [[Rejected, "changed"]]
    assert [entry["id"] for entry in entries(database)] == ["2"]


def test_an_old_version_that_the_history_can_not_hold_is_not_replaced(database: Database) -> None:
    crawl(database, [Book("1"), Book("2", name="a")])
    huge = {"id": "1", "introduction": "x" * (16 * 1024 * 1024 - 100)}
    database.books.replace_one({"id": "1"}, huge)
    refused = {"$jsonSchema": {"properties": {"id": {"not": {"enum": ["2"]}}}}}
    database.books.database.command("collMod", "books_history", validator=refused)
    outcomes = crawl(database, [Book("1", name="b"), Book("2", name="b"), Book("3", name="c")])
    assert outcomes == [[Rejected, Rejected, "inserted"]]
    stored = database.stored()
    assert stored["1"]["introduction"] == huge["introduction"]
    assert stored["2"]["name"] == "a"


def test_old_versions_go_after_the_days_that_are_set(database: Database) -> None:
    def expiry() -> Any:
        indexes = database.books.database["books_history"].index_information()
        assert {"id_1", "crawl_1", "until_1"} < indexes.keys()
        return indexes["until_1"].get("expireAfterSeconds")

    async def run(*keep_days: float | None) -> list[Any]:
        found = []
        for days in keep_days:
            async with Crawler(database, days):
                found.append(expiry())
        return found

    assert asyncio.run(run(None, 1.5, 30, None)) == [None, 129_600, 2_592_000, None]


def test_settings_say_whether_the_history_is_kept_and_for_how_long(database: Database) -> None:
    history = database.books.database["books_history"]
    with running_site(20) as site:
        database.crawl(site.url)
        for setting, kept_entries, seconds in (
            ({"HISTORY_ENABLED": "False"}, 0, None),
            ({"HISTORY_KEEP_DAYS": "2"}, 1, 172_800),
        ):
            site.control(edit=site.catalogue.ids[kept_entries : kept_entries + 1])
            crawl = database.crawl(site.url, **setting)
            assert (crawl.exitcode, crawl.stats["mongo/changed"]) == (0, 1)
            assert history.count_documents({}) == kept_entries
            assert history.index_information()["until_1"].get("expireAfterSeconds") == seconds
