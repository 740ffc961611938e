"""Crawling again: only what is left is done, and the end is the truth."""

from __future__ import annotations

import asyncio
import json
import signal
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from pymongo import MongoClient

from spa5.mongo.server import EmbeddedServer
from tests.helpers.crawls import run, scrapy
from tests.helpers.running import crawling
from tests.helpers.stored import DETAILS, as_stored, assert_holds_catalogue, content
from tests.standin.site import RunningSite as Site
from tests.standin.site import running_site

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from pymongo.collection import Collection

    from tests.helpers.databases import Database


@pytest.fixture
def site() -> Iterator[Site]:
    with running_site(230) as site:
        yield site


def requests(site: Site) -> tuple[int, int]:
    """The index pages and details asked for since this was last called."""
    asked = site.stats()
    site.reset()
    return asked["index"], asked["detail"]


def age(database: Database, ids: list[str], days: float) -> None:
    """Let these stored books look as if they had been crawled `days` earlier."""
    then = datetime.now(timezone.utc) - timedelta(days=days)
    database.books.update_many({"id": {"$in": ids}}, {"$set": {"crawled_at": then}})


def test_an_unchanged_catalogue_costs_its_index_pages_and_no_detail(
    site: Site, database: Database
) -> None:
    first = database.crawl(site.url)
    before = database.stored()
    requests(site)
    again = database.crawl(site.url)
    assert requests(site) == (3, 0)
    assert (again.exitcode, again.reason) == (0, "finished")
    counts = ("catalogue/skipped", "catalogue/missing", "catalogue/sweeps", "mongo/batches")
    assert [again.stats.get(name) for name in counts] == [230, 0, 1, None]
    assert [first.stats.get(name) for name in counts][:3] == [None, 0, 1]
    for one, book in database.stored().items():
        assert book.pop("listed_at") > before[one].pop("listed_at")
        assert book.pop("crawl") != before[one].pop("crawl")
        assert book == before[one]


def test_refresh_changed_fetches_what_is_listed_otherwise_than_stored(
    site: Site, database: Database
) -> None:
    database.crawl(site.url)
    edited = site.catalogue.ids[3:8]
    hidden = site.catalogue.ids[10:12]
    before = database.stored()
    requests(site)
    site.control(edit=edited, edit_hidden=hidden)
    site.catalogue.edit(edited)
    again = database.crawl(site.url)
    assert requests(site) == (3, 5)
    names = ("mongo/changed", "catalogue/skipped", "catalogue/missing")
    assert [again.stats[name] for name in names] == [5, 225, 0]
    for one, book in database.stored().items():
        assert content(book) == as_stored(site.catalogue.detail(one))
        assert (book["changed_at"] > before[one]["changed_at"]) == (one in edited)
        assert book["first_crawled_at"] == before[one]["first_crawled_at"]


def test_refresh_missing_fetches_only_what_is_not_stored(site: Site, database: Database) -> None:
    database.crawl(site.url)
    gone = site.catalogue.ids[20:27]
    database.books.delete_many({"id": {"$in": gone}})
    age(database, site.catalogue.ids, days=100)
    site.control(edit=site.catalogue.ids[:9])
    requests(site)
    again = database.crawl(site.url, "-a", "refresh=missing")
    assert requests(site) == (3, 7)
    assert (again.stats["mongo/inserted"], again.stats["catalogue/skipped"]) == (7, 223)
    assert again.exitcode == 0


def test_refresh_all_fetches_everything_and_rewrites_only_what_differs(
    site: Site, database: Database
) -> None:
    database.crawl(site.url)
    hidden = site.catalogue.ids[10:12]
    site.control(edit_hidden=hidden)
    before = database.stored()
    requests(site)
    again = database.crawl(site.url, "-a", "refresh=all")
    assert requests(site) == (3, 230)
    names = ("mongo/inserted", "mongo/changed", "mongo/unchanged", "catalogue/skipped")
    assert [again.stats.get(name) for name in names] == [None, 2, 228, None]
    for one, book in database.stored().items():
        assert (book["changed_at"] > before[one]["changed_at"]) == (one in hidden)
        assert book["crawled_at"] > before[one]["crawled_at"]


@pytest.mark.parametrize(
    ("setting", "fetched"),
    [({}, 4), ({"REFRESH_AFTER_DAYS": "3"}, 6), ({"REFRESH_AFTER_DAYS": "0"}, 0)],
)
def test_stored_books_are_fetched_again_when_they_are_old(
    site: Site, database: Database, setting: dict[str, str], fetched: int
) -> None:
    database.crawl(site.url)
    age(database, site.catalogue.ids[:4], days=7.1)
    age(database, site.catalogue.ids[4:6], days=6.9)
    requests(site)
    again = database.crawl(site.url, **setting)
    assert requests(site) == (3, fetched)
    assert again.stats.get("mongo/unchanged", 0) == fetched


