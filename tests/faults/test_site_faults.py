"""The site fails: what it answers wrongly is asked for again, and nothing is lost."""

from __future__ import annotations

import asyncio
import base64
import gzip
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from scrapy import Request, Spider
from scrapy.http import Response
from scrapy.utils.test import get_crawler

from spa5.catalogue.backoff import Backoff, retry_after
from tests.helpers.running import crawling
from tests.helpers.stored import assert_holds_catalogue
from tests.standin.site import RunningSite as Site
from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.helpers.databases import Database


@pytest.fixture
def site() -> Iterator[Site]:
    with running_site(60) as site:
        yield site


KINDS = ["500", "502", "503", "504", "408", "429", "close", "reset", "truncate", "html", "broken"]


@pytest.mark.parametrize(
    ("paths", "arguments"), [(r"offset=\d*0$", ("-a", "page_size=2")), (r"/\d*[05]/$", ())]
)
def test_a_passing_fault_of_any_kind_costs_a_retry_and_no_book(
    database: Database, paths: str, arguments: tuple[str, ...]
) -> None:
    """Of index pages, and of details; a fifth of them fail, each time in another way."""
    with running_site(230) as site:
        site.control(faults={"kinds": [*KINDS, "shape", "521"], "first": 1, "paths": paths})
        crawl = database.crawl(site.url, *arguments, CONCURRENT_REQUESTS="16")
        assert_holds_catalogue(database, site)
        failed = site.stats()["faults"]
    assert (crawl.exitcode, crawl.reason, crawl.stats["catalogue/sweeps"]) == (0, "finished", 1)
    assert failed.keys() == {*KINDS, "shape", "521"}
    # Twisted itself asks again when a kept-alive connection turns out to be closed.
    most, unsure = sum(failed.values()), failed["close"] + failed["reset"]
    assert most - unsure <= crawl.stats["retry/count"] <= most
    assert not crawl.lines("ERROR")
    assert "Traceback" not in crawl.log


@pytest.mark.parametrize(
    ("settings", "fault", "retries"),
    [
        ([], "418", 0),
        (["RETRY_HTTP_CODES=418"], "418", 1),
        (["RETRY_HTTP_CODES=418"], "503", 0),
        (["RETRY_ENABLED=0"], "503", 0),
        (["RETRY_TIMES=0"], "503", 0),
    ],
)
def test_settings_say_what_is_tried_again_as_in_scrapy(
    site: Site, database: Database, settings: list[str], fault: str, retries: int
) -> None:
    site.control(faults={"kinds": [fault], "first": 1, "paths": site.catalogue.ids[5]})
    args = [part for setting in settings for part in ("-s", setting)]
    crawl = database.crawl(site.url, *args, MAX_SWEEPS="1")
    assert crawl.stats.get("retry/count", 0) == retries
    assert crawl.stats.get("catalogue/failed", 0) == 1 - retries


@pytest.mark.parametrize("meta", [{"dont_retry": True}, {"max_retry_times": 0}])
def test_a_request_says_how_often_it_is_tried_again_as_in_scrapy(meta: dict[str, Any]) -> None:
    crawler = get_crawler(settings_dict={"RETRY_TIMES": 5})
    crawler.spider = Spider.from_crawler(crawler, "any")
    request = Request("http://x/", meta=meta)
    response = Response("http://x/", status=503)
    judged = asyncio.run(Backoff(crawler).process_response(request, response))
    assert judged is response


def test_an_answer_that_never_comes_is_asked_for_again(site: Site, database: Database) -> None:
    one = site.catalogue.ids[5]
    site.control(faults={"kinds": ["slow"], "first": 1, "paths": one})
    crawl = database.crawl(site.url, "-s", "DOWNLOAD_TIMEOUT=3")
    assert crawl.exitcode == 0
    assert_holds_catalogue(database, site)
    assert site.stats()["faults"] == {"slow": 1}
    assert crawl.stats["retry/count"] >= 1  # an answer that is only late is asked for again, too


