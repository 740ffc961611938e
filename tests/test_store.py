"""The collection of books: what is refused at its door, and what becomes of a batch."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

import attrs
import bson
import pytest
import scrapy
from bson import ObjectId
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient
from pymongo.errors import AutoReconnect, OperationFailure
from scrapy.exceptions import CloseSpider, DropItem
from scrapy.http import JsonResponse
from scrapy.settings import Settings
from scrapy.utils.test import get_crawler

from spa5.catalogue.fields import storable
from spa5.catalogue.item import schema_of
from spa5.items import Book
from spa5.mongo import found
from spa5.mongo.connection import Connection, has_local_server
from spa5.mongo.documents import Document, Rejected
from spa5.mongo.errors import StoreError
from spa5.mongo.retry import Retry
from spa5.mongo.store import Store
from spa5.mongo.writer import Writer
from spa5.pipelines import MongoPipeline
from spa5.spiders.books import BooksSpider
from tests.helpers.databases import Database
from tests.helpers.mongods import PASSWORD, old_server, replica_set
from tests.helpers.stored import as_stored, content
from tests.standin.books import Books
from tests.standin.site import RunningSite as Site
from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
    from pathlib import Path

    from spa5.catalogue.item import Key
    from tests.helpers.crawls import Ended

TIMES = ("first_crawled_at", "crawled_at", "changed_at", "listed_at")
LONG_AGO = datetime(2001, 2, 3, tzinfo=timezone.utc)
MOST_BYTES = 16 * 1024 * 1024


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running_site(20) as site:
        yield site


@contextmanager
def refused(database: Database, site: Site, **environment: str) -> Iterator[str]:
    """Crawl, see that MongoDB is not available and the site not asked; the line that says why."""
    site.reset()
    crawl = database.crawl(site.url, **environment)
    assert (crawl.exitcode, crawl.reason) == (1, "mongo_unavailable")
    errors = crawl.lines("ERROR")
    assert len(errors) == 1
    assert len(errors[0]) < 400
    assert "Traceback" not in crawl.log
    assert_keeps_secrets(crawl)
    asked = site.stats()
    assert (asked["requests"], asked["other"]) == (0, 0)
    yield errors[0]


BOOK = schema_of(Book)


def encoded(fields: dict[str, Any]) -> Document:
    return Document.from_item(fields, BOOK)


def assert_keeps_secrets(crawl: Ended) -> None:
    said = "".join((crawl.log, crawl.output, json.dumps(crawl.stats))).lower()
    assert "hunter2" not in said
    assert PASSWORD not in said
    assert quote_plus(PASSWORD).lower() not in said


def refusal(settings: dict[str, str]) -> str:
    """Why a store with these settings does not open, and where it says that it is."""
    store = Store(Settings(settings), "books", BOOK, lambda *_: None)

    async def main() -> str:
        try:
            with pytest.raises(StoreError) as caught:
                await store.open()
        finally:
            await store.close()
        return f"{caught.value} {store.connection.place}"

    return asyncio.run(main())


# At the door


def test_copies_in_the_collection_are_named_and_nothing_is_crawled(
    site: Site, database: Database
) -> None:
    copies = [{"id": "7"}, {"id": "8"}, {"id": "7"}]
    database.books.insert_many(copies)
    with refused(database, site) as error:
        assert f"{database.name}.books" in error
        assert "twice" in error
    assert list(database.books.find({}, {"_id": 0})) == [{"id": one["id"]} for one in copies]


def test_an_index_on_id_that_is_not_unique_is_refused(site: Site, database: Database) -> None:
    database.books.create_index("id")
    with refused(database, site) as error:
        assert "not unique" in error
        assert "dropIndex('id_1')" in error


def test_a_wrong_password_is_refused(site: Site, database: Database, guarded: str) -> None:
    uri = f"mongodb://writer:{quote_plus(PASSWORD)}x@{guarded}/?authSource=admin"
    with refused(database, site, MONGO_URI=uri) as error:
        assert "password is wrong" in error
        assert "MONGO_URI" in error


@pytest.mark.parametrize("user", [f"reader:{quote_plus(PASSWORD)}@", ""], ids=["reader", "nobody"])
def test_who_may_not_write_is_refused(site: Site, guarded: str, user: str) -> None:
    writer = f"mongodb://writer:{quote_plus(PASSWORD)}@{guarded}/?authSource=admin"
    with MongoClient[dict[str, Any]](writer) as client:
        books = Database(writer, "guarded", client["guarded"]["books"])
        with_store(books, lambda store: store.held([]))  # now the index needs no making
    uri = f"mongodb://{user}{guarded}/?authSource=admin"
    with refused(books, site, MONGO_URI=uri) as error:
        assert "not authorized" in error
        assert "MONGO_URI" in error


def test_who_may_write_crawls_and_the_password_is_told_to_nobody(
    site: Site, database: Database, guarded: str
) -> None:
    uri = f"mongodb://writer:{quote_plus(PASSWORD)}@{guarded}/?authSource=admin"
    crawl = database.crawl(
        site.url, "-s", "LOG_LEVEL=DEBUG", MONGO_URI=uri, MONGO_DATABASE="guarded"
    )
    assert (crawl.exitcode, crawl.reason) == (0, "finished")
    assert crawl.stats["mongo/inserted"] == 20
    assert_keeps_secrets(crawl)


def test_a_server_that_does_not_answer_is_named(site: Site, database: Database) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        uri = f"mongodb://me:hunter2@{address}/?serverSelectionTimeoutMS=100"
        with refused(database, site, MONGO_URI=uri) as error:
            assert f"no MongoDB answers at {address}" in error
            assert "MONGO_URI" in error


def test_a_uri_that_is_not_valid_is_refused_and_not_repeated(
    site: Site, database: Database
) -> None:
    with refused(database, site, MONGO_URI="mongodb://me:hunter2/p@ss@localhost/") as error:
        assert "MONGO_URI is not valid" in error


def test_writes_without_acknowledgement_are_refused(site: Site, database: Database) -> None:
    with refused(database, site, MONGO_URI=f"{database.uri}?w=0") as error:
        assert "w=0" in error


@pytest.mark.parametrize(("version", "wire_version"), [("3.6.23", 6), ("4.4.29", 9)])
def test_a_server_that_is_too_old_is_refused(
    site: Site, database: Database, version: str, wire_version: int
) -> None:
    with (
        old_server(version, wire_version) as address,
        refused(database, site, MONGO_URI=f"mongodb://{address}/") as error,
    ):
        assert "too old: 5.0 or later is needed" in error
        assert address in error


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://me:hunter2@x@localhost/",
        "mongodb://me:hunter2:x@localhost/",
        "mongodb://me:hunter2%@localhost/",
        "mongodb://me:hunter2/x@localhost/",
        "mongodb://me:4711/hunter2@127.0.0.1/",
        "mongodb://me:4711/?hunter2@localhost/?w=1",
        "mongodb://me:4711?hunter2=1@localhost/",
        "mongodb://hunter2@localhost/",
        "mongodb://me:hunter2@localhost:99999/",
        "mongodb://me:hunter2@/",
        "mongodb://me@localhost/?passwort=hunter2",
        "mongodb://me:hunter2@localhost/?authMechanism=hunter2",
        "mongodb://me:hunter2@localhost/?tls=true&tlsCAFile=/hunter2",
        "https://me:hunter2@localhost/",
        "me:hunter2@localhost:27017",
    ],
)
def test_no_part_of_a_uri_that_is_not_valid_is_repeated(
    uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    error = refusal({"MONGO_URI": uri, "MONGO_DATABASE": "b", "MONGO_COLLECTION": "b"})
    assert "MONGO_URI is not valid" in error
    assert not [part for part in ("hunter2", "4711") if part in error + caplog.text]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("tls=true", "SSL handshake failed"),
        ("replicaSet=other", "replica set"),
        ("retryWritez=true", "knows no option 'retryWritez'"),
        ("maxPoolSize=many", "the value of its option maxPoolSize can't be used"),
    ],
)
def test_what_the_driver_knows_of_a_fault_is_told(
    guarded: str, option: str, said: str, tmp_path: Path
) -> None:
    uri = f"mongodb://{guarded}/?{option}&serverSelectionTimeoutMS=3000"  # time to meet the fault
    error = refusal({"MONGO_URI": uri, "MONGO_DATABASE": "b", "MONGO_COLLECTION": "b"})
    assert said in error
    assert "start it" not in error


def test_a_user_of_another_database_than_was_asked_gets_a_hint(guarded: str) -> None:
    uri = f"mongodb://writer:{quote_plus(PASSWORD)}@{guarded}/guarded"
    error = refusal({"MONGO_URI": uri, "MONGO_DATABASE": "guarded", "MONGO_COLLECTION": "b"})
    assert "user or password is wrong" in error
    assert "authSource=admin" in error


def test_a_write_concern_that_can_not_be_had_is_named(tmp_path: Path) -> None:
    with replica_set(tmp_path, 1) as replicas:
        uri = f"{replicas.uri}&w=3"
        error = refusal({"MONGO_URI": uri, "MONGO_DATABASE": "b", "MONGO_COLLECTION": "b"})
    assert "does not confirm writes as MONGO_URI asks for" in error
    assert "rs.status()" in error


def test_a_database_in_the_uri_that_is_not_used_is_told(site: Site, database: Database) -> None:
    crawl = database.crawl(site.url, MONGO_URI=f"{database.uri}other")
    assert crawl.exitcode == 0
    (line,) = [line for line in crawl.lines("WARNING") if "names the database 'other'" in line]
    assert "MONGO_DATABASE" in line


@pytest.mark.parametrize(("database_name", "collection"), [("a.b", "b"), ("b", "$b"), ("b", "b.")])
def test_names_that_mongodb_does_not_take_are_one_line(
    mongo_uri: str, database_name: str, collection: str
) -> None:
    names = {"MONGO_DATABASE": database_name, "MONGO_COLLECTION": collection}
    error = refusal({"MONGO_URI": mongo_uri, **names})
    assert len(error) < 300
    assert "\n" not in error


def test_a_unique_index_on_id_under_another_name_is_good_enough(database: Database) -> None:
    database.books.create_index("id", unique=True, name="mine")
    assert write(database, {"id": "1"}) == ["inserted"]
    on_id = [name for name in database.books.index_information() if "id_1" in name]
    assert on_id == []


# A batch


@asynccontextmanager
async def opened(database: Database) -> AsyncIterator[Store]:
    settings = {"MONGO_COLLECTION": "books", "MONGO_RETRY_SECONDS": 10, **database.environment}
    store = Store(Settings(settings), "books", BOOK, lambda *_: None)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def with_store(database: Database, work: Callable[[Store], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with opened(database) as store:
            return await work(store)

    return asyncio.run(main())


def write(database: Database, *items: Any) -> list[Any]:
    """Write the items as one batch; the outcome of each, the class of an exception."""
    documents = [encoded(vars(item) if isinstance(item, Book) else item) for item in items]
    outcomes = with_store(database, lambda store: Writer(store).write(documents))
    return [one if isinstance(one, str) else type(one) for one in outcomes]


def age(database: Database) -> None:
    """Let the stored books look as if all that happened to them happened long ago."""
    database.books.update_many({}, {"$set": dict.fromkeys(TIMES, LONG_AGO)})


def moved(document: dict[str, Any]) -> set[str]:
    """Which of the document's times are not from long ago."""
    return {name for name in TIMES if document[name] > LONG_AGO}