def test_documents_of_the_plain_script_are_taken_as_stale(site: Site, database: Database) -> None:
    ids = site.catalogue.ids
    for one in ids[:100]:
        detail = site.catalogue.detail(one)
        known = as_stored(detail).keys() - {"extra"}
        database.books.insert_one({name: detail[name] for name in known if name in detail})
    strange: list[dict[str, Any]] = [
        {"crawled_at": "yesterday"},
        {"crawled_at": 5, "listed_at": None},
        {"crawled_at": None, "changed_at": {}, "first_crawled_at": []},
    ]
    for one, fields in zip(ids[100:], strange, strict=False):
        database.books.insert_one({"id": one, "name": {"not": "a name"}, **fields})
    crawl = database.crawl(site.url)
    assert (crawl.exitcode, crawl.reason) == (0, "finished")
    assert_holds_catalogue(database, site)
    assert (crawl.stats["mongo/inserted"], crawl.stats["mongo/changed"]) == (127, 103)
    for book in database.books.find():
        times = [book[f"{name}_at"] for name in ("first_crawled", "crawled", "changed", "listed")]
        assert all(isinstance(time, datetime) for time in times)
    requests(site)
    database.crawl(site.url)
    assert requests(site) == (3, 0)


def test_without_the_pipeline_everything_passes_once(site: Site, database: Database) -> None:
    database.crawl(site.url)
    requests(site)
    crawl = database.crawl(site.url, "-s", "ITEM_PIPELINES={}")
    assert requests(site) == (3, 230)
    assert (crawl.exitcode, crawl.stats["item_scraped_count"]) == (0, 230)


def test_ids_that_are_stored_are_fetched_again_unless_only_missing_ones_are_asked_for(
    site: Site, database: Database
) -> None:
    ids = site.catalogue.ids[:3]
    database.crawl(site.url, "-a", f"ids={ids[0]},{ids[1]}")
    requests(site)
    database.crawl(site.url, "-a", f"ids={','.join(ids)}", "-a", "refresh=missing")
    assert requests(site) == (0, 1)
    crawl = database.crawl(site.url, "-a", f"ids={','.join(ids)}")
    assert requests(site) == (0, 3)
    assert (crawl.stats["mongo/unchanged"], crawl.stats["catalogue/missing"]) == (3, 0)


def test_books_that_vanished_count_as_done(site: Site, database: Database) -> None:
    site.control(vanish=site.catalogue.ids[7:10])
    crawl = database.crawl(site.url)
    assert (crawl.exitcode, crawl.reason) == (0, "finished")
    names = ("catalogue/vanished", "catalogue/missing", "catalogue/sweeps")
    assert [crawl.stats[name] for name in names] == [3, 0, 1]
    assert len(database.stored()) == 227


def failing(times: int | None = None) -> dict[str, Any]:
    """An answer that no retry mends in one sweep."""
    return {"status": 403, "body": "", "times": times}


def test_a_page_that_fails_in_the_first_sweep_is_made_up_for_in_the_next(
    site: Site, database: Database
) -> None:
    site.control(override={"/api/book/?limit=100&offset=100": failing(times=1)})
    crawl = database.crawl(site.url)
    assert (crawl.exitcode, crawl.reason) == (0, "finished")
    assert_holds_catalogue(database, site)
    names = ("catalogue/index_failed", "catalogue/missing", "catalogue/sweeps", "catalogue/listed")
    assert [crawl.stats[name] for name in names] == [1, 0, 2, 230]
    assert requests(site) == (6, 230)
    assert "catalogue/skipped" not in crawl.stats


def test_a_first_page_that_fails_is_made_up_for_in_the_next_sweep(
    site: Site, database: Database
) -> None:
    site.control(override={"/api/book/?limit=100&offset=0": failing(times=1)})
    crawl = database.crawl(site.url)
    assert (crawl.exitcode, crawl.stats["catalogue/sweeps"]) == (0, 2)
    assert_holds_catalogue(database, site)


def test_a_detail_that_fails_in_the_first_sweep_is_made_up_for_in_the_next(
    site: Site, database: Database
) -> None:
    site.control(override={f"/api/book/{site.catalogue.ids[5]}/": failing(times=2)})
    crawl = database.crawl(site.url)
    assert (crawl.exitcode, crawl.reason) == (0, "finished")
    assert_holds_catalogue(database, site)
    assert (crawl.stats["catalogue/failed"], crawl.stats["catalogue/sweeps"]) == (2, 3)