def test_with_a_third_of_all_answers_failing_every_book_is_stored(database: Database) -> None:
    with running_site(230) as site:
        site.control(faults={"kinds": [*KINDS, "shape"], "share": 0.3, "seed": 4})
        crawl = database.crawl(site.url, CONCURRENT_REQUESTS="16", MAX_SWEEPS="5")
        assert (crawl.exitcode, crawl.reason) == (0, "finished")
        assert_holds_catalogue(database, site)
        assert "Traceback" not in crawl.log


def test_what_fails_for_good_is_one_line_with_url_and_reason(
    site: Site, database: Database
) -> None:
    one = site.catalogue.ids[5]
    site.control(faults={"kinds": ["html"], "first": 99, "paths": one})
    crawl = database.crawl(site.url, "-s", "RETRY_TIMES=1", MAX_SWEEPS="1")
    assert (crawl.exitcode, crawl.reason) == (1, "incomplete")
    (failed, incomplete) = crawl.lines("ERROR")
    assert f"{site.url}/api/book/{one}/ failed: not JSON (text/html" in failed
    assert one in incomplete
    assert (crawl.stats["catalogue/failed"], crawl.stats["catalogue/missing"]) == (1, 1)
    assert len(database.stored()) == 59


def test_an_index_page_that_fails_for_good_is_one_line_too(site: Site, database: Database) -> None:
    site.control(faults={"kinds": ["503"], "first": 99, "paths": "offset=40"})
    crawl = database.crawl(site.url, "-a", "page_size=20", "-s", "RETRY_TIMES=1", MAX_SWEEPS="1")
    assert (crawl.exitcode, crawl.stats["catalogue/index_failed"]) == (1, 1)
    assert crawl.stats["catalogue/missing"] == 20
    assert "offset=40 failed: status 503" in crawl.lines("ERROR")[0]


@pytest.mark.parametrize("fault", ["refused", "closed"])
def test_a_site_that_is_down_is_one_line_and_ends_the_crawl(database: Database, fault: str) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))  # without `listen` it refuses, and nobody else gets the port
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        if fault == "closed":
            server.listen()
            threading.Thread(target=_close_all, args=[server], daemon=True).start()
        crawl = database.crawl(address, SITE_RETRY_SECONDS="1")
        if fault == "closed":
            server.shutdown(socket.SHUT_RDWR)
    assert (crawl.exitcode, crawl.reason) == (1, "site_unavailable")
    assert "Traceback" not in crawl.log
    assert (len(crawl.lines("WARNING")), len(crawl.lines("ERROR"))) == (1, 1)
    assert "check SITE_URL" in crawl.lines("ERROR")[0]
    assert "catalogue/missing" not in crawl.stats
    assert crawl.stats["catalogue/sweeps"] == 1