def test_times_tell_when_a_book_came_was_fetched_and_changed(database: Database) -> None:
    same, other, new = Book("1", name="a"), Book("2", name="b"), Book("3", name="c")
    assert write(database, same, other) == ["inserted", "inserted"]
    age(database)
    other.name = "B"
    assert write(database, same, other, new) == ["unchanged", "changed", "inserted"]
    stored = database.stored()
    assert moved(stored["1"]) == {"crawled_at", "listed_at"}
    assert moved(stored["2"]) == {"crawled_at", "listed_at", "changed_at"}
    assert moved(stored["3"]) == set(TIMES)
    assert len({stored["3"][name] for name in TIMES}) == 1
    assert [stored[one]["name"] for one in "123"] == ["a", "B", "c"]


@pytest.mark.parametrize(
    ("stored", "batch", "outcomes"),
    [
        ("", "AA", ["inserted", "unchanged"]),
        ("", "AB", ["inserted", "changed"]),
        ("", "ABA", ["inserted", "changed", "changed"]),
        ("A", "AA", ["unchanged", "unchanged"]),
        ("A", "AB", ["unchanged", "changed"]),
        ("A", "BA", ["changed", "changed"]),
        ("A", "BB", ["changed", "unchanged"]),
        ("A", "ABA", ["unchanged", "changed", "changed"]),
        ("A", "BAB", ["changed", "changed", "changed"]),
    ],
)
def test_of_two_with_one_id_in_a_batch_the_last_wins_and_each_is_counted(
    database: Database, stored: str, batch: str, outcomes: list[str]
) -> None:
    for name in stored:
        write(database, Book("1", name=name))
    neighbours = [Book(str(2 + n)) for n in range(len(batch))]
    books = [Book("1", name=name) for name in batch]
    mixed = [book for pair in zip(books, neighbours, strict=True) for book in pair]
    results = write(database, *mixed)
    assert results[::2] == outcomes
    assert results[1::2] == ["inserted"] * len(neighbours)
    assert database.books.count_documents({"id": "1"}) == 1
    assert database.stored()["1"]["name"] == batch[-1]


