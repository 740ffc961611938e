"""`scrapy restore`: what a crawl replaced comes back, byte for byte, and is never lost itself."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import bson
import pytest
from bson import Binary, Decimal128, Int64, ObjectId, Regex
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from scrapy.exceptions import UsageError

from spa5.commands.restore import Command
from spa5.mongo.writer import Writer
from spa5.spiders.books import BooksSpider
from spa5.spiders.movies import MoviesSpider
from tests.helpers.crawls import MOST_SECONDS, run, scrapy
from tests.helpers.endings import assert_is_finished
from tests.helpers.lookups import (
    CRAWL,
    add_crawl,
    add_item,
    add_version,
    entries,
    kept,
    look,
    minute,
)
from tests.helpers.stored import BOOKKEEPING, content
from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import Callable

    from pymongo.database import Database as MongoDatabase

    from tests.helpers.databases import Database

    Stored = MongoDatabase[dict[str, Any]]
    Capture = pytest.CaptureFixture[str]

AWARE: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)
RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
OTHER = "20251126-000000-bbbbbb"
MOVED = BOOKKEEPING - {"changed_at"}


@pytest.fixture
def stored(database: Database) -> Stored:
    mongo = database.books.database
    add_crawl(mongo)
    return mongo


def raw(database: Database) -> dict[str, list[tuple[str, bytes]]]:
    """The names and bytes of each stored book's fields, in their order, without the times."""
    books = database.books.with_options(codec_options=RAW).find()
    return {
        book["id"]: [
            (name, bytes(bson.encode({"": book[name]}))) for name in book if name not in BOOKKEEPING
        ]
        for book in books
    }


def notes(database: Database) -> list[dict[str, Any]]:
    """What the ledger has of restores, the oldest first."""
    restored = {"reason": "restored"}
    return list(database.books.database["crawls"].find(restored, sort=[("began", 1)]))


def restore(database: Database, *given: str, crawl: str = CRAWL) -> int:
    return look(Command(), BooksSpider, database, "--crawl", crawl, "--yes", *given)


def test_a_drift_that_was_let_through_is_undone_and_that_is_undone_too(database: Database) -> None:
    with running_site(30) as site:
        assert_is_finished(database.crawl(site.url))
        good, raw_good = database.stored(), raw(database)
        site.control(rename={"score": "rating"}, blank=["introduction"])
        everything = ("-a", "refresh=all", "-a", "accept=drift")
        assert_is_finished(database.crawl(site.url, *everything))
    bad = database.stored()
    crawl = next(iter(bad.values()))["crawl"]
    assert raw(database) != raw_good

    shown = run("restore", "--crawl", crawl, **database.environment)
    assert (shown.exitcode, shown.log) == (0, "")
    assert f"Crawl {crawl}: 30 books to put back (" in shown.output
    assert "… and 10 more: --limit 30 shows them all" in shown.output
    assert database.stored() == bad

    done = run("restore", "--crawl", crawl, "--yes", **database.environment)
    assert (done.exitcode, done.log) == (0, "")
    assert raw(database) == raw_good
    for one, book in database.stored().items():
        assert book["changed_at"] > bad[one]["changed_at"]
        assert all(book.get(name) == bad[one].get(name) for name in MOVED)
    again = run("restore", "--crawl", crawl, "--yes", **database.environment)
    assert again.output == f"Crawl {crawl}: there is nothing to put back\n"

    undo = re.search("scrapy (restore --crawl (.*) --yes)", done.output)
    assert undo
    off = {"HISTORY_ENABLED": "False"}  # for crawls
    with scrapy(*undo[1].split(), "--json", **off, **database.environment) as process:
        assert process.stdout
        process.stdout.close()  # nobody reads that
        assert process.wait(MOST_SECONDS) == 0
    for one, book in good.items():
        was, became = content(book), content(bad[one])
        assert kept(database, one) == [was, became, was, became]
    note = database.books.database["crawls"].find_one({"_id": undo[2]}) or {}
    assert note["arguments"] == {"crawl": crawl}
    assert note["counts"]["changed"] == 30
    assert (note["reason"], note["exit_code"], note["settled"]) == ("restored", 0, True)
    assert not note["whole"]
    assert ["ended" in one for one in notes(database)] == [True, True]