def test_a_crawl_that_can_not_be_completed_says_so_and_names_what_is_missing(
    site: Site, database: Database
) -> None:
    lost = site.catalogue.ids[:25]
    site.control(override={f"/api/book/{one}/": failing() for one in lost})
    crawl = database.crawl(site.url, MAX_SWEEPS="2")
    assert (crawl.exitcode, crawl.reason) == (1, "incomplete")
    assert (crawl.stats["catalogue/missing"], crawl.stats["catalogue/sweeps"]) == (25, 2)
    (line,) = [line for line in crawl.lines("ERROR") if "ncomplete" in line]
    assert sum(one in line for one in lost) == 20
    assert "Traceback" not in crawl.log


def test_no_further_sweep_is_made_for_what_is_unusable_each_time(
    site: Site, database: Database
) -> None:
    one, other = site.catalogue.ids[:2]
    wrong = {"body": json.dumps(site.catalogue.detail(other))}
    site.control(override={f"/api/book/{one}/": wrong})
    crawl = database.crawl(site.url)
    assert (crawl.exitcode, crawl.reason) == (1, "incomplete")
    assert (crawl.stats["catalogue/missing"], crawl.stats["catalogue/sweeps"]) == (1, 1)
    assert one in crawl.lines("ERROR")[-1]


def test_books_that_arrive_at_the_top_during_the_crawl_are_all_there(
    site: Site, database: Database
) -> None:
    site.control(insert_every=3, insert_most=8)
    crawl = database.crawl(site.url, "-a", "page_size=20")
    assert (crawl.exitcode, crawl.reason) == (0, "finished")
    new = [f"99{number:06}" for number in range(1, crawl.stats["catalogue/expected"] - 230 + 1)]
    assert len(new) >= 4
    assert sorted(database.stored()) == sorted([*site.catalogue.ids, *new])


def test_books_that_slip_through_when_others_are_removed_are_found(
    site: Site, database: Database
) -> None:
    """Between the first page and the second, a book of the first page goes."""
    ids = site.catalogue.ids
    first = {
        "count": 230,
        "results": [site.catalogue.summary(one) for one in ids[:100]],
    }
    page = {"body": json.dumps(first), "times": 1}
    site.control(remove=[ids[0]], override={"/api/book/?limit=100&offset=0": page})
    site.control(
        override={f"/api/book/{ids[0]}/": {"body": json.dumps(site.catalogue.detail(ids[0]))}}
    )
    crawl = database.crawl(site.url)
    assert (crawl.exitcode, crawl.reason, crawl.stats["catalogue/sweeps"]) == (0, "finished", 2)
    assert sorted(database.stored()) == sorted(ids)


@pytest.mark.parametrize("count", ["230", 5, 10**12])  # for others see test_answers.py
def test_a_wrong_count_ends_and_is_said(site: Site, database: Database, count: Any) -> None:
    site.control(count=count)
    crawl = database.crawl(site.url)
    assert sorted(database.stored()) == sorted(site.catalogue.ids)
    (line, *_) = [line for line in crawl.lines("WARNING") if "index pages list 230" in line]
    assert "The site counts" in line
    huge = count == 10**12
    assert (crawl.exitcode, crawl.reason) == ((1, "incomplete") if huge else (0, "finished"))
    assert crawl.stats["catalogue/sweeps"] == (2 if huge else 1)
    # How many empty pages are asked for before the first of them is answered depends on speed.
    assert site.stats()["index"] < 100


def test_with_pages_completeness_is_about_these_pages(site: Site, database: Database) -> None:
    path = f"/api/book/{site.catalogue.ids[5]}/"
    site.control(override={path: failing(times=1)})
    crawl = database.crawl(site.url, "-a", "pages=1")
    assert (crawl.exitcode, crawl.stats["catalogue/sweeps"], requests(site)) == (0, 2, (2, 101))
    assert sorted(database.stored()) == sorted(site.catalogue.ids[:100])
    site.control(override={path: failing()})
    database.books.delete_one({"id": site.catalogue.ids[5]})
    crawl = database.crawl(site.url, "-a", "pages=1")
    assert (crawl.exitcode, crawl.stats["catalogue/missing"]) == (1, 1)