def test_two_stores_at_once_agree_on_one_collection(database: Database) -> None:
    documents = [[encoded({"id": str(n), "name": name}) for n in range(400)] for name in "AB"]

    async def main() -> Any:
        async with opened(database) as one, opened(database) as other:
            return await asyncio.gather(
                Writer(one).write(documents[0]), Writer(other).write(documents[1][::-1])
            )

    outcomes = [outcome for half in asyncio.run(main()) for outcome in half]
    assert set(outcomes) <= {"inserted", "changed"}
    assert database.books.count_documents({}) == 400
    assert {book["name"] for book in database.books.find()} <= {"A", "B"}


def test_documents_of_a_plain_script_become_right(database: Database) -> None:
    catalogue = Books(40)
    details = {one: catalogue.detail(one) for one in catalogue.ids}
    database.books.insert_many([dict(detail) for detail in details.values()])
    books = [Book.from_api(detail) for detail in details.values()]
    assert write(database, *books) == ["changed"] * 40
    assert write(database, *books) == ["unchanged"] * 40
    for one, document in database.stored().items():
        right = as_stored(details[one])
        assert {name: document.get(name) for name in right} == right
        assert all(isinstance(document[name], datetime) for name in TIMES)


def test_a_document_that_lacks_only_its_bookkeeping_is_unchanged_and_gets_it(
    database: Database,
) -> None:
    book = Book("1", name="a", score=7.5, comments=[{"id": "1", "content": "x"}])
    write(database, book)
    database.books.update_one({}, {"$unset": dict.fromkeys(TIMES, "")})
    assert write(database, book) == ["unchanged"]
    assert moved(database.stored()["1"]) == set(TIMES)