def test_what_something_else_changed_since_is_left_as_it_is(
    stored: Stored, database: Database, capsys: Capture
) -> None:
    """Be it after the crawl or between two changes of the same crawl."""
    add_item(stored, id="1", name="c", score=3.0, isbn="z", changed_at=minute(3))
    add_version(stored, "1", (-9, 1), {"name": "a", "score": 1.0, "isbn": "x"})
    add_version(stored, "1", (1, 2), {"score": 2.0, "isbn": "y"}, crawl=OTHER)
    add_version(stored, "1", (2, 3), {"name": "b", "isbn": "y2"})
    assert restore(database) == 0
    assert content(database.stored()["1"]) == {"id": "1", "name": "a", "score": 3.0, "isbn": "z"}
    output = capsys.readouterr().out
    assert f"Crawl {CRAWL}: 1 book put back (name 1)" in output
    assert re.search(
        "Changed again since, and left as it is: (score|isbn) 1, (score|isbn) 1", output
    )
    assert [book["name"] for book in kept(database)] == ["a", "b", "b", "c", "a"]
    assert [book["score"] for book in kept(database)] == [1.0, 2.0, 3.0, 3.0, 3.0]


def test_all_changes_since_a_moment_are_undone_whoever_made_them(
    stored: Stored, database: Database
) -> None:
    add_item(stored, id="1", name="d", changed_at=minute(3))
    for number, (name, crawl) in enumerate([("a", CRAWL), ("b", OTHER), ("c", CRAWL)], 1):
        add_version(stored, "1", (number - 1, number), {"name": name}, crawl=crawl)
    add_item(stored, id="2", name="old", changed_at=minute(0))
    add_version(stored, "2", (-9, 0), {"name": "older"})
    since = minute(1.5).isoformat()
    assert look(Command(), BooksSpider, database, "--since", since, "--yes") == 0
    assert [book["name"] for book in kept(database)] == ["a", "b", "c", "d", "b"]
    assert database.stored()["2"]["name"] == "old"
    (note,) = notes(database)
    assert note["arguments"] == {"since": since}


def test_a_field_that_the_old_version_lacked_is_taken_away_and_one_that_it_had_comes_back(
    stored: Stored, database: Database, capsys: Capture
) -> None:
    add_item(stored, id="1", name="b", extra={"new": 1}, changed_at=minute(1))
    add_version(stored, "1", (-9, 1), {"extra": None, "isbn": "x"}, absent=["extra"])
    add_item(stored, id="2", isbn=None, changed_at=minute(1))
    add_version(stored, "2", (-9, 1), {"isbn": None}, absent=["isbn"])
    assert look(Command(), BooksSpider, database, "--crawl", CRAWL, "--json") == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"id": "1", "name": "b", "fields": {"extra": {"now": {"new": 1}}, "isbn": {"then": "x"}}},
        {"id": "2", "fields": {"isbn": {"now": None}}},
    ]
    assert restore(database) == 0
    assert content(database.stored()["1"]) == {"id": "1", "name": "b", "isbn": "x"}
    assert content(database.stored()["2"]) == {"id": "2"}
    assert restore(database, crawl=notes(database)[0]["_id"]) == 0
    assert content(database.stored()["1"]) == {"id": "1", "name": "b", "extra": {"new": 1}}
    assert content(database.stored()["2"]) == {"id": "2", "isbn": None}


def test_values_come_back_in_their_types_and_in_their_order(
    stored: Stored, database: Database
) -> None:
    values: dict[str, Any] = {
        "name": Int64(7),
        "page_number": 7,
        "score": -0.0,
        "price": Decimal128("1.50"),
        "published_at": datetime(1600, 1, 1, 0, 0, 0, 1000, tzinfo=timezone.utc),
        "extra": {"z": 1, "a": {"y": [None, {"b": 1, "a": Int64(2)}]}, "$dollar.dot": True},
        "tags": [],
        "cover": Binary(b"\0\1", 0x80),
        "url": ObjectId(),
        "isbn": Regex("^a", "i"),
        "introduction": "\0\ufeff\u202e",
    }
    add_item(stored, id="1", **values, changed_at=minute(1))
    before = raw(database)
    add_version(stored, "1", (-9, 1), values)
    database.books.update_one({"id": "1"}, {"$set": dict.fromkeys(values)})
    assert restore(database) == 0
    assert raw(database) == before
    assert restore(database, crawl=notes(database)[0]["_id"]) == 0
    assert restore(database, crawl=notes(database)[1]["_id"]) == 0
    assert raw(database) == before


def test_an_equal_value_of_another_type_is_not_the_old_one(
    stored: Stored, database: Database
) -> None:
    add_item(stored, id="1", score=7, page_number=1.0, changed_at=minute(1))
    add_version(stored, "1", (-9, 1), {"score": 7.0, "page_number": 1.0})
    assert restore(database) == 0
    assert type(database.stored()["1"]["score"]) is float
    assert entries(database)[-1]["fields"] == {"score": 7}