def test_with_ids_completeness_is_about_these_ids(site: Site, database: Database) -> None:
    one, other, gone = site.catalogue.ids[:3]
    site.control(override={f"/api/book/{one}/": failing(times=1)}, vanish=[gone])
    crawl = database.crawl(site.url, "-a", f"ids={one},{other},{gone}")
    assert (crawl.exitcode, crawl.reason) == (0, "finished")
    assert sorted(database.stored()) == sorted([one, other])
    site.control(override={f"/api/book/{one}/": failing()})
    database.books.delete_one({"id": one})
    crawl = database.crawl(site.url, "-a", f"ids={one},{other},{gone}")
    assert (crawl.exitcode, crawl.reason, crawl.stats["catalogue/missing"]) == (1, "incomplete", 1)


def wait_for_books(books: Collection[Any], most: int, process: subprocess.Popen[str]) -> None:
    """Return when the collection holds that many books; a change stream needs a replica set."""
    while books.estimated_document_count() < most:
        assert process.poll() is None, "it has ended"


def hold(site: Site, first: int) -> None:
    """Let details wait behind the first ones: a crawl can't end before it is killed."""
    site.control(hold={"paths": DETAILS, "first": first})


@pytest.mark.parametrize("stored", [1, 60, 180])
def test_after_a_kill_the_same_command_does_only_what_is_left(
    site: Site, database: Database, stored: int
) -> None:
    site.control(latency=0.005)
    hold(site, first=stored + 20)
    with scrapy("crawl", "books", SITE_URL=site.url, **database.environment) as process:
        wait_for_books(database.books, stored, process)
        process.kill()
    site.control(hold=None)
    held = database.books.count_documents({})
    assert held < 230
    requests(site)
    crawl = database.crawl(site.url)
    assert (crawl.exitcode, crawl.reason) == (0, "finished")
    assert_holds_catalogue(database, site)
    assert requests(site)[1] <= 230 - held + 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stores_what_was_fetched_and_the_next_run_goes_on(
    site: Site, database: Database, number: signal.Signals
) -> None:
    site.control(latency=0.005)
    hold(site, first=100)
    with crawling(site.url, **database.environment) as running:
        wait_for_books(database.books, 60, running.process)
        running.process.send_signal(number)
        running.wait_for("Closing spider (shutdown)")
        site.control(hold=None)
        crawl = running.end()
    assert (crawl.exitcode, crawl.reason) == (0, "shutdown")
    held = database.books.count_documents({})
    assert crawl.stats["item_scraped_count"] == held == requests(site)[1]
    assert database.crawl(site.url).exitcode == 0
    assert requests(site)[1] == 230 - held
    assert_holds_catalogue(database, site)


def test_the_last_lines_say_in_words_what_was_done(site: Site, database: Database) -> None:
    site.control(vanish=site.catalogue.ids[:1])
    database.crawl(site.url, "-a", "pages=1")
    crawl = database.crawl(site.url)
    counts, end = crawl.log.splitlines()[-2:]
    for words in ("230 listed", "130 new", "0 changed", "99 skipped", "1 vanished", "0 failed"):
        assert words in counts
    assert "0 missing" in counts
    assert f"{crawl.stats['downloader/request_count']} requests" in end
    for words in ("Finished after", "books a second", "mongod.sock", f"{database.name}.books"):
        assert words in end


def embedded_books(folder: Path) -> set[str]:
    """The ids of the books that an embedded server's files hold."""

    async def read() -> set[str]:
        server = EmbeddedServer(folder)
        await server.start()
        try:
            with MongoClient[dict[str, Any]](server.uri) as client:
                return {book["id"] for book in client["books"]["books"].find()}
        finally:
            assert await server.stop()  # nobody else uses it: no crawl left anything behind

    return asyncio.run(read())


def test_after_a_kill_on_the_embedded_server_the_same_command_completes_the_crawl(
    site: Site, tmp_path: Path
) -> None:
    hold(site, first=100)
    settings = {"SITE_URL": site.url, "MONGO_URI": "embedded", "MONGO_DATA_DIR": str(tmp_path)}
    with (
        scrapy("crawl", "books", **settings) as process,
        MongoClient[dict[str, Any]](
            EmbeddedServer(tmp_path).uri, serverSelectionTimeoutMS=120_000
        ) as client,
    ):
        wait_for_books(client["books"]["books"], 60, process)
        process.kill()
    site.control(hold=None)
    site.reset()
    crawl = run("crawl", "books", **settings)
    assert crawl.exitcode == 0, crawl.log
    assert embedded_books(tmp_path) == set(site.catalogue.ids)
    assert requests(site)[1] <= 230 - 60 + 5