@pytest.mark.parametrize(
    "time",
    ["yesterday", None, 5, [LONG_AGO], {"$date": 1}, DatetimeMS(-(1 << 60)), DatetimeMS(1 << 60)],
    ids=repr,
)
@pytest.mark.parametrize("is_same", [True, False], ids=["same", "other"])
def test_strange_times_are_no_error(database: Database, time: Any, is_same: bool) -> None:
    strange = {"id": "1", **dict.fromkeys(TIMES, time), "name": "a", "published_at": time}
    database.books.insert_one(strange)
    assert with_store(database, lambda store: store.mark_listed(["1"])).stored["1"]["name"] == "a"
    database.books.update_one({}, {"$set": {"listed_at": time}})
    item = {name: strange[name] for name in ("id", "name", "published_at")}
    if not is_same:
        item["published_at"] = LONG_AGO
    assert write(database, item) == ["unchanged" if is_same else "changed"]
    document = database.books.with_options(
        CodecOptions(tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO)
    ).find_one()
    assert document is not None
    assert document["published_at"] == item["published_at"]
    if time != DatetimeMS(1 << 60):
        assert [name for name in TIMES if not isinstance(document[name], datetime)] == []


def test_stored_text_that_is_not_utf_8_is_no_error(database: Database) -> None:
    raw = bson.encode({"id": "1", "name": "??"}).replace(b"??", b"\xff\xfe")
    database.books.insert_one(RawBSONDocument(raw))
    seen = with_store(database, lambda store: store.mark_listed(["1"]))
    assert seen.stored["1"]["name"] != "a"
    assert write(database, Book("1", name="a")) == ["changed"]
    assert database.stored()["1"]["name"] == "a"


def test_fields_that_an_item_no_longer_has_disappear_and_others_stay(database: Database) -> None:
    write(database, {"id": "1", "name": "a", "price": "1元", "extra": {"x": 1, "y": 2}})
    database.books.update_one({}, {"$set": {"my_notes": "mine"}})
    assert write(database, {"id": "1", "name": "a", "extra": {"x": 1, "y": 2}}) == ["changed"]
    assert "price" not in database.stored()["1"]
    assert write(database, {"id": "1", "name": "a", "extra": {"x": 1}}) == ["changed"]
    assert content(database.stored()["1"]) == {
        "id": "1",
        "name": "a",
        "extra": {"x": 1},
        "my_notes": "mine",
    }
    assert write(database, Book("1", name="a")) == ["changed"]
    stored = content(database.stored()["1"])
    assert stored == {
        **{name: value for name, value in vars(Book("1", name="a")).items() if name != "extra"},
        "my_notes": "mine",
    }
    assert write(database, Book("1", name="a")) == ["unchanged"]


GOOD = {"id": "1", "score": 8.5, "authors": ["a"], "isbn": "978", "price": "1元"}


@pytest.mark.parametrize(
    "bad",
    [
        {"score": {"value": 9}},
        {"authors": "b"},
        {"authors": ["b", {}], "isbn": {}},
        {"score": 1e999},
    ],
    ids=repr,
)
def test_what_can_not_be_read_never_replaces_what_is_stored(
    database: Database, bad: dict[str, Any]
) -> None:
    good = Book.from_api(GOOD)
    write(database, good)
    before = content(database.stored()["1"])
    flawed = Book.from_api(GOOD | bad | {"price": "2元"})
    assert write(database, flawed) == ["changed"]
    after = content(database.stored()["1"])
    kept = after.pop("extra")
    assert after == before | {"price": "2元"}
    assert kept.keys() == bad.keys()
    assert [kept[name] for name in bad if storable(bad[name])] == [
        value for value in bad.values() if storable(value)
    ]
    assert write(database, flawed) == ["unchanged"]
    read = Book.from_api(GOOD | {"score": 9, "authors": ["b"]})
    assert write(database, read) == ["changed"]
    after = content(database.stored()["1"])
    assert after == {name: value for name, value in vars(read).items() if name != "extra"}


def test_of_a_new_book_the_usable_part_of_what_can_not_be_read_is_stored(
    database: Database,
) -> None:
    flawed = Book.from_api(GOOD | {"authors": ["b", {}], "score": "good"})
    assert write(database, flawed, flawed) == ["inserted", "unchanged"]
    stored = content(database.stored()["1"])
    assert stored == vars(flawed)
    assert (stored["authors"], stored["score"]) == (["b"], None)
    assert stored["extra"] == {"authors": ["b", {}], "score": "good"}
    document = encoded(vars(flawed))
    assert document.differing(stored | {"authors": ["c"], "isbn": "x"}) == ["isbn"]


def test_a_stored_value_outlives_a_flaw_in_the_same_batch(database: Database) -> None:
    flawed = Book.from_api(GOOD | {"score": "good"})
    assert write(database, Book.from_api(GOOD), flawed) == ["inserted", "changed"]
    assert database.stored()["1"]["score"] == 8.5


