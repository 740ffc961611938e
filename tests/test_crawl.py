"""`scrapy crawl books`, from the site's pages to the documents in MongoDB."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from scrapy.utils.project import get_project_settings

from spa5.catalogue.walk import Page
from spa5.doctor.machine import spider_of
from tests.helpers.crawls import ROOT, run
from tests.helpers.stored import BOOKKEEPING, DETAILS, as_stored, assert_holds_catalogue, content
from tests.standin.site import RunningSite as Site
from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.databases import Database

SHARED = ROOT.parent / "shared" / "site"


@pytest.fixture(scope="module")
def big_site() -> Iterator[Site]:
    with running_site(9040) as site:
        yield site


@pytest.fixture
def site() -> Iterator[Site]:
    with running_site(230) as site:
        yield site


def test_the_whole_catalogue_is_stored_as_it_was_served(big_site: Site, database: Database) -> None:
    big_site.reset()
    big_site.control(latency=0, hold=None)
    began = datetime.now(timezone.utc) - timedelta(milliseconds=1)
    crawl = database.crawl(big_site.url, CONCURRENT_REQUESTS="16")
    assert (crawl.exitcode, crawl.reason) == (0, "finished")
    assert_holds_catalogue(database, big_site)
    for document in database.books.find():
        times = {document[name] for name in BOOKKEEPING - {"_id", "crawl", "delisted_at"}}
        assert len(times) == 1
        assert began <= times.pop() <= datetime.now(timezone.utc)
    asked = big_site.stats()
    assert (asked["index"], asked["detail"]) == (91, 9040)
    assert (asked["redirects"], asked["repeats"]) == (0, 0)
    assert all("spa5" in agent for agent in asked["user_agents"])
    names = ("catalogue/expected", "catalogue/listed", "mongo/inserted", "item_scraped_count")
    assert [crawl.stats[name] for name in names] == [9040] * 4
    assert crawl.stats["mongo/batches"] < 9040  # how many share a write depends on speed
    assert not crawl.lines("ERROR")
    assert not crawl.lines("WARNING")


def test_books_are_found_in_the_database_by_a_unique_index(site: Site, database: Database) -> None:
    database.crawl(site.url)
    indexes = [(index["key"], index.get("unique")) for index in database.books.list_indexes()]
    assert ({"id": 1}, True) in [(dict(key), unique) for key, unique in indexes]


@pytest.mark.parametrize("limit", [1, 64])
def test_concurrent_requests_is_the_most_requests_in_flight(
    big_site: Site, database: Database, limit: int
) -> None:
    """Answers wait for so many requests, and then for what would be too many."""
    big_site.reset()
    big_site.control(latency=0.2, hold={"paths": DETAILS, "peak": limit})
    arguments = ("-a", "page_size=10", "-a", f"pages={limit // 4 + 1}")
    crawl = database.crawl(big_site.url, "-s", f"CONCURRENT_REQUESTS={limit}", *arguments)
    assert crawl.exitcode == 0
    assert big_site.stats()["peak"] == limit


def test_index_pages_are_asked_for_in_parallel(site: Site, database: Database) -> None:
    site.control(latency=0.2, vanish=site.catalogue.ids)
    site.control(hold={"paths": "offset=[1-9]", "peak": 8})
    crawl = database.crawl(
        site.url, "-a", "page_size=1", "-a", "pages=9", "-s", "CONCURRENT_REQUESTS=8"
    )
    asked = site.stats()
    assert (asked["index"], asked["peak"]) == (9, 8)
    assert crawl.stats["catalogue/vanished"] == 9


@pytest.mark.parametrize("settings", [{"CONCURRENT_REQUESTS": "3"}, {}])
def test_concurrent_requests_counts_from_the_environment_and_is_5_by_default(
    site: Site, database: Database, settings: dict[str, str]
) -> None:
    limit = int(settings.get("CONCURRENT_REQUESTS", 5))
    site.control(latency=0.05, hold={"paths": DETAILS, "peak": limit})
    database.crawl(site.url, **settings)
    assert site.stats()["peak"] == limit


def test_a_site_that_caps_its_pages_loses_no_book(site: Site, database: Database) -> None:
    site.control(cap=50)
    crawl = database.crawl(site.url)
    assert_holds_catalogue(database, site)
    # Requests that are in flight together may arrive in any order.
    assert sorted(site.stats()["index_offsets"]) == [0, 50, 100, 150, 200]
    assert crawl.exitcode == 0


def test_a_page_that_is_cut_short_is_continued_where_it_ended(
    site: Site, database: Database
) -> None:
    short = [site.catalogue.summary(one) for one in site.catalogue.ids[100:130]]
    page = {"body": json.dumps({"count": 230, "results": short})}
    site.control(override={"/api/book/?limit=100&offset=100": page})
    database.crawl(site.url)
    assert_holds_catalogue(database, site)
    assert sorted(site.stats()["index_offsets"]) == [0, 100, 130, 200]


@pytest.mark.parametrize(("pages", "page_size", "books"), [(1, 18, 18), (3, 18, 54), (9, 100, 230)])
def test_pages_and_page_size_say_how_much_is_crawled(
    site: Site, database: Database, pages: int, page_size: int, books: int
) -> None:
    crawl = database.crawl(site.url, "-a", f"pages={pages}", "-a", f"page_size={page_size}")
    assert crawl.exitcode == 0
    assert sorted(database.stored()) == sorted(site.catalogue.ids[:books])
    assert site.stats()["index"] == min(pages, 3)


def test_ids_are_fetched_without_the_index(site: Site, database: Database) -> None:
    wanted = site.catalogue.ids[5:8]
    crawl = database.crawl(site.url, "-a", f"ids={', '.join([*wanted, wanted[0]])}")
    assert crawl.exitcode == 0
    assert sorted(database.stored()) == sorted(wanted)
    assert (site.stats()["index"], site.stats()["detail"]) == (0, 3)


@pytest.mark.parametrize(
    "arguments",
    [
        ("-a", "pages=0"),
        ("-a", "pages=-1"),
        ("-a", "page_size=x"),
        ("-a", "page_size="),
        ("-a", "refresh=foo"),
        ("-a", "ids=1,x"),
        ("-a", "ids="),
        ("-a", "page=3"),
        ("-s", "CONCURRENT_REQUESTS=0"),
        ("-s", "CONCURRENT_REQUESTS=many"),
        ("-s", "SITE_URL=ftp://x"),
    ],
    ids=lambda arguments: arguments[1],
)
def test_wrong_arguments_end_at_once_with_one_line(
    site: Site, database: Database, arguments: tuple[str, str]
) -> None:
    name, value = arguments[1].split("=")
    crawl = database.crawl(site.url, "--nolog", *arguments)
    assert crawl.exitcode == 2
    assert re.fullmatch(r"scrapy crawl: .*\n", crawl.log)
    assert name in crawl.log
    assert repr(value) in crawl.log or "no spider argument" in crawl.log or name == "ids"
    assert site.stats()["requests"] == site.stats()["other"] == 0


def test_a_site_with_a_name_of_other_letters_is_asked_by_its_ascii_name() -> None:
    settings = get_project_settings()
    settings.set("SITE_URL", "https://bücher.example/", priority="cmdline")
    spider = spider_of(settings, None)
    assert spider.detail_request("1", {}).url == "https://xn--bcher-kva.example/api/book/1/"
    assert spider.index_request(Page(0, 1)).url.startswith(
        "https://xn--bcher-kva.example/api/book/?"
    )
    assert spider.answers.is_api(spider.detail_request("1", {}).url)


def test_a_site_s_password_is_refused_and_not_quoted(database: Database) -> None:
    crawl = database.crawl("http://me:hunter2@127.0.0.1:1")
    assert crawl.exitcode == 2
    assert "SITE_URL: leave user and password out" in crawl.log
    assert "hunter2" not in crawl.log


def test_wrong_arguments_stand_in_the_log_file_too(
    site: Site, database: Database, tmp_path: Path
) -> None:
    log = tmp_path / "crawl.log"
    crawl = database.crawl(site.url, "-s", f"LOG_FILE={log}", "-a", "pages=none")
    assert crawl.exitcode == 2
    assert "ERROR: pages='none': use a whole number" in log.read_text()


def test_an_unknown_spider_ends_with_one_line(database: Database) -> None:
    crawl = run("crawl", "--nolog", "films", **database.environment)
    assert (crawl.exitcode, len(crawl.log.splitlines())) == (2, 1)


def test_arguments_that_scrapyd_adds_are_taken(site: Site, database: Database) -> None:
    assert database.crawl(site.url, "-a", "_job=abc", "-a", "pages=1").exitcode == 0


def test_a_limit_that_the_user_set_is_no_failure(site: Site, database: Database) -> None:
    crawl = database.crawl(site.url, "-s", "CLOSESPIDER_ITEMCOUNT=20")
    assert (crawl.exitcode, crawl.reason) == (0, "closespider_itemcount")
    assert len(database.stored()) >= 20


def test_robots_txt_is_obeyed(site: Site, database: Database) -> None:
    robots = {"body": "User-agent: *\nDisallow: /api/", "headers": {"Content-Type": "text/plain"}}
    site.control(override={"/robots.txt": robots})
    crawl = database.crawl(site.url)
    assert site.stats()["requests"] == 0
    assert (crawl.exitcode, crawl.reason) == (1, "incomplete")
    assert (crawl.stats["catalogue/index_failed"], crawl.stats["catalogue/sweeps"]) == (1, 1)
    assert "robots.txt" in crawl.lines("ERROR")[0]


def answer(site: Site, book_id: str, **fields: Any) -> dict[str, Any]:
    return {"body": json.dumps(site.catalogue.detail(book_id) | fields)}


def test_what_is_wrong_in_one_book_leaves_its_neighbours_alone(
    site: Site, database: Database
) -> None:
    ids = site.catalogue.ids
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    site.control(
        override={
            f"/api/book/{ids[0]}/": answer(site, ids[0], name=5, authors="x"),
            f"/api/book/{ids[1]}/": answer(site, ids[1], id=ids[9]),
            f"/api/book/{ids[2]}/": answer(site, ids[2], id=None),
            f"/api/book/{ids[3]}/": answer(site, ids[3], id={"$gt": ""}),
            f"/api/book/{ids[4]}/": answer(site, ids[4], introduction="x" * (17 << 20)),
            f"/api/book/{ids[5]}/": answer(site, ids[5], big=1 << 70, deep=deep),
            f"/api/book/{ids[6]}/": answer(site, ids[6], **{"a.b": {"$c": {"d.e": 1}}, "$f": 2}),
            f"/api/book/{ids[7]}/": answer(site, ids[7], id=int(ids[7])),
            f"/api/book/{ids[8]}/": answer(site, ids[8], introduction="nul \0, lone \ud800"),
        }
    )
    crawl = database.crawl(site.url)
    stored = database.stored()
    assert sorted(stored) == sorted(set(ids) - set(ids[1:5]))
    # A number is taken as its text; what can't be read is kept as it was sent.
    assert (stored[ids[0]]["name"], stored[ids[0]]["authors"]) == ("5", [])
    assert stored[ids[0]]["extra"]["authors"] == "x"
    assert stored[ids[6]]["extra"].items() >= {"a.b": {"$c": {"d.e": 1}}, "$f": 2}.items()
    assert stored[ids[8]]["introduction"] is None
    assert not stored[ids[5]].get("extra", {}).keys() & {"big", "deep"}
    assert content(stored[ids[9]]) == as_stored(site.catalogue.detail(ids[9]))
    names = ("catalogue/invalid", "catalogue/field_errors", "mongo/rejected", "mongo/inserted")
    assert [crawl.stats.get(name) for name in names] == [3, 4, 1, 226]
    assert len([line for line in crawl.lines("WARNING") if "no usable book" in line]) == 3
    assert len([line for line in crawl.lines("WARNING") if ids[4] in line]) == 1
    assert len([line for line in crawl.lines("WARNING") if "field_errors" in line]) == 1
    assert max(map(len, crawl.log.splitlines())) < 500
    assert "Traceback" not in crawl.log


def test_listed_entries_without_a_usable_id_are_counted_and_not_asked_for(
    site: Site, database: Database
) -> None:
    bad: list[Any] = [None, 5, [], {}]
    bad += ({"id": one} for one in (None, {"$gt": ""}, "../../admin", "1?x=2"))
    page = {"count": 9, "results": [*bad, {"id": int(site.catalogue.ids[0])}]}
    site.control(override={"/api/book/": {"body": json.dumps(page)}})
    crawl = database.crawl(site.url)
    assert list(database.stored()) == site.catalogue.ids[:1]
    assert crawl.stats["catalogue/invalid"] == 8
    assert (site.stats()["detail"], site.stats()["not_found"]) == (1, 0)


def test_a_field_that_the_site_no_longer_has_disappears(site: Site, database: Database) -> None:
    one = site.catalogue.ids[0]
    path = f"/api/book/{one}/"
    site.control(override={path: answer(site, one, rank=1, sales=2)})
    database.crawl(site.url, "-a", f"ids={one}")
    assert database.stored()[one]["extra"].items() >= {"rank": 1, "sales": 2}.items()
    database.books.update_one({"id": one}, {"$set": {"my_notes": "mine"}})
    site.control(override={path: answer(site, one, rank=3)})
    database.crawl(site.url, "-a", f"ids={one}", "-a", "refresh=all")
    assert "sales" not in database.stored()[one]["extra"]
    assert database.stored()[one]["extra"]["rank"] == 3
    site.control(override={path: None})
    crawl = database.crawl(site.url, "-a", f"ids={one}", "-a", "refresh=all")
    assert crawl.stats["mongo/changed"] == 1
    assert content(database.stored()[one]) == as_stored(site.catalogue.detail(one)) | {
        "my_notes": "mine"
    }


def test_two_crawls_at_once_into_one_collection_agree(site: Site, database: Database) -> None:
    site.control(hold={"paths": DETAILS, "peak": 10})  # of both, with five each
    with ThreadPoolExecutor(2) as pool:
        crawls = list(pool.map(lambda _: database.crawl(site.url), range(2)))
    assert [crawl.exitcode for crawl in crawls] == [0, 0]
    assert not any(crawl.lines("ERROR") or crawl.lines("WARNING") for crawl in crawls)
    assert site.stats()["peak"] == 10
    assert_holds_catalogue(database, site)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the captured samples are not beside this checkout")
def test_the_captured_samples_are_stored_right(site: Site, database: Database) -> None:
    def raw(book: dict[str, Any]) -> dict[str, Any]:
        """Back to what the site serves: white space in authors, fields that were not kept."""
        made_up = {"translators": None, "introduction": " 一\r\n二 ", "page_number": 320}
        return made_up | book | {"authors": [f"\n            {one}" for one in book["authors"]]}

    details = [raw(book) for book in json.loads(Path(SHARED, "details.json").read_text())]
    listed = [raw(book) for book in json.loads(Path(SHARED, "index.json").read_text())]
    answers: dict[str, Any] = {
        f"/api/book/{book['id']}/": {"body": json.dumps(book, ensure_ascii=False)}
        for book in [*listed, *details]
    }
    ids = list(dict.fromkeys(book["id"] for book in [*listed, *details]))
    page = {"count": len(ids), "results": [{"id": one} for one in ids]}
    answers["/api/book/"] = {"body": json.dumps(page)}
    site.control(override=answers)
    crawl = database.crawl(site.url)
    assert crawl.exitcode == 0
    assert crawl.stats.get("catalogue/field_errors", 0) == 0
    stored = database.stored()
    assert sorted(stored) == sorted(ids)
    for book in {book["id"]: book for book in [*listed, *details]}.values():
        assert content(stored[book["id"]]) == as_stored(book)
