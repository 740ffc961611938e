"""`scrapy export`: the stored items as a crawl's feed has them, whatever else lies beside them."""

from __future__ import annotations

import csv
import json
import stat
import uuid
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest
from bson import Decimal128
from bson.binary import Binary
from bson.datetime_ms import DatetimeMS

from spa5.catalogue.text import Trouble
from spa5.screen.outfile import opened
from tests.helpers.crawls import Ended, run, scrapy
from tests.helpers.disk import fill, small_disk
from tests.helpers.terminal import scrapy_on_terminal
from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.databases import Database

NOW = datetime.now(timezone.utc)
LONG_AGO = NOW - timedelta(days=30)
ESCAPE = "\x1b]0;owned\x07"
READERS: dict[str, Callable[[str], list[dict[str, Any]]]] = {
    "jsonl": lambda text: list(map(json.loads, text.splitlines())),
    "json": json.loads,
    "csv": lambda text: list(csv.DictReader(text.splitlines(keepends=True))),
    "xml": lambda text: [
        {field.tag: "".join(field.itertext()) for field in item}
        for item in ElementTree.fromstring(text)
    ],
}


def export(database: Database, *args: str, **environment: str) -> Ended:
    return run("export", *args, **database.environment, **environment)


def text_of(file: Path) -> str:
    return file.read_bytes().decode()


def book(key: Any, **fields: Any) -> dict[str, Any]:
    return {"id": key, "name": "Wonder", "changed_at": LONG_AGO, **fields}


def test_an_export_holds_each_item_as_the_feed_of_its_crawl_does_and_in_order(
    database: Database, tmp_path: Path
) -> None:
    kinds = ("jsonl", "csv", "xml")
    with running_site(120) as site:
        feeds = [one for kind in kinds for one in ("-O", str(tmp_path / f"feed.{kind}"))]
        assert database.crawl(site.url, *feeds).exitcode == 0
        ids = sorted(site.catalogue.ids)
    for kind in kinds:
        file = tmp_path / f"books.{kind}"
        done = export(database, "-o", str(file))
        assert (done.exitcode, done.output) == (0, "")
        assert done.log.startswith("120 books of ")
        assert done.log.endswith(f", {database.name}.books went to {file}\n")
        assert [item["id"] for item in READERS[kind](text_of(file))] == ids
        feed = text_of(tmp_path / f"feed.{kind}")
        assert sorted(text_of(file).splitlines()) == sorted(feed.splitlines())


def test_what_other_programs_stored_is_exported_with_the_rest(
    database: Database, tmp_path: Path
) -> None:
    oddities = {
        "name": f"{ESCAPE}\0\ufffe",
        "authors": "no list",
        "publisher": Binary(b"\xff\0"),
        "isbn": uuid.UUID(int=7).hex,
        "price": Decimal128("1.50"),
        "score": float("nan"),
        "page_number": {"a b": [NOW, Decimal128("2")]},
        "published_at": "yesterday",
        "updated_at": DatetimeMS(1 << 60),
    }
    keys: list[Any] = [*range(500), *(f"{number}" for number in range(10)), NOW, None]
    database.books.create_index("id", unique=True)
    database.books.insert_many([book(key, **oddities) for key in keys])
    database.books.insert_one({"name": "neither key nor anything else", "id": b"\1"})
    for kind, read in READERS.items():
        file = tmp_path / f"books.{kind}"
        done = export(database, "-o", str(file))
        assert done.exitcode == 0
        first, second = done.log.splitlines()
        assert first.startswith("513 books of ")
        assert second.startswith(f"513 of them hold values that {kind} can't spell")
        items = read(text_of(file))
        assert len(items) == 513
        assert len({(type(item["id"]), item["id"]) for item in items}) == 503 + 10 * ("j" in kind)
        last = next(item for item in items if item["id"] == "9")
        assert (last["publisher"], last["price"], last["score"]) == ("/wA=", "1.50", "nan")
        assert last["published_at"] == "yesterday"
        assert last["url"] == {"csv": "", "xml": ""}.get(kind)
        assert last["updated_at"] == f"DatetimeMS({1 << 60})"
        assert "2" in str(last["page_number"])


@pytest.mark.parametrize("is_unique", [True, False])
def test_an_export_needs_no_index_and_gives_an_item_with_many_keys_once(
    database: Database, is_unique: bool
) -> None:
    if is_unique:
        database.books.create_index("id", unique=True)
    database.books.insert_many([book([f"{number}", number]) for number in range(700)])
    database.books.insert_one(book("a"))
    done = export(database)
    assert [json.loads(line)["id"] for line in done.output.splitlines()] == [
        *([f"{number}", number] for number in range(700)),
        "a",
    ]
    assert len(database.books.index_information()) == 1 + is_unique  # it makes none


