"""`finished` means complete: whatever the site counts, whoever else writes, whatever clocks say."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from tests.helpers.crawls import run
from tests.helpers.endings import answer, assert_is_finished, assert_is_incomplete
from tests.helpers.running import crawling
from tests.helpers.stored import DETAILS, assert_holds_catalogue
from tests.standin.site import RunningSite as Site
from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.databases import Database

BOOKS = 100
YEAR = timedelta(days=365)


@pytest.fixture(scope="module")
def catalogue() -> Iterator[Site]:
    with running_site(BOOKS) as site:
        yield site


@pytest.fixture
def site(catalogue: Site) -> Iterator[Site]:
    catalogue.reset()
    yield catalogue
    answers = dict.fromkeys(f"/api/book/{one}/" for one in catalogue.catalogue.ids)
    catalogue.control(count_true=1, repeat=[], empty=[], swap=False, hold=None, override=answers)


def hold(site: Site) -> None:
    """Let details wait behind the first ones: a crawl can't end before it is let go."""
    site.control(hold={"paths": DETAILS, "first": 60})


@pytest.mark.parametrize("count", [50, 100])
@pytest.mark.parametrize("page_size", ["100", "50", "30"])
def test_details_that_answer_with_another_book_are_missing_whatever_the_site_counts(
    site: Site, database: Database, count: int, page_size: str
) -> None:
    site.control(count=count)
    answer(site, site.catalogue.ids[:10], site.catalogue.detail(site.catalogue.ids[50]))
    crawl = database.crawl(site.url, "-a", f"page_size={page_size}")
    assert len(database.stored()) == 90
    assert_is_incomplete(crawl, missing=10)


def test_a_book_that_is_gone_takes_none_off_those_that_failed(
    site: Site, database: Database
) -> None:
    ids = site.catalogue.ids
    answer(site, ids[:10], site.catalogue.detail(ids[50]))
    assert_is_incomplete(database.crawl(site.url), missing=10)
    answer(site, ids[20:29], {"detail": "Not found."}, status=404)
    crawl = database.crawl(site.url, "-a", "refresh=all")
    assert_is_incomplete(crawl, missing=10)
    assert crawl.stats["catalogue/vanished"] == 9
    assert len(database.stored()) == 90  # what is gone keeps its document


def test_what_other_crawls_store_meanwhile_does_not_count(site: Site, database: Database) -> None:
    answer(site, site.catalogue.ids[:10], site.catalogue.detail(site.catalogue.ids[50]))
    with running_site(20, seed=2) as other:
        hold(site)
        with crawling(site.url, **database.environment) as running:
            running.wait_for_details(site, 10)
            assert_is_finished(database.crawl(other.url))
            site.control(hold=None)
            crawl = running.end()
    assert_is_incomplete(crawl, missing=10)


def test_foreign_documents_do_not_stand_for_what_was_never_listed(
    site: Site, database: Database
) -> None:
    ahead = datetime.now(timezone.utc) + YEAR
    foreign = [{"id": f"77{n}", "listed_at": ahead, "crawled_at": ahead} for n in range(5)]
    database.books.insert_many(foreign)
    site.control(count=105)
    assert_is_incomplete(database.crawl(site.url), missing=5)


def test_a_book_that_is_listed_twice_does_not_make_the_crawl_incomplete(
    site: Site, database: Database
) -> None:
    """Where the site counts it twice, two walks prove that it does so each time."""
    site.control(repeat=[site.catalogue.ids[3]])
    crawl = database.crawl(site.url)
    assert_is_finished(crawl, sweeps=2)
    assert_holds_catalogue(database, site)
    (line,) = [line for line in crawl.lines("WARNING") if "repeats some" in line]
    assert "lists 100 different ids, but counts 101" in line
    assert site.stats()["detail"] == BOOKS
    site.control(count=BOOKS)
    assert_is_finished(database.crawl(site.url))


@pytest.mark.parametrize("page_size", ["10", "33", "50"])
def test_an_order_that_changes_between_requests_leaves_nothing_out(
    database: Database, page_size: str
) -> None:
    with running_site(BOOKS) as site:
        site.control(swap=True)
        crawl = database.crawl(site.url, "-a", f"page_size={page_size}", MAX_SWEEPS="9")
        assert (crawl.exitcode, crawl.reason) == (0, "finished"), crawl.log
        assert_holds_catalogue(database, site)


def test_a_catalogue_whose_details_all_fail_to_be_refreshed_is_incomplete(
    site: Site, database: Database
) -> None:
    ids = site.catalogue.ids
    assert_is_finished(database.crawl(site.url))
    before = database.stored()
    answer(site, ids, site.catalogue.detail(ids[0]))
    crawl = database.crawl(site.url, "-a", "refresh=all")
    assert_is_incomplete(crawl, missing=99)
    for one in ids[1:]:
        book = database.stored()[one]
        assert book == before[one] | {name: book[name] for name in ("listed_at", "crawl")}


def test_a_validator_that_came_later_makes_incomplete_what_it_refuses(
    site: Site, database: Database
) -> None:
    assert_is_finished(database.crawl(site.url))
    database.books.database.command(
        "collMod", "books", validator={"approved": True}, validationLevel="moderate"
    )
    database.books.update_many({}, {"$set": {"approved": True}})
    database.books.database.command(
        "collMod", "books", validator={"approved": 5}, validationLevel="strict"
    )
    crawl = database.crawl(site.url, "-a", "refresh=all")
    assert (crawl.exitcode, crawl.reason) == (1, "incomplete"), crawl.log
    assert len(database.stored()) == BOOKS