def test_a_crawl_goes_on_where_it_was_when_the_site_is_back(site: Site, database: Database) -> None:
    """All of its connections are cut for a while: no book fails, and none is asked for in vain."""
    with crawling(site.url, **database.environment) as running:
        with running.midway(site, 10):
            site.control(faults={"kinds": ["reset"], "share": 1})
        running.wait_for("The site at")
        site.control(faults=None)
        crawl = running.end()
    assert (crawl.exitcode, crawl.reason, crawl.stats["catalogue/sweeps"]) == (0, "finished", 1)
    assert "The site is back after" in crawl.log
    assert crawl.stats["site/outage_seconds"] > 0
    assert not crawl.lines("ERROR")
    assert_holds_catalogue(database, site)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_a_body_that_is_not_what_its_label_says_is_asked_for_again(
    site: Site, database: Database, encoding: str
) -> None:
    """Only a part of such a body, too, for a download that was cut short."""
    whole = gzip.compress(b'{"id": "1"}')
    bodies = [b"not compressed", b"", whole[: len(whole) // 2]]
    answers = {
        f"/api/book/{one}/": {
            "body_base64": base64.b64encode(body).decode(),
            "headers": {"Content-Encoding": encoding},
            "times": 1,
        }
        for one, body in zip(site.catalogue.ids, bodies, strict=False)
    }
    site.control(override=answers)
    crawl = database.crawl(site.url)
    assert (crawl.exitcode, crawl.reason, crawl.stats["catalogue/sweeps"]) == (0, "finished", 1)
    assert crawl.stats["retry/count"] == len(bodies)
    assert_holds_catalogue(database, site)
    assert "Traceback" not in crawl.log


def test_a_crawl_delay_in_robots_txt_is_obeyed(site: Site, database: Database) -> None:
    """With Scrapy's jitter a pause is at least half of it."""
    said = {"body": "User-agent: *\nCrawl-delay: 0.4\n", "headers": {"Content-Type": "text/plain"}}
    site.control(override={"/robots.txt": said})
    ids = ("-a", f"ids={','.join(site.catalogue.ids[:6])}")
    crawl = database.crawl(site.url, *ids)
    assert crawl.exitcode == 0
    assert crawl.stats["elapsed_time_seconds"] >= 5 * 0.2
    assert "robots.txt asks for 0.4 s between requests" in crawl.log
    assert site.stats()["peak"] == 1
    impolite = database.crawl(site.url, *ids, "-s", "ROBOTSTXT_OBEY=0")
    assert "Crawl-delay" not in impolite.log


def test_the_cache_of_answers_gives_no_flawed_one_again(
    site: Site, database: Database, tmp_path: Path
) -> None:
    cache = ("-s", "HTTPCACHE_ENABLED=1", "-s", f"HTTPCACHE_DIR={tmp_path}")
    site.control(faults={"kinds": ["html"], "first": 1, "paths": "book"})
    crawl = database.crawl(site.url, *cache)
    assert (crawl.exitcode, crawl.reason, crawl.stats["catalogue/sweeps"]) == (0, "finished", 1)
    again = database.crawl(site.url, *cache, "-a", "refresh=all")
    assert (again.exitcode, again.stats["catalogue/sweeps"]) == (0, 1)
    assert_holds_catalogue(database, site)


def test_a_site_that_goes_away_for_good_ends_the_crawl_with_true_numbers(
    database: Database,
) -> None:
    settings = database.environment | {"SITE_RETRY_SECONDS": "5"}
    with running_site(60) as site, crawling(site.url, **settings) as running:
        with running.midway(site, 10):
            site.control(faults={"kinds": ["reset"], "share": 1})
        crawl = running.end()
    assert (crawl.exitcode, crawl.reason) == (1, "site_unavailable"), crawl.log
    assert (len(crawl.lines("WARNING")), len(crawl.lines("ERROR"))) == (1, 1)
    assert "catalogue/missing" not in crawl.stats
    assert database.books.count_documents({}) == crawl.stats["mongo/inserted"]


def _close_all(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        connection.close()


def test_retry_after_holds_everything_back(site: Site, database: Database) -> None:
    """While one answer asks for a pause, nothing else is sent. For dates see the next test."""
    busy = {"status": 503, "body": "", "times": 1, "headers": {"Retry-After": "2"}}
    site.control(override={f"/api/book/{site.catalogue.ids[9]}/": busy})
    crawl = database.crawl(site.url, CONCURRENT_REQUESTS="1")
    assert crawl.exitcode == 0
    assert crawl.stats["elapsed_time_seconds"] >= 2
    assert [line for line in crawl.lines("WARNING") if "asks for a pause" in line]
    assert_holds_catalogue(database, site)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3),
        ("0", 0),
        ("99999999999999", 120),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Fri, 21 Oct 2095 07:28:00 GMT", 120),
        ("Fri, 99 Oct 2095 07:28:00 GMT", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_a_date_up_to_a_bound(
    value: str, seconds: float | None
) -> None:
    assert retry_after(Response("http://x/", headers={"Retry-After": value})) == seconds


def test_a_failing_site_is_asked_less_than_the_limit_allows(site: Site, database: Database) -> None:
    """The pauses keep their places: while the only page is tried nothing else is sent."""
    site.control(faults={"kinds": ["500"], "share": 1})
    crawl = database.crawl(site.url, SITE_RETRY_SECONDS="2")
    asked: dict[str, Any] = site.stats()
    assert (crawl.exitcode, crawl.reason, asked["peak"]) == (1, "site_unavailable", 1)
    assert asked["requests"] < 15