def test_only_the_fields_and_items_that_are_named_are_put_back(
    stored: Stored, database: Database
) -> None:
    for one in "123":
        add_item(stored, id=one, name="b", score=2.0, isbn="y", changed_at=minute(1))
        add_version(stored, one, (-9, 1), {"name": "a", "score": 1.0, "isbn": "x"})
    assert restore(database, "--field", "name, score", "--id", "1,3", "--id", "9") == 0
    books = {one: list(content(book).values())[1:] for one, book in database.stored().items()}
    assert books == {"1": ["a", 1.0, "y"], "2": ["b", 2.0, "y"], "3": ["a", 1.0, "y"]}
    assert restore(database, "--field", "isbn", "--field", "tags", "--id", "2") == 0
    assert content(database.stored()["2"]) == {"id": "2", "name": "b", "score": 2.0, "isbn": "x"}
    given = [note["arguments"] for note in notes(database)]
    assert given[0] == {"crawl": CRAWL, "field": "name,score", "id": "1,3,9"}


def test_nothing_is_written_without_yes(
    stored: Stored, database: Database, capsys: Capture
) -> None:
    for one in "123":
        add_item(stored, id=one, name=f"new\x1b[2J{one}", changed_at=minute(1))
        add_version(stored, one, (-9, 1), {"name": f"old{one}"})
    add_version(stored, "7", (-9, 1), {"name": "gone"})

    def everything() -> dict[str, list[Any]]:
        return {name: list(stored[name].find()) for name in stored.list_collection_names()}

    before = everything()
    arguments = ("--crawl", CRAWL[:10], "--limit", "2")
    assert look(Command(), BooksSpider, database, *arguments) == 0
    assert everything() == before
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        f"Crawl {CRAWL}: 3 books to put back (name 3)",
        "",
        "id name field now then",
        r"1 new\x1b[2J1 name 'new\x1b[2J1' 'old1'",
        r"2 new\x1b[2J2 name 'new\x1b[2J2' 'old2'",
        "… and 1 more: --limit 3 shows them all",
        "Not stored any more: 7",
        "Nothing is written yet: the same command with --yes does it",
    ]