@pytest.mark.parametrize("name", ["crawled_at", "listed_at", "both"])
def test_times_ahead_of_now_hide_nothing(site: Site, database: Database, name: str) -> None:
    assert_is_finished(database.crawl(site.url))
    names = ["crawled_at", "listed_at"] if name == "both" else [name]
    ahead = dict.fromkeys(names, datetime.now(timezone.utc) + timedelta(hours=1))
    database.books.update_many({}, {"$set": ahead})
    edited = site.catalogue.ids[:3]
    with running_site(BOOKS) as changed:
        changed.control(edit=edited)
        crawl = database.crawl(changed.url)
        assert_is_finished(crawl)
        assert crawl.stats["mongo/changed"] == 3
        asked = changed.stats()["detail"]
        assert asked == (3 if name == "listed_at" else BOOKS)  # what is ahead of now is stale
        database.books.update_many({}, {"$set": ahead})
        changed.reset()
        assert_is_finished(database.crawl(changed.url, "-a", "refresh=all"))
        assert changed.stats()["detail"] == BOOKS
        database.books.update_many({}, {"$set": ahead})
        assert database.crawl(changed.url, "-a", f"ids={edited[0]}").exitcode == 0
        assert changed.stats()["detail"] == BOOKS + 1


def test_a_collection_that_is_dropped_in_mid_crawl_is_filled_again(
    site: Site, database: Database
) -> None:
    hold(site)
    with (
        crawling(site.url, **database.environment) as one,
        crawling(site.url, **database.environment) as other,
    ):
        one.wait_for_details(site, 60)
        database.books.drop()
        site.control(hold=None)
        crawls = [one.end(), other.end()]
    for crawl in crawls:
        assert (crawl.exitcode, crawl.reason) == (0, "finished"), crawl.log
    assert_holds_catalogue(database, site)
    assert database.books.index_information()["id_1"]["unique"]


def test_a_stored_book_that_is_deleted_in_mid_crawl_is_stored_again(
    site: Site, database: Database
) -> None:
    assert_is_finished(database.crawl(site.url))
    hold(site)
    with crawling(site.url, "-a", "refresh=all", **database.environment) as running:
        running.wait_for_details(site, 20)
        database.books.delete_many({})
        site.control(hold=None)
        crawl = running.end()
    assert (crawl.exitcode, crawl.reason) == (0, "finished"), crawl.log
    assert_holds_catalogue(database, site)


def test_a_job_directory_is_refused_for_the_collection_knows_what_is_left(
    site: Site, database: Database
) -> None:
    crawl = database.crawl(site.url, "-s", "JOBDIR=jd")
    assert crawl.exitcode == 2
    assert "JOBDIR" in crawl.log.splitlines()[-1]
    assert "Traceback" not in crawl.log
    assert site.stats()["requests"] == 0


@pytest.mark.parametrize("how", ["empty", "lost"])
def test_a_hole_in_the_middle_of_the_index_does_not_hide_what_lies_behind_it(
    database: Database, how: str
) -> None:
    with running_site(2_000) as site:
        if how == "empty":
            site.control(empty=[400])
        else:
            hole = {"status": 403, "body": ""}
            site.control(override={f"/api/book/?limit={100 + n}&offset=400": hole for n in (0, 1)})
        crawl = database.crawl(site.url, CONCURRENT_REQUESTS="16", MAX_SWEEPS="2")
        assert_is_incomplete(crawl, missing=100)
        assert sorted(database.stored()) == sorted(
            set(site.catalogue.ids) - set(site.catalogue.ids[400:500])
        )


def test_an_index_page_with_more_entries_than_were_asked_for_is_not_believed(
    site: Site, database: Database
) -> None:
    flood = {"count": 30, "results": [{"id": str(n)} for n in range(10**5)]}
    site.control(override={"/api/book/": {"body": json.dumps(flood)}})
    crawl = database.crawl(site.url, "-s", "RETRY_TIMES=0", MAX_SWEEPS="1")
    site.control(override={"/api/book/": None})
    assert (crawl.exitcode, crawl.reason) == (1, "incomplete")
    assert site.stats()["detail"] == 0
    assert "catalogue/missing" not in crawl.stats


def test_a_signal_leaves_untold_what_is_not_known(site: Site, database: Database) -> None:
    hold(site)
    with crawling(site.url, **database.environment) as running:
        running.wait_for_details(site, 10)
        running.process.terminate()
        running.wait_for("Closing spider (shutdown)")
        site.control(hold=None)
        crawl = running.end()
    assert (crawl.exitcode, crawl.reason) == (0, "shutdown")
    assert "catalogue/missing" not in crawl.stats
    assert "missing" not in crawl.log


def test_stored_books_that_the_site_does_not_list_are_told(site: Site, database: Database) -> None:
    with running_site(30, seed=2) as other:
        assert_is_finished(database.crawl(other.url))
    crawl = database.crawl(site.url)
    assert_is_finished(crawl)
    assert f"30 stored books are not listed by {site.url}" in crawl.log
    assert crawl.stats["catalogue/unlisted"] == 30


def test_many_given_ids_are_asked_of_mongodb_in_one_query(site: Site, database: Database) -> None:
    assert_is_finished(database.crawl(site.url))
    ids = ",".join(site.catalogue.ids)
    server = database.books.database  # the server's own counters count its housekeeping, too
    server.command("profile", 2)
    crawl = run(
        *("crawl", "books", "-a", f"ids={ids}", "-a", "refresh=missing"),
        SITE_URL=site.url,
        **database.environment,
    )
    server.command("profile", 0)
    assert crawl.exitcode == 0
    assert 1 <= server["system.profile"].count_documents({"op": "query"}) <= 4
