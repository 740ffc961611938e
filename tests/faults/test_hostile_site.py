"""An attacker owns the site: no request leaves its API, no document but a book's own is touched."""

from __future__ import annotations

import base64
import gzip
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spa5.catalogue.answers import Answers
from spa5.catalogue.fields import now
from spa5.catalogue.item import InvalidItem, schema_of
from spa5.items import Book
from spa5.mongo.documents import Document, Rejected
from spa5.mongo.plan import Moment, as_new
from spa5.spiders.books import BooksSpider
from tests.helpers.http import Handler, listening
from tests.helpers.stored import assert_holds_catalogue, content
from tests.standin.site import RunningSite as Site
from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymongo import MongoClient

    from tests.helpers.databases import Database


@pytest.fixture
def site() -> Iterator[Site]:
    with running_site(30) as site:
        yield site


@contextmanager
def another_host() -> Iterator[tuple[str, list[str]]]:
    """A server that must not be asked; yields its URL and the paths that it was asked for."""
    asked: list[str] = []

    class Host(Handler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(418)

    with listening(Host) as port:
        yield f"http://localhost:{port}", asked


def redirect(target: str) -> dict[str, Any]:
    return {"status": 302, "body": "", "headers": {"Location": target}}


def test_a_redirect_to_another_host_is_not_followed(site: Site, database: Database) -> None:
    ids = site.catalogue.ids
    with another_host() as (other, asked):
        targets = [f"{other}/api/book/{ids[0]}/", "http://169.254.169.254/latest/", "/admin/"]
        targets += [f"{site.url}/api/book/../../admin", "//localhost/x", "file:///etc/passwd"]
        answers = {f"/api/book/{one}/": redirect(to) for one, to in zip(ids, targets, strict=False)}
        site.control(override=answers)
        crawl = database.crawl(site.url, "-s", "RETRY_TIMES=0", MAX_SWEEPS="1")
        assert asked == []
    assert sorted(database.stored()) == sorted(ids[len(targets) :])
    assert crawl.stats["catalogue/failed"] == len(targets)
    assert site.stats()["other"] == 1  # robots.txt
    assert len(crawl.lines("ERROR")) == len(targets) + 1
    assert "Traceback" not in crawl.log


def test_an_index_page_that_redirects_away_ends_the_walk_and_not_the_process(
    site: Site, database: Database
) -> None:
    with another_host() as (other, asked):
        site.control(override={"/api/book/": redirect(f"{other}/api/book/")})
        crawl = database.crawl(site.url, MAX_SWEEPS="2")
        assert asked == []
    assert (crawl.exitcode, crawl.reason) == (1, "site_unavailable")
    (line,) = crawl.lines("ERROR")
    assert f"{other}/api/book/" in line
    assert "set SITE_URL" in line


def test_endless_redirects_end(site: Site, database: Database) -> None:
    one, other = site.catalogue.ids[:2]
    site.control(
        override={
            f"/api/book/{one}/": redirect(f"/api/book/{one}/?a"),
            "/api/book/1/": redirect("/api/book/2/"),
            f"/api/book/{other}/": redirect(f"/api/book/{one}/"),
        }
    )
    crawl = database.crawl(site.url, MAX_SWEEPS="1")
    assert len(database.stored()) == 28
    assert crawl.stats["catalogue/failed"] == 2
    assert site.stats()["requests"] < 50
    assert "Traceback" not in crawl.log


def test_a_meta_refresh_is_not_followed(site: Site, database: Database) -> None:
    one = site.catalogue.ids[0]
    with another_host() as (other, asked):
        page = f'<html><meta http-equiv="refresh" content="0; url={other}/">'
        shell = {"body": page, "headers": {"Content-Type": "text/html"}}
        site.control(override={f"/api/book/{one}/": shell})
        database.crawl(site.url, "-s", "RETRY_TIMES=0", MAX_SWEEPS="1")
        assert asked == []


HOSTILE_IDS: list[Any] = [
    *({"$gt": ""}, {"$ne": None}, None, [], True, -1, 1.5, "", "../../admin", "1/../2", "1?x=1"),
    *("http://evil.example/", "//evil.example/", "1#x", "1%2e%2e", "١", "1\n", "9" * 10_000_000),
]


def test_hostile_ids_are_neither_asked_for_nor_stored(site: Site, database: Database) -> None:
    """In the listing, and as the id that a detail answers with."""
    listed = [{"id": one} for one in HOSTILE_IDS]
    good = [site.catalogue.summary(one) for one in site.catalogue.ids]
    page = json.dumps({"count": 30, "results": [*listed, *good]})
    details = {
        f"/api/book/{one}/": {"body": json.dumps(site.catalogue.detail(one) | {"id": bad})}
        for one, bad in zip(site.catalogue.ids, HOSTILE_IDS, strict=False)
    }
    site.control(override={"/api/book/": {"body": page}, **details})
    database.crawl(site.url, MAX_SWEEPS="1")
    untouched = site.catalogue.ids[len(HOSTILE_IDS) :]
    assert sorted(database.stored()) == sorted(untouched)
    asked = site.stats()
    assert (asked["detail"], asked["not_found"], asked["other"]) == (30, 0, 1)


def test_a_detail_that_answers_with_another_book_touches_neither(
    site: Site, database: Database
) -> None:
    one, victim = site.catalogue.ids[:2]
    forged = site.catalogue.detail(victim) | {"name": "forged"}
    site.control(override={f"/api/book/{one}/": {"body": json.dumps(forged)}})
    crawl = database.crawl(site.url)
    stored = database.stored()
    assert one not in stored
    assert stored[victim]["name"] != "forged"
    assert crawl.stats["catalogue/invalid"] == 1


def nested(levels: int, opening: str, closing: str) -> str:
    return opening * levels + "1" + closing * levels


def with_summary(body: str, site: Site, one: str) -> str:
    """An object that begins with what the index page has: without that it is no detail."""
    return json.dumps(site.catalogue.summary(one))[:-1] + ", " + body[1:]


def test_deep_huge_and_odd_json_stops_nothing(site: Site, database: Database) -> None:
    bodies = [
        '{"id": "%s", "deep": ' + nested(10_000, "[", "]") + "}",
        '{"id": "%s", "deep": ' + nested(100_000, '{"a":', "}") + "}",
        '{"id": "%s", "score": ' + "9" * 5000 + "}",
        '{"id": "%s", "x": 1' + "0" * 4000 + ', "y": -9223372036854775809}',
        '{"id": "%s", "x": NaN, "score": Infinity, "page_number": 1e999}',
        '{"id": "%s", "name": "\\ud800", "x\\u0000y": 1, "tags": ["\\udfff"], "z": "\\u0000"}',
        '{"id": "%s", "$where": "sleep(1000)", "a.b.c": {"$set": {"id": "1"}}, "_id": 1}',
        '{"id": "%s", "__proto__": {}, "first_crawled_at": "x", "crawled_at": null}',
    ]
    answers = {
        f"/api/book/{one}/": {"body": with_summary(body.replace("%s", one), site, one)}
        for one, body in zip(site.catalogue.ids, bodies, strict=False)
    }
    site.control(override=answers)
    crawl = database.crawl(site.url, "-s", "RETRY_TIMES=0", MAX_SWEEPS="1")
    assert "Traceback" not in crawl.log
    stored = database.stored()
    assert set(site.catalogue.ids[len(bodies) :]) <= set(stored)
    counted = crawl.stats.get("catalogue/failed", 0) + crawl.stats.get("catalogue/invalid", 0)
    assert len(stored) + counted == 30
    assert crawl.stats["catalogue/field_errors"] >= 5
    odd = stored[site.catalogue.ids[6]]["extra"]
    assert odd == {"$where": "sleep(1000)", "a.b.c": {"$set": {"id": "1"}}, "_id": 1}


def test_huge_bodies_and_decompression_bombs_do_not_fill_the_memory(
    site: Site, database: Database
) -> None:
    bomb = base64.b64encode(gzip.compress(b'{"id": "' + b"1" * (400 << 20), 1)).decode()
    one, other = site.catalogue.ids[:2]
    gzipped = {"Content-Encoding": "gzip"}
    site.control(override={f"/api/book/{one}/": {"body_base64": bomb, "headers": gzipped}})
    site.control(override={f"/api/book/{other}/": {"body": " " * (200 << 20)}})
    site.control(override={"/robots.txt": {"body": "#" * (50 << 20)}})
    patient = ("-s", "DOWNLOAD_TIMEOUT=600")  # the site encodes 200 MB, and answers nothing else
    crawl = database.crawl(site.url, *patient, "-s", "RETRY_TIMES=0", MAX_SWEEPS="1")
    assert sorted(database.stored()) == sorted(set(site.catalogue.ids) - {one, other})
    assert crawl.stats["peak_memory_bytes"] < 300 << 20
    assert crawl.stats["catalogue/failed"] == 2
    assert "Traceback" not in crawl.log


def test_what_an_api_url_is_can_not_be_talked_around() -> None:
    site = BooksSpider.site
    answers = Answers(BooksSpider())
    for path in ("/api/book/", "/api/book/?limit=1&offset=2", "/api/book/12/", "/api/book/12"):
        assert answers.is_ours(site + path)
    assert answers.is_ours(f"{site}/robots.txt")
    for url in (
        "https://spa5.scrape.center.evil.example/api/book/1/",
        "https://spa5.scrape.center@evil.example/api/book/1/",
        "http://spa5.scrape.center/api/book/1/",
        "https://spa6.scrape.center/api/book/1/",
        "https://spa5.scrape.center:444/api/book/1/",
        "https://spa5.scrape.center/api/book/../admin/",
        "https://spa5.scrape.center/api/book/1/../../../x",
        "https://spa5.scrape.center/api/books/",
        "https://spa5.scrape.center/",
        "https://spa5.scrape.center",
        "file:///etc/passwd",
        "",
    ):
        assert not answers.is_ours(url)


names = st.text(max_size=20) | st.sampled_from(["id", "$ref", "$id", "a.b", "$gt", "_id", ""])
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats()
    | st.text()
    | st.text(st.characters(codec=None, categories=["Cs", "Cc", "Zs", "Lo"]))
    | st.sampled_from(["2011-10-20T16:00:00Z", "8.8", "", "nan", "9" * 30])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from([name for name in vars(Book("1")) if name != "id"])
books = st.builds(
    lambda known, other: other | known | {"id": "1"},
    st.dictionaries(fields, values, max_size=6),
    st.dictionaries(names, values, max_size=4),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values)
def test_whatever_comes_in_is_a_book_or_refused(data: Any) -> None:
    try:
        book = Book.from_api(data)
    except InvalidItem:
        return
    assert book.id.isdigit()


@settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=books)
def test_whatever_a_book_holds_is_stored_and_reads_back_equal(
    mongo: MongoClient[dict[str, Any]], database: Database, data: dict[str, Any]
) -> None:
    book = Book.from_api(data)
    try:
        document = Document.from_item(vars(book), schema_of(Book))
    except Rejected:
        pytest.fail("from_api lets nothing through that BSON refuses")
    update = as_new(document, Moment(now(), "a crawl", is_listed=True).as_new())
    database.books.delete_many({})
    database.books.update_one({"id": update.key}, update.change, upsert=update.upsert)
    expected = {name: value for name, value in vars(book).items() if name != "extra" or value}
    stored = database.books.find_one({"id": "1"})
    assert stored is not None
    assert content(stored) == expected
    assert document.equals(stored)


def test_a_crawl_next_to_hostile_books_still_stores_the_good_ones(
    site: Site, database: Database
) -> None:
    site.control(override={f"/api/book/{site.catalogue.ids[0]}/": {"body": "\x00\xff"}})
    database.crawl(site.url, "-s", "RETRY_TIMES=0", MAX_SWEEPS="1")
    site.control(override={f"/api/book/{site.catalogue.ids[0]}/": None})
    assert database.crawl(site.url).exitcode == 0
    assert_holds_catalogue(database, site)