def test_however_many_items_there_are_each_is_put_back_once(
    stored: Stored, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spa5.mongo.restore._AT_ONCE", 2)
    monkeypatch.setattr("spa5.mongo.store.MOST_KEYS", 2)
    for one in "12345":
        first = 10 * int(one)
        add_item(stored, id=one, name="c", changed_at=minute(first + 2))
        add_version(stored, one, (-9, first), {"name": "a"})
        add_version(stored, one, (first, first + 2), {"name": "b"})
    assert restore(database, "--id", "5,4,3,2") == 0
    assert restore(database) == 0
    assert [note["counts"]["changed"] for note in notes(database)] == [4, 1]
    for one in "12345":
        assert [book["name"] for book in kept(database, one)] == ["a", "b", "c", "a"]


def meanwhile(monkeypatch: pytest.MonkeyPatch, work: Callable[[], None], *, times: int = 1) -> None:
    """Do this between the restore's entries in the history and its write of the items."""
    write, left = Writer._write, [work] * times

    async def after(self: Writer, updates: Any) -> Any:
        if left:
            left.pop()()
        return await write(self, updates)

    monkeypatch.setattr(Writer, "_write", after)


def other_crawl(stored: Stored, until: float, **new: Any) -> Callable[[], None]:
    """Another crawl that writes book 1 at this minute."""

    def write() -> None:
        books = stored.get_collection("books", codec_options=AWARE)
        book = books.find_one({"id": "1"})
        assert book
        entry = {"fields": {name: book[name] for name in new}, "from": book["changed_at"]}
        entry |= {"id": "1", "until": minute(until), "crawl": OTHER}
        stored["books_history"].insert_one(entry)
        books.update_one({"id": "1"}, {"$set": {**new, "changed_at": minute(until)}})

    return write


@pytest.mark.parametrize(
    ("new", "names", "scores"),
    [
        ({"score": 5.0}, ["a", "b", "b", "a"], [1.0, 1.0, 5.0, 5.0]),
        ({"name": "c"}, ["a", "b", "c"], [1.0, 1.0, 1.0]),
    ],
)
def test_what_a_crawl_writes_meanwhile_is_not_lost(
    stored: Stored,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    new: dict[str, Any],
    names: list[str],
    scores: list[float],
) -> None:
    add_item(stored, id="1", name="b", score=1.0, changed_at=minute(1))
    add_version(stored, "1", (-9, 1), {"name": "a"})
    add_item(stored, id="2", name="b", changed_at=minute(1))
    add_version(stored, "2", (-9, 1), {"name": "a"})
    meanwhile(monkeypatch, other_crawl(stored, 5, **new))
    assert restore(database) == 0
    assert [book["name"] for book in kept(database)] == names
    assert [book["score"] for book in kept(database)] == scores
    assert [book["name"] for book in kept(database, "2")] == ["a", "b", "a"]
    assert len(entries(database)) == len(names) + 1
    (note,) = notes(database)
    assert note["counts"]["changed"] == (2 if "score" in new else 1)


def test_a_crawl_that_fetches_an_item_meanwhile_does_not_keep_it_from_being_put_back(
    stored: Stored, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_item(stored, id="1", name="b", changed_at=minute(1))
    add_version(stored, "1", (-9, 1), {"name": "a"})

    def fetch() -> None:
        (note,) = notes(database)
        assert {"ended", "settled"}.isdisjoint(note)
        stored["books"].update_one({"id": "1"}, {"$set": {"crawled_at": minute(7)}})

    meanwhile(monkeypatch, fetch)
    assert restore(database) == 0
    assert [book["name"] for book in kept(database)] == ["a", "b", "a"]
    assert database.stored()["1"]["crawled_at"] == minute(7)
    assert len(entries(database)) == 2


def test_an_item_that_something_writes_over_and_over_is_told(
    stored: Stored, database: Database, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    add_item(stored, id="1", name="b", changed_at=minute(1))
    add_version(stored, "1", (-9, 1), {"name": "a"})
    moments = iter(range(10, 99))

    def fetch() -> None:
        change = {"$set": {"crawled_at": minute(next(moments))}}
        stored["books"].update_one({"id": "1"}, change)

    meanwhile(monkeypatch, fetch, times=99)
    assert restore(database) == 1
    assert "book 1 could not be put back: something else writes it" in capsys.readouterr().err
    assert [book["name"] for book in kept(database)] == ["a", "b"]
    assert len(entries(database)) == 1


def test_an_item_that_is_deleted_meanwhile_is_told_and_does_not_come_back(
    stored: Stored, database: Database, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    for one in "12":
        add_item(stored, id=one, name="b", changed_at=minute(1))
        add_version(stored, one, (-9, 1), {"name": "a"})
    meanwhile(monkeypatch, lambda: void(stored["books"].delete_one({"id": "1"})))
    assert restore(database) == 0
    assert "Not stored any more: 1" in capsys.readouterr().out
    assert {one: book["name"] for one, book in database.stored().items()} == {"2": "a"}
    assert notes(database)[0]["counts"] == {"changed": 1, "rejected": 0}


def void(_: object) -> None:
    """For a lambda that returns nothing."""


class Interrupted(Exception):
    """Something kills the restore here."""


def test_one_that_was_interrupted_is_finished_by_the_same_command(
    stored: Stored, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for one in "1234":
        add_item(stored, id=one, name="b", changed_at=minute(1))
        add_version(stored, one, (-9, 1), {"name": "a"})

    def kill() -> None:
        if database.stored()["1"]["name"] == "a":
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr("spa5.mongo.restore._AT_ONCE", 2)
        meanwhile(patch, kill, times=9)
        with pytest.raises(Interrupted):
            restore(database)
    assert sorted(book["name"] for book in database.stored().values()) == ["a", "a", "b", "b"]
    assert len(entries(database)) == 8  # two of them lead to no version
    assert restore(database) == 0
    assert len(entries(database)) == 8
    for one in "1234":
        assert [book["name"] for book in kept(database, one)] == ["a", "b", "a"]
    assert ["ended" in note for note in notes(database)] == [False, True]
    assert [note["counts"]["changed"] for note in notes(database)] == [2, 2]


def test_what_mongodb_refuses_fails_alone_and_is_told(
    stored: Stored, database: Database, capsys: Capture
) -> None:
    for one in "12":
        add_item(stored, id=one, name="b", changed_at=minute(1))
        add_version(stored, one, (-9, 1), {"name": f"a{one}"})
    refused = {"$jsonSchema": {"properties": {"name": {"not": {"enum": ["a1"]}}}}}
    stored.command("collMod", "books", validator=refused)
    assert restore(database) == 1
    told = capsys.readouterr()
    assert "book 1 could not be put back: Document failed validation" in told.err
    assert "1 book put back" in told.out
    assert "1 book could not be put back" in told.out
    assert [book["name"] for book in kept(database, "2")] == ["a2", "b", "a2"]
    assert len(entries(database)) == 3
    (note,) = notes(database)
    assert (note["exit_code"], note["counts"]) == (1, {"changed": 1, "rejected": 1})
    assert restore(database, "--json") == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["problem"].startswith("Document failed validation")


def test_what_other_programs_put_into_the_history_does_no_harm(
    stored: Stored, database: Database
) -> None:
    add_item(stored, id="1", name="b", changed_at=minute(1))
    odd = {"": 1, "a.b": 1, "$set": 1, "_id": 1, "crawl": "x", "first_crawled_at": 1}
    add_version(stored, "1", (-9, 1), {**odd, "name": "a"})
    add_version(stored, 5, (-9, 1), {"name": "a"})
    own = {"id": "1", "fields": {"score": 1.0}, "from": None, "until": minute(-9)}
    stored["books_history"].insert_one(own)
    before = database.stored()["1"]
    assert restore(database) == 0
    after = database.stored()["1"]
    assert after.pop("changed_at") > before.pop("changed_at")
    assert after == before | {"name": "a"}


def test_an_entry_whose_write_never_happened_is_no_version_to_go_back_to(
    stored: Stored, database: Database
) -> None:
    add_item(stored, id="1", name="b", changed_at=minute(1))
    add_version(stored, "1", (-9, 1), {"name": "a"})
    add_version(stored, "1", (-9, 2), {"name": "never", "score": 1.0})
    assert restore(database) == 0
    assert content(database.stored()["1"]) == {"id": "1", "name": "a"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "use --crawl ID or --since WHEN, one of them"),
        (("--crawl", CRAWL, "--since", "2d"), "use --crawl ID or --since WHEN, one of them"),
        (("--crawl", "2024\x1b\ud800"), "no crawl .*; there are " + CRAWL),
        (("--since", "soon"), "use 7d"),
        (("--crawl", CRAWL, "--field", "name,prise"), "a book has no 'prise', but authors"),
        (("--crawl", CRAWL, "--field", ""), "a book has no ''"),
        (("--crawl", CRAWL, "--id", "x"), "use digits"),
        (("--crawl", CRAWL, "--limit", "0"), "use a whole number from 1 on"),
        (("--crawl", CRAWL, "17"), "'17' is unknown; for one item use --id"),
    ],
)
@pytest.mark.usefixtures("stored")
def test_arguments_that_can_not_be_used_are_refused(
    database: Database, given: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        look(Command(), BooksSpider, database, "--yes", *given)
    assert not notes(database)


def test_one_line_says_that_there_is_nothing_to_put_back(
    stored: Stored, database: Database, capsys: Capture
) -> None:
    assert restore(database) == 0
    nothing = f"Crawl {CRAWL}: there is nothing to put back"
    empty = "; no change was ever kept: HISTORY_ENABLED=False keeps none"
    assert capsys.readouterr().out == f"{nothing}{empty}\n"
    add_item(stored, id="1", name="b")
    add_version(stored, "1", (-9, 1), {"name": "a"}, crawl=OTHER)
    assert restore(database) == 0
    assert capsys.readouterr().out == f"{nothing}\n"
    assert not notes(database)


def test_another_catalogue_is_restored_as_well_and_its_undoing_names_it(
    stored: Stored, database: Database, capsys: Capture
) -> None:
    crawl = "20251125-170603-cccccc"
    add_crawl(stored, "movies", _id=crawl)
    add_item(stored, "movies", id=1, name="b", changed_at=minute(1))
    add_version(stored, 1, (-9, 1), {"name": "a"}, "movies", crawl=crawl)
    arguments = ("--spider", "movies", "--crawl", crawl, "--yes")
    assert look(Command(), MoviesSpider, database, *arguments) == 0
    assert " --spider movies --yes" in capsys.readouterr().out
    movie = stored["movies"].find_one({"id": 1}) or {}
    assert movie["name"] == "a"
    (note,) = notes(database)
    expected = {"spider": "movies", "collection": "movies", "site": "https://site.example"}
    assert expected.items() <= note.items()


def test_a_mongodb_that_can_not_be_reached_is_one_line() -> None:
    uri = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100"
    ended = run("restore", "--since", "2d", "--yes", MONGO_URI=uri)
    assert (ended.exitcode, ended.output) == (1, "")
    assert ended.log.startswith("no MongoDB answers at 127.0.0.1:9")
    assert ended.log.count("\n") == 1
