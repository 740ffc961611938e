"""`scrapy diff`: the site against the collection, without writing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from spa5.items import Book, Movie
from tests.helpers.crawls import Ended, run
from tests.standin.site import RunningSite as Site
from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.helpers.databases import Database


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running_site(5) as site:
        yield site


@pytest.fixture
def crawled(site: Site, database: Database) -> Database:
    assert database.crawl(site.url).exitcode == 0
    return database


def diff(site: str, database: Database, *args: str, **environment: str) -> Ended:
    return run("diff", *args, **database.environment | {"SITE_URL": site} | environment)


def test_books_that_are_stored_as_they_are_on_the_site_differ_in_nothing(
    site: Site, crawled: Database
) -> None:
    ended = diff(site.url, crawled, *site.catalogue.ids)
    assert (ended.exitcode, ended.output, ended.log) == (0, "", "")


def test_each_field_that_differs_is_shown(site: Site, crawled: Database) -> None:
    one, other = site.catalogue.ids[:2]
    name = crawled.stored()[one]["name"]
    change = {"$set": {"score": 1.5, "extra": {"a": 1}}, "$unset": {"isbn": ""}}
    crawled.books.update_one({"id": one}, change)
    isbn = site.catalogue.detail(one)["isbn"]
    score = site.catalogue.detail(one)["score"]
    ended = diff(site.url, crawled, one, other)
    assert ended.output.splitlines() == [
        f"book {one} ({name!r})",
        f"  + isbn: {isbn!r}",
        "  - score: 1.5",
        f"  + score: {float(score) if score else score!r}",
        "  - extra: {'a': 1}",
    ]
    assert (ended.exitcode, ended.log) == (1, "")


def test_long_texts_are_shown_where_they_differ(site: Site, crawled: Database) -> None:
    one = site.catalogue.ids[0]
    text = "x" * 5000
    detail = site.catalogue.detail(one) | {"introduction": f"{text}, the site"}
    site.control(override={f"/api/book/{one}/": {"body": json.dumps(detail)}})
    crawled.books.update_one({"id": one}, {"$set": {"introduction": f"{text}, stored"}})
    ended = diff(site.url, crawled, one)
    site.control(override={f"/api/book/{one}/": None})
    assert "xxx, the site'\n" in ended.output
    assert "xxx, stored'\n" in ended.output
    assert max(map(len, ended.output.splitlines())) < 200


def test_a_book_that_only_one_of_the_two_has_differs(site: Site, crawled: Database) -> None:
    one, other = site.catalogue.ids[:2]
    crawled.books.delete_one({"id": one})
    crawled.books.insert_one({"id": "404"})
    book = Book.from_api(site.catalogue.detail(one))
    ended = diff(site.url, crawled, one, other, "404", "405")
    assert sorted(ended.output.splitlines()) == [
        "book 404 is not on the site (404), but in the collection",
        "book 405 is not on the site (404), nor in the collection",
        f"{book} is on the site, but not in the collection",
    ]
    assert ended.exitcode == 1


def test_nothing_is_written(site: Site, database: Database) -> None:
    ended = diff(site.url, database, site.catalogue.ids[0])
    assert ended.exitcode == 1
    assert database.books.database.list_collection_names() == []


def test_what_can_not_be_compared_is_trouble(site: Site, crawled: Database) -> None:
    one, other = site.catalogue.ids[:2]
    crawled.books.update_one({"id": other}, {"$set": {"score": 1.5}})
    site.control(override={f"/api/book/{one}/": {"status": 403}})
    ended = diff(site.url, crawled, one, other)
    site.control(override={f"/api/book/{one}/": None})
    assert "- score: 1.5" in ended.output
    assert "status 403" in ended.log
    assert ended.exitcode == 2


def test_many_ids_come_from_a_file_and_are_one_query(crawled: Database, tmp_path: Path) -> None:
    with running_site(300) as site:
        ids = site.catalogue.ids
        file = tmp_path / "ids.txt"
        file.write_text("\n".join(ids))
        mongo = crawled.books.database
        mongo.command("profile", 2)
        ended = diff(site.url, crawled, f"@{file}")
        mongo.command("profile", 0)
    assert ended.exitcode == 1
    assert len(ended.output.splitlines()) >= len(ids) - 5
    assert (
        mongo["system.profile"].count_documents({"op": "query", "ns": crawled.books.full_name}) == 1
    )


def test_a_spider_may_be_named(site: Site, database: Database) -> None:
    path, movie = "/api/movie/1/", {"id": 1, "name": "A", "score": 9.5, "minute": None}
    site.control(override={path: {"body": json.dumps(movie)}})
    fields = vars(Movie.from_api(movie)) | {"name": "B"}
    del fields["extra"]
    database.books.database["movies"].insert_one(fields)
    ended = diff(site.url, database, "--spider", "movies", "1")
    site.control(override={path: None})
    assert ended.output.splitlines() == ["movie 1 ('A')", "  - name: 'B'", "  + name: 'A'"]
    assert (ended.exitcode, ended.log) == (1, "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give ids, or @FILE"),
        (("1", "$ne"), "use digits"),
        (("@missing.txt",), "No such file"),
        (("1", "@ids.txt"), "use digits"),
        (("--spider", "nope", "1"), "there is no catalogue 'nope', but books"),
    ],
)
def test_wrong_arguments_are_one_line(
    site: Site, database: Database, arguments: tuple[str, ...], said: str
) -> None:
    ended = diff(site.url, database, *arguments)
    assert said in ended.log
    assert (ended.exitcode, len(ended.log.splitlines())) == (2, 1)


def test_without_a_database_one_line_says_so(site: Site, database: Database) -> None:
    uri = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200"
    ended = diff(site.url, database, site.catalogue.ids[0], MONGO_URI=uri)
    assert "no MongoDB answers at 127.0.0.1:1" in ended.log
    assert (ended.exitcode, len(ended.log.splitlines())) == (2, 1)