def test_since_takes_what_is_new_or_changed_and_bookkeeping_comes_where_it_is_asked_for(
    database: Database,
) -> None:
    database.books.create_index("id", unique=True)
    database.books.insert_many([book(f"{number:04}") for number in range(1200)])
    change = {"$set": {"changed_at": NOW, "delisted_at": NOW, "crawl": "20261125-1"}}
    database.books.update_many({"id": {"$in": ["0003", "1100"]}}, change)
    done = export(database, "--since", "7d", "--all-fields")
    items = list(map(json.loads, done.output.splitlines()))
    assert [item["id"] for item in items] == ["0003", "1100"]
    assert list(items[0])[-7:] == [
        *("extra", "first_crawled_at", "crawled_at", "changed_at", "listed_at"),
        *("delisted_at", "crawl"),
    ]
    moment = NOW.replace(microsecond=NOW.microsecond // 1000 * 1000).isoformat()
    assert (items[0]["changed_at"], items[0]["delisted_at"]) == (moment, moment)
    assert (items[0]["crawl"], items[0]["listed_at"]) == ("20261125-1", None)
    chosen = ("-s", "FEED_EXPORT_FIELDS=name,id,crawl", "-s", "FEED_EXPORT_ENCODING=gb18030")
    done = export(database, "--since", "7d", "-o", "-:csv", *chosen)
    assert done.output == "name,id,crawl\nWonder,0003,20261125-1\nWonder,1100,20261125-1\n"
    assert done.log.endswith(" went to stdout\n")


def test_items_of_16_megabytes_hide_none_of_the_others(database: Database) -> None:
    database.books.create_index("id", unique=True)
    for key, size in (("1", 1 << 24), ("2", 1000), ("3", 1 << 24), ("4", 1 << 24), ("5", 1000)):
        database.books.insert_one({"id": key, "catalog": "x" * (size - 60)})
    done = export(database, "-o", "-:csv", "-s", "FEED_EXPORT_FIELDS=id")
    assert done.output.splitlines() == ["id", "1", "2", "3", "4", "5"]


def test_nothing_stored_makes_a_file_without_items(database: Database, tmp_path: Path) -> None:
    file = tmp_path / "books.csv"
    done = export(database, "-o", str(file))
    assert (done.exitcode, done.log[:8]) == (0, "0 books ")
    assert text_of(file).startswith("id,name,authors")


@pytest.mark.parametrize(
    ("args", "exitcode", "words"),
    [
        (("-o", "books.doc"), 2, "'books.doc': its ending is no format"),
        (("-o", "/nowhere/books.csv"), 1, "/nowhere/books.csv can't be written: No such file"),
        (("-o", "/dev/full:jsonl"), 1, "/dev/full can't be written: No space left on device"),
        (("-s", "FEED_EXPORT_ENCODING=latin-1"), 1, "latin-1 can't spell '三'"),
        (("-s", "FEED_EXPORT_ENCODING=klingon"), 2, "klingon"),
        (("-s", "MONGO_URI=mongodb://127.0.0.1:1"), 1, "no MongoDB answers at 127.0.0.1:1"),
    ],
)
def test_what_goes_wrong_is_one_line(
    database: Database, args: tuple[str, ...], exitcode: int, words: str
) -> None:
    database.books.insert_one(book("1", name="三体"))
    done = export(database, *args)
    assert (done.exitcode, done.output, len(done.log.splitlines())) == (exitcode, "", 1), done.log
    assert words in done.log


def test_a_file_is_replaced_when_it_is_whole_and_not_before(tmp_path: Path) -> None:
    file, link = tmp_path / "books.csv", tmp_path / "link.csv"
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to(file)
    with suppress(KeyboardInterrupt), opened(str(link)) as half:
        half.write(b"half")
        raise KeyboardInterrupt
    assert (file.read_text(), len(list(tmp_path.iterdir()))) == ("old", 2)
    with opened(str(link)) as whole:
        whole.write(b"new")
        assert file.read_text() == "old"
    assert (file.read_text(), link.is_symlink()) == ("new", True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        file = disk / "books.csv"
        file.write_text("old")
        fill(disk)
        with pytest.raises(Trouble, match="No space left"), opened(str(file)) as half:
            half.write(bytes(1 << 20))
        assert (file.read_text(), len(list(disk.iterdir()))) == ("old", 2)


def test_a_terminal_shows_a_bar_for_a_file_and_plain_text_for_itself(
    database: Database, tmp_path: Path
) -> None:
    database.books.insert_one(book("1", name=ESCAPE))
    file, environment = str(tmp_path / "books.csv"), database.environment
    with scrapy_on_terminal("export", "-o", file, columns=80, **environment) as terminal:
        assert terminal.end() == 0
        assert terminal.bar.startswith("100%|")
        assert "1/1 books" in terminal.bar
    with scrapy_on_terminal("export", "-o", "-:csv", columns=80, **environment) as terminal:
        assert terminal.end() == 0
        assert terminal.bars_seen == []
        assert ESCAPE.encode() not in terminal.output
        assert "\\x1b]0;owned\\x07" in str(terminal)


def test_who_reads_it_may_have_enough(database: Database) -> None:
    database.books.insert_many([book(f"{number}", name="n" * 10_000) for number in range(700)])
    with scrapy("export", **database.environment) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.read(1)
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == ("", 0)