def test_a_book_of_16_mb_is_stored_and_a_byte_more_is_rejected_alone(database: Database) -> None:
    write(database, {"id": "1", "introduction": ""})
    raw = database.books.with_options(CodecOptions(document_class=RawBSONDocument))
    room = MOST_BYTES - len(raw.find_one().raw)  # type: ignore[union-attr]
    items = [{"id": str(n), "introduction": "x" * (room + n - 5)} for n in (4, 5, 6)]
    outcomes = write(database, {"id": "2"}, *items, {"id": "3"})
    assert outcomes == ["inserted", "inserted", "inserted", Rejected, "inserted"]
    assert sorted(database.stored()) == ["1", "2", "3", "4", "5"]
    assert len(database.stored()["5"]["introduction"]) == room


def test_a_book_that_only_its_bookkeeping_makes_too_large_is_rejected_alone(
    database: Database,
) -> None:
    room = MOST_BYTES - len(encoded({"id": "1", "introduction": ""}).content)
    largest = {"id": "1", "introduction": "x" * room}
    assert write(database, {"id": "2"}, largest, {"id": "3"}) == ["inserted", Rejected, "inserted"]
    assert sorted(database.stored()) == ["2", "3"]
    with pytest.raises(Rejected, match="16 MB"):
        encoded(largest | {"introduction": "x" * (room + 1)})


def test_a_book_that_another_unique_index_refuses_is_rejected_alone(database: Database) -> None:
    database.books.create_index("isbn", unique=True)
    write(database, Book("1", isbn="a"), Book("2", isbn="b"))
    batch = [Book("2", isbn="B"), Book("3", isbn="a"), Book("1", isbn="B"), Book("4", isbn="d")]
    assert write(database, *batch) == ["changed", Rejected, Rejected, "inserted"]
    stored = {one: book["isbn"] for one, book in database.stored().items()}
    assert stored == {"1": "a", "2": "B", "4": "d"}


def test_listed_books_are_marked_and_what_was_stored_before_is_told(database: Database) -> None:
    known = Book("1", name="a", authors=["b"], cover="c", score=7.5)
    write(database, known, Book("2"), Book("3"))
    age(database)
    seen, refused = with_store(database, lambda store: store.mark_listed(["2", "1", "4"]))
    assert (sorted(seen), refused) == (["1", "2"], {})
    assert {name: seen["1"][name] for name in BOOK.listed} == listed(known)
    assert (seen["1"]["crawled_at"], seen["1"]["listed_at"]) == (LONG_AGO, LONG_AGO)
    stored = database.stored()
    assert {one: moved(book) for one, book in stored.items()} == {
        "1": {"listed_at"},
        "2": {"listed_at"},
        "3": set(),
    }
    seen, _ = with_store(database, lambda store: store.mark_listed(["1"]))
    assert seen["1"]["listed_at"] == stored["1"]["listed_at"]
    assert with_store(database, lambda store: store.mark_listed([])) == ({}, {})


def listed(book: Book) -> dict[str, Any]:
    """What the spider takes of this book from an index page."""
    names = ("MONGO_RETRY_SECONDS", "SITE_RETRY_SECONDS", "MAX_SWEEPS", "REFRESH_AFTER_DAYS")
    settings = {"SITE_URL": "http://x", "DRIFT_SHARE": 0.5, **dict.fromkeys(names, 1)}
    spider = BooksSpider.from_crawler(get_crawler(BooksSpider, settings))
    page = {"count": 1, "results": [vars(book)]}
    asked = scrapy.Request("http://x/api/book/?limit=1&offset=0")
    response = JsonResponse(asked.url, body=json.dumps(page).encode(), request=asked)
    (request,) = spider.parse_index(response)
    return dict(request.meta["listed"])


def test_a_book_whose_listing_mongodb_refuses_costs_its_neighbours_nothing(
    database: Database,
) -> None:
    """The validator came later, and takes no writes to what it would not let in."""
    write(database, *(Book(one, name="a") for one in "1234"), Book("5"), Book("6"))
    age(database)
    database.books.database.command(
        "collMod", "books", validator={"name": {"$type": "string"}}, validationLevel="strict"
    )
    seen, refused = with_store(
        database, lambda store: store.mark_listed(["5", "1", "6", "2", "9", "3"])
    )
    assert sorted(seen) == ["1", "2", "3", "5", "6"]
    assert sorted(refused) == ["5", "6"]
    assert "validation" in refused["5"]
    stored = database.stored()
    assert [one for one in sorted(stored) if moved(stored[one])] == ["1", "2", "3"]


def test_of_any_number_of_ids_the_stored_ones_are_told(database: Database) -> None:
    write(database, Book("7"), Book("19999"), Book("20001"))
    database.books.insert_one({"name": "no book"})
    ids = [str(number) for number in range(25_000)]

    async def ask(store: Store) -> tuple[Any, ...]:
        await store.mark_listed(ids)
        return await store.held(iter(ids)), await store.get(ids), await store.total()

    held, stored, total = with_store(database, ask)
    assert held == stored.keys() == {"7", "19999", "20001"}
    assert all(isinstance(book["listed_at"], datetime) for book in stored.values())
    assert total == 4
    assert with_store(database, lambda store: store.held([])) == set()


