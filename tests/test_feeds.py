"""Feeds: the books as stored, for other programs."""

from __future__ import annotations

import csv
import json
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from spa5.feeds import CsvExporter
from spa5.items import Book
from tests.standin.site import RunningSite as Site
from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.helpers.databases import Database

FIELDS = [field.name for field in fields(Book)]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running_site(5) as site:
        yield site


@pytest.fixture
def stored(site: Site, database: Database) -> Database:
    """The site's books are stored: another crawl finds nothing new."""
    database.crawl(site.url)
    return database


def as_stored(row: dict[str, Any]) -> dict[str, Any]:
    """A feed's book, with what JSON has no type for read back."""
    for name in ("published_at", "updated_at"):
        row[name] = datetime.fromisoformat(row[name]) if row[name] else None
    return row


def from_csv(row: dict[str, str]) -> dict[str, Any]:
    book: dict[str, Any] = {name: value or None for name, value in row.items()}
    for name in ("authors", "translators", "tags", "comments", "extra", "page_number", "score"):
        book[name] = json.loads(row[name]) if row[name] else None
    return book


def read(file: Path) -> list[dict[str, Any]]:
    with file.open(newline="", encoding="utf-8") as lines:
        if file.suffix == ".csv":
            return list(map(from_csv, csv.DictReader(lines)))
        if file.suffix == ".jsonl":
            return [json.loads(line) for line in lines]
        books: list[dict[str, Any]] = json.load(lines)
        return books


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_a_feed_holds_the_books_as_they_are_stored(
    database: Database, tmp_path: Path, kind: str
) -> None:
    feed = tmp_path / f"books.{kind}"
    with running_site(200) as site:
        assert database.crawl(site.url, "-O", str(feed)).exitcode == 0
    books = read(feed)
    assert all(list(book) == FIELDS for book in books)
    stored = database.stored()
    assert any(book["comments"] and book["published_at"] for book in stored.values())
    found = {book["id"]: as_stored(book) for book in books}
    expected = {one: {name: book.get(name) for name in FIELDS} for one, book in stored.items()}
    if kind == "csv":  # which can't tell an empty text from none
        for book in expected.values():
            book |= {name: None for name, value in book.items() if value == ""}
    assert found == expected


def test_a_feed_says_dates_in_iso_8601_and_letters_as_they_are(
    database: Database, tmp_path: Path
) -> None:
    feed = tmp_path / "books.jsonl"
    with running_site(3) as site:
        one = site.catalogue.ids[0]
        detail = {
            **site.catalogue.detail(one),
            "name": "三体",
            "published_at": "2008-01-31T16:00:00Z",
        }
        site.control(override={f"/api/book/{one}/": {"body": json.dumps(detail)}})
        database.crawl(site.url, "-O", str(feed))
    line = next(line for line in feed.read_text().splitlines() if f'"id": "{one}"' in line)
    assert '"name": "三体"' in line
    assert '"published_at": "2008-01-31T16:00:00+00:00"' in line


def test_skipped_books_are_not_in_a_feed_until_all_are_refreshed(
    database: Database, tmp_path: Path
) -> None:
    feed = tmp_path / "books.jsonl"
    with running_site(20) as site:
        database.crawl(site.url)
        database.crawl(site.url, "-O", str(feed))
        assert read(feed) == []
        database.crawl(site.url, "-O", str(feed), "-a", "refresh=all")
    assert len(read(feed)) == 20


def test_without_anything_new_each_feed_is_a_valid_one(
    stored: Database, site: Site, tmp_path: Path
) -> None:
    feeds = [tmp_path / f"books.{kind}" for kind in ("csv", "json", "jsonl", "xml")]
    arguments = [argument for feed in feeds for argument in ("-O", str(feed))]
    assert stored.crawl(site.url, *arguments).exitcode == 0
    assert [read(feed) for feed in feeds[:3]] == [[], [], []]
    assert feeds[0].read_bytes().decode() == ",".join(FIELDS) + "\r\n"
    assert list(ElementTree.parse(feeds[3]).getroot()) == []


@pytest.mark.parametrize(
    ("setting", "header"),
    [("id,score", "id,score\r\n"), ('{"id": "number", "score": "stars"}', "number,stars\r\n")],
)
def test_the_header_names_the_fields_that_were_asked_for(
    stored: Database, site: Site, tmp_path: Path, setting: str, header: str
) -> None:
    feed = tmp_path / "books.csv"
    stored.crawl(site.url, "-O", str(feed), "-s", f"FEED_EXPORT_FIELDS={setting}")
    assert feed.read_bytes().decode() == header


def test_a_file_that_is_appended_to_keeps_its_one_header(
    stored: Database, site: Site, tmp_path: Path
) -> None:
    feed = tmp_path / "books.csv"
    ids = site.catalogue.ids
    for some in (ids[:2], [], ids[2:]):
        stored.books.delete_many({"id": {"$in": some}})
        stored.crawl(site.url, "-o", str(feed))
    assert len(feed.read_bytes().decode().splitlines()[0].split(",")) == len(FIELDS)
    assert sorted(book["id"] for book in read(feed)) == sorted(ids)


def test_items_that_are_not_known_get_no_header(tmp_path: Path) -> None:
    feed = tmp_path / "other.csv"
    with feed.open("wb") as file:
        exporter = CsvExporter(file)
        exporter.start_exporting()
        exporter.finish_exporting()
    assert feed.read_bytes() == b""


def test_what_mongodb_refuses_is_in_no_feed(database: Database, tmp_path: Path) -> None:
    feed = tmp_path / "books.jsonl"
    with running_site(3) as site:
        one = site.catalogue.ids[0]
        database.books.create_index("url", unique=True)
        database.books.insert_one({"id": "1", "url": site.catalogue.detail(one)["url"]})
        database.crawl(site.url, "-O", str(feed))
        others = set(site.catalogue.ids) - {one}
    assert {book["id"] for book in read(feed)} == others