def test_which_books_are_held_is_read_from_the_index_alone(database: Database) -> None:
    write(database, *map(Book, "123"))
    database.books.database.command("profile", 2)
    with_store(database, lambda store: store.held(["1", "2", "9"]))
    database.books.database.command("profile", 0)
    (query,) = database.books.database["system.profile"].find({"op": "query"})
    assert (query["docsExamined"], query["nreturned"]) == (0, 2)


# What others do to the collection meanwhile


def test_without_its_unique_index_nothing_is_written_before_it_is_there_again(
    database: Database,
) -> None:
    """Two that store the same books, while the collection is dropped under their hands."""

    async def main() -> None:
        async with opened(database) as one, opened(database) as other:
            for number in range(1, 4):
                documents = [encoded({"id": str(n), "name": "a"}) for n in range(200)]
                again = [document._replace(oid=ObjectId()) for document in documents]
                results = await asyncio.gather(
                    Writer(one).write(documents), Writer(other).write(again)
                )
                assert {type(outcome) for half in results for outcome in half} == {str}
                assert database.books.count_documents({}) == 200
                assert has_unique_index(database)
                drop = (database.books.drop_indexes, database.books.drop)[number % 2]
                drop()
            assert (await one.mark_listed(["1"])).stored == {}
            assert await other.held(["1", "2"]) == set()

    asyncio.run(main())


def has_unique_index(database: Database) -> bool:
    indexes = database.books.index_information().values()
    return [index["key"] for index in indexes if index.get("unique")] == [[("id", 1)]]


@pytest.mark.parametrize("lost", ["index", "collection"])
@pytest.mark.parametrize("work", ["write", "mark_listed", "held"])
def test_whatever_comes_first_makes_a_lost_index_again(
    database: Database, lost: str, work: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(database, Book("1"), Book("2", name="b"))

    async def main(store: Store) -> None:
        database.books.drop_indexes()
        if lost == "collection":
            database.books.drop()
            database.books.database.create_collection("books")
        if work == "write":
            await Writer(store).write([encoded(vars(Book("2")))])
        else:
            await getattr(store, work)(["1", "2"])

    with_store(database, main)
    assert has_unique_index(database)
    (warning,) = caplog.records
    assert "has lost its unique index on id" in warning.getMessage()


def test_until_a_lost_index_is_made_again_mongodb_refuses_each_write(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(store: Store) -> None:
        make_unique_index = found.make_unique_index

        async def meet_a_write(items: Any, schema: Any) -> str:
            with pytest.raises(OperationFailure, match="hint"):
                await items.update_one({"id": "7"}, {"$set": {}}, upsert=True, hint=store.index)
            return await make_unique_index(items, schema)

        monkeypatch.setattr(found, "make_unique_index", meet_a_write)
        database.books.drop_indexes()
        assert await store.held(["1"]) == {"1"}

    write(database, Book("1"))
    with_store(database, main)
    assert has_unique_index(database)


def test_copies_that_came_while_the_index_was_gone_are_named(database: Database) -> None:
    async def main(store: Store) -> None:
        database.books.drop_indexes()
        database.books.insert_many([{"id": "7"}, {"id": "7"}])
        with pytest.raises(StoreError, match="holds books twice"):
            await Writer(store).write([encoded(vars(Book("1")))])

    write(database, Book("2"))
    with_store(database, main)
    assert sorted(book["id"] for book in database.books.find()) == ["2", "7", "7"]


@pytest.mark.parametrize("change", ["same", "other"])
def test_a_book_that_is_deleted_between_query_and_write_is_stored_all_the_same(
    database: Database, change: str
) -> None:
    books = [Book(one, name="a") for one in "123"]
    write(database, *books)
    if change == "other":
        for book in books:
            book.name = "b"
    outcomes = with_store(database, lambda store: write_late(store, database, "2", books))
    kept = "changed" if change == "other" else "unchanged"
    assert outcomes == [kept, "inserted", kept]
    stored = database.stored()
    assert [stored[one]["name"] for one in "123"] == [book.name for book in books]
    assert all(isinstance(stored["2"][name], datetime) for name in TIMES)


async def write_late(
    store: Store, database: Database, deleted: str, books: list[Book]
) -> list[Any]:
    """Write stored books; one of them is deleted when MongoDB has been asked what it holds."""
    get = store.get

    async def get_and_delete(
        keys: Iterable[Key], projection: dict[str, int] | None = None
    ) -> dict[Key, dict[str, Any]]:
        store.get = get  # type: ignore[method-assign]
        stored = await get(keys)
        database.books.delete_one({"id": deleted})
        return stored

    store.get = get_and_delete  # type: ignore[method-assign]
    return list(await Writer(store).write([encoded(vars(book)) for book in books]))


def test_a_book_that_mongodb_acknowledges_and_does_not_hold_is_rejected_alone(
    database: Database,
) -> None:
    """A list that holds the id is met by whatever asks for that id."""
    database.books.insert_one({"id": ["1", "x"]})
    assert write(database, Book("1"), Book("2"), Book("3")) == [Rejected, "inserted", "inserted"]


def test_once_one_has_waited_in_vain_nobody_waits_or_is_told_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counted: list[str] = []
    connection = Connection(Settings(), "books")
    retry = Retry(connection, 0, lambda stat, _: counted.append(stat))
    is_first_over = asyncio.Event()

    async def first() -> None:
        raise AutoReconnect("gone")

    async def second() -> None:
        await is_first_over.wait()
        raise AutoReconnect("gone")

    async def main() -> None:
        waiting = asyncio.create_task(retry.run(second))
        await asyncio.sleep(0)
        with pytest.raises(StoreError, match="stayed away"):
            await retry.run(first)
        is_first_over.set()
        for late in (waiting, retry.run(asyncio.Event().wait)):
            with pytest.raises(StoreError, match="stayed away"):
                await late

    asyncio.run(main())
    assert counted == ["mongo/outage_seconds"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


# The pipeline


def pipe(
    database: Database, items: list[Any], check: Callable[[Any], None] = lambda _: None
) -> tuple[list[Any], dict[str, Any]]:
    """Give the items to a pipeline at once; what came of each, checked at once, and the stats."""
    settings = {"MONGO_COLLECTION": "books", "MONGO_RETRY_SECONDS": 10, **database.environment}
    crawler = get_crawler(settings_dict=settings)
    pipeline = MongoPipeline.from_crawler(crawler)

    async def process(item: Any) -> Any:
        returned = await pipeline.process_item(item)
        check(returned)
        return returned

    async def main() -> list[Any]:
        await pipeline.open_spider()
        try:
            return await asyncio.gather(*map(process, items), return_exceptions=True)
        finally:
            await pipeline.close_spider()

    return asyncio.run(main()), crawler.stats.get_stats()


def test_an_item_that_comes_out_is_stored_and_many_share_a_write(database: Database) -> None:
    def check(book: Book) -> None:
        document = database.books.find_one({"id": book.id})
        assert document is not None
        assert document["name"] == book.name

    books = [Book(str(n), name=f"book {n}") for n in range(200)]
    results, stats = pipe(database, books, check)
    assert all(result is book for result, book in zip(results, books, strict=True))
    assert stats["mongo/inserted"] == 200
    assert stats["mongo/batches"] <= 5


def test_stats_count_each_outcome(database: Database) -> None:
    write(database, Book("1"), Book("2"))
    books = [Book("1"), Book("2", name="b"), Book("3"), Book("3"), Book("3", name="c"), Book("?")]
    _, stats = pipe(database, books)
    outcomes = ("inserted", "changed", "unchanged", "rejected")
    assert [stats[f"mongo/{outcome}"] for outcome in outcomes] == [1, 2, 2, 1]


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


BAD: dict[str, dict[Any, Any]] = {
    "lone surrogate": {"name": "\ud800"},
    "lone surrogate in a field's name": {"\ud800": "x"},
    "nul in a name": {"extra": {"a\0": 1}},
    "int as a name": {"extra": {5: 1}},
    "huge int": {"extra": {"big": 1 << 64}},
    "object": {"extra": object()},
    "17 MB": {"introduction": "x" * (17 << 20)},
    "190 levels": {"tags": nested(190)},
    "250 levels": {"tags": nested(250)},
    "500 levels": {"tags": nested(500)},
    "5000 levels": {"tags": nested(5000)},
    "dotted field": {"a.b": 1},
    "operator as a field": {"$set": {"x": 1}},
    "nameless field": {"": 1},
    "_id": {"_id": 1},
    "int as a field": {5: 1},
    "bytes as a field": {b"x": 1},
    "bookkeeping": {"crawled_at": "never"},
    "id: $gt": {"id": {"$gt": ""}},
    "id: $ne": {"id": {"$ne": None}},
    "id: list": {"id": ["1"]},
    "id: null": {"id": None},
    "id: empty": {"id": ""},
    "id: line break": {"id": "1\n"},
    "id: float": {"id": 1.5},
    "id: true": {"id": True},
    "id: negative": {"id": -1},
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_book_fails_alone(
    database: Database, bad: dict[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    item = {"id": "13", "name": "a", **bad}
    results, stats = pipe(database, [{"id": "1"}, {"id": "2"}, item, {"id": "3"}])
    assert [isinstance(result, DropItem) for result in results] == [False, False, True, False]
    assert sorted(database.stored()) == ["1", "2", "3"]
    assert (stats["mongo/inserted"], stats["mongo/rejected"]) == (3, 1)
    (warning,) = (record for record in caplog.records if record.levelname == "WARNING")
    assert str(results[2]) in warning.getMessage()
    assert len(warning.getMessage()) < 400
    assert "\n" not in warning.getMessage()


@dataclass
class DataclassItem:
    id: Any
    name: str


@attrs.define
class AttrsItem:
    id: Any
    name: str


class ScrapyItem(scrapy.Item):
    id = scrapy.Field()
    name = scrapy.Field()
    price = scrapy.Field()


def test_items_of_every_kind_are_stored(database: Database) -> None:
    items = [
        Book("1", name="a"),
        {"id": "2", "name": "a", "shelf": 7},
        DataclassItem("3", "a"),
        AttrsItem("4", "a"),
        ScrapyItem(id="5", name="a"),
        {"id": 6, "name": "a"},
    ]
    results, _ = pipe(database, items)
    assert all(result is item for result, item in zip(results, items, strict=True))
    stored = database.stored()
    assert {one: book["name"] for one, book in stored.items()} == dict.fromkeys("123456", "a")
    assert content(stored["2"]) == {"id": "2", "name": "a", "shelf": 7}
    assert content(stored["5"]) == {"id": "5", "name": "a"}


@pytest.mark.parametrize("uri", ["mongodb://me:hunter2@@/", "", None], ids=["bad", "copies", "dir"])
def test_a_pipeline_that_could_not_open_closes(
    database: Database, tmp_path: Path, uri: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    database.books.insert_many([{"id": "1"}, {"id": "1"}])
    (tmp_path / "file").touch()
    settings = database.environment | {"MONGO_COLLECTION": "books"}
    if uri is None:
        settings |= {"MONGO_URI": "embedded", "MONGO_DATA_DIR": str(tmp_path / "file" / "data")}
    elif uri:
        settings |= {"MONGO_URI": uri}
    pipeline = MongoPipeline.from_crawler(get_crawler(settings_dict=settings))

    async def main() -> None:
        with pytest.raises(CloseSpider) as caught:
            await pipeline.open_spider()
        assert caught.value.reason == "mongo_unavailable"
        await pipeline.close_spider()
        await pipeline.close_spider()

    asyncio.run(main())
    assert [record.levelname for record in caplog.records] == ["ERROR"]


# The collection as it is found

STRANGE: list[tuple[list[dict[str, Any]], str, str]] = [
    ([{"id": 7}, {"id": 8}], "holds 2 books whose id is a number, for example", "updateMany"),
    ([{"id": 7.0}, {"id": "8"}], "holds 1 books whose id is a number", "$toLong"),
    ([{"_id": "7"}, {"_id": "8"}], "holds 2 books with their id in _id alone", "updateMany"),
    ([{"_id": 7}], "holds 1 books with their id in _id alone", "updateMany"),
    ([{"name": "a"}, {"name": "b"}], "holds 2 documents without a book's id", "Duplicates"),
]


@pytest.mark.parametrize(("documents", "said", "cure"), STRANGE)
def test_what_would_be_stored_twice_is_named_with_its_cure(
    site: Site, database: Database, documents: list[dict[str, Any]], said: str, cure: str
) -> None:
    database.books.insert_many(documents)
    before = list(database.books.find())
    with refused(database, site) as error:
        assert said in error
        assert cure in error
    assert list(database.books.find()) == before


def test_one_foreign_document_is_in_nobodys_way(site: Site, database: Database) -> None:
    database.books.insert_one({"settings": True})
    assert database.crawl(site.url).exitcode == 0
    assert database.books.count_documents({}) == 21


@pytest.mark.parametrize("number", [7, 7.0, 1e7, 10**15])
def test_the_cure_for_numbers_turns_each_into_its_text_and_loses_nothing(
    database: Database, number: float
) -> None:
    """The words of the message, as mongosh runs them."""
    database.books.insert_many([{"id": number, "name": "a"}, {"_id": number + 1, "name": "b"}])
    database.books.update_many(
        {"id": {"$gte": 0, "$lt": 9e18}, "$expr": {"$eq": ["$id", {"$trunc": "$id"}]}},
        [{"$set": {"id": {"$toString": {"$toLong": "$id"}}}}],
    )
    numbered = {"$cond": [{"$isNumber": "$_id"}, {"$toString": {"$toLong": "$_id"}}, "$_id"]}
    own = [{"_id": {"$regex": "^[0-9]{1,20}$"}}, {"_id": {"$gte": 0, "$lt": 9e18}}]
    database.books.update_many({"id": None, "$or": own}, [{"$set": {"id": numbered}}])
    assert database.stored().keys() == {str(int(number)), str(int(number) + 1)}
    assert {book["name"] for book in database.books.find()} == {"a", "b"}


def test_a_validator_that_refuses_a_stored_book_costs_that_book_alone(
    site: Site, database: Database
) -> None:
    crawl = database.crawl(site.url)
    odd = site.catalogue.ids[0]
    database.books.delete_many({"id": {"$in": site.catalogue.ids[10:]}})
    validator = {"id": {"$ne": odd}}
    database.books.database.command("collMod", "books", validator=validator)
    crawl = database.crawl(site.url)
    assert (crawl.exitcode, crawl.reason) == (1, "incomplete")
    assert (crawl.stats["mongo/inserted"], crawl.stats["mongo/rejected"]) == (10, 1)
    assert odd in crawl.lines("ERROR")[-1]


def test_a_server_that_does_not_answer_on_the_usual_port_is_not_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"mongodb://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("spa5.mongo.connection.LOCAL_URI", address)
            error = refusal({"MONGO_DATABASE": "b", "MONGO_COLLECTION": "b"})
    assert "does not answer as MongoDB does" in error


def test_a_machine_that_is_slow_to_refuse_a_connection_has_no_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def open_connection(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("asyncio.open_connection", open_connection)
    monkeypatch.setattr("spa5.mongo.connection.LOCAL_URI", "mongodb://127.0.0.1:1/")
    assert not asyncio.run(has_local_server())
