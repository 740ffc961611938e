"""The crawler fails: no half book is left, and nothing that hinders the next run."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from spa5 import settings
from spa5.mongo.mongod import find_binary
from tests.helpers.crawls import ROOT, run
from tests.helpers.disk import fill, small_disk
from tests.helpers.embedded import fake_wheel, kill, servers
from tests.helpers.mongods import Mongod, running_mongod
from tests.helpers.proxy import running_proxy
from tests.helpers.running import (
    AWAY,
    Running,
    assert_holds_no_half_book,
    assert_is_calm,
    assert_is_complete,
    assert_next_run_does_the_rest,
    assert_was_away_once,
    crawling,
    database_at,
    embedded_database,
)
from tests.helpers.stored import assert_holds_catalogue
from tests.standin.site import RunningSite as Site
from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from scrapy.http import Response

    from tests.helpers.databases import Database

WRITES = "insert update"
BOOKS = 150
# Of seconds: a slow server is no outage, and a crawl that starts needs time to find its server.
SHORT = "socketTimeoutMS=5000&serverSelectionTimeoutMS=5000&heartbeatFrequencyMS=500"


@pytest.fixture(scope="module")
def only_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    with running_mongod(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def server(only_server: Mongod) -> Mongod:
    """A server that may be killed and stopped: the next test finds it running."""
    if not only_server.pid:
        only_server.start()
    only_server.resume()
    return only_server


@pytest.fixture
def database(server: Mongod) -> Iterator[Database]:
    with database_at(server.uri) as database:
        yield database


@pytest.fixture
def site() -> Iterator[Site]:
    """Slow enough to be met in mid-crawl."""
    with running_site(BOOKS, latency=0.02) as site:
        yield site


@pytest.mark.parametrize("where", ["request", "reply"])
def test_a_crawl_that_is_killed_in_the_middle_of_a_write_leaves_no_half_book(
    site: Site, server: Mongod, database: Database, where: Literal["request", "reply"]
) -> None:
    with running_proxy(server.port) as proxy:
        through = replace(database, uri=proxy.uri)
        with crawling(site.url, **through.environment) as running:
            with running.midway(site, 60):
                proxy.break_off(WRITES, where, "silence")
            proxy.wait_until_broken()
            running.process.kill()
            assert running.end().exitcode == -signal.SIGKILL
    assert_next_run_does_the_rest(database, site)


def test_a_crawl_that_is_killed_while_mongodb_is_away_goes_on_in_the_next_run(
    site: Site, server: Mongod, database: Database
) -> None:
    through = replace(database, uri=f"{server.uri}?{SHORT}")
    with crawling(site.url, **through.environment) as running:
        with running.midway(site, 60), running.frozen():
            server.kill()
        running.wait_for(AWAY)
        running.process.kill()
        running.end()
    server.start()
    assert_next_run_does_the_rest(database, site)


def test_a_crawl_that_is_ended_while_mongodb_is_away_stores_what_it_fetched(
    site: Site, server: Mongod, database: Database
) -> None:
    through = replace(database, uri=f"{server.uri}?{SHORT}")
    with crawling(site.url, **through.environment) as running:
        with running.midway(site, 60), running.frozen():
            server.kill()
        running.wait_for(AWAY)
        running.process.terminate()
        running.wait_for("Closing spider (shutdown)")
        server.start()
        crawl = running.end()
    assert (crawl.exitcode, crawl.reason) == (0, "shutdown")
    assert_was_away_once(crawl)
    assert_is_calm(crawl)
    stored = assert_holds_no_half_book(database, site)
    assert crawl.stats["item_scraped_count"] == site.stats()["detail"] == stored
    assert_next_run_does_the_rest(database, site)


def test_a_crawl_that_is_ended_and_can_not_store_what_it_fetched_says_so(
    site: Site, server: Mongod, database: Database
) -> None:
    through = replace(database, uri=f"{server.uri}?{SHORT}")
    with crawling(site.url, MONGO_RETRY_SECONDS="2", **through.environment) as running:
        with running.midway(site, 60), running.frozen():
            server.kill()
        running.wait_for(AWAY)
        running.process.terminate()
        crawl = running.end()
    assert crawl.exitcode == 1
    assert len(crawl.lines("ERROR")) == 1
    assert_is_calm(crawl)
    server.start()
    assert_next_run_does_the_rest(database, site)


def test_two_signals_end_a_crawl_that_waits_for_mongodb(
    site: Site, server: Mongod, database: Database
) -> None:
    through = replace(database, uri=f"{server.uri}?{SHORT}")
    with crawling(site.url, **through.environment) as running:
        with running.midway(site, 60), running.frozen():
            server.pause()
        running.wait_for(AWAY)
        interrupt_twice(running)
        crawl = running.end()
    assert crawl.exitcode == 1
    assert_is_calm(crawl)
    server.resume()
    server.wait_for_crawls()
    assert_next_run_does_the_rest(database, site)


def interrupt_twice(running: Running) -> None:
    running.process.send_signal(signal.SIGINT)
    running.wait_for("Send again to force")
    running.process.send_signal(signal.SIGINT)
    running.wait_for("forcing unclean shutdown")


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The settings for an embedded server of this test's own."""
    folder = tmp_path / "mongodb"
    yield {"MONGO_URI": "embedded", "MONGO_DATA_DIR": str(folder)}
    assert servers(folder) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_next_run_takes_over_the_embedded_server(
    site: Site, embedded: dict[str, str], number: signal.Signals
) -> None:
    with crawling(site.url, **embedded) as running:
        with running.midway(site, 60):
            running.process.send_signal(number)
        crawl = running.end()
    folder = Path(embedded["MONGO_DATA_DIR"])
    if number == signal.SIGTERM:
        assert (crawl.exitcode, crawl.reason) == (0, "shutdown")
        assert servers(folder) == []
    site_stats = site.stats()
    with crawling(site.url, **embedded) as running:
        crawl = running.end()
    assert (crawl.exitcode, crawl.reason) == (0, "finished")
    assert servers(folder) == []
    assert not (folder / "mongod.sock").exists()
    # What was in flight and what was not yet acknowledged is fetched again.
    assert site.stats()["detail"] - site_stats["detail"] <= BOOKS - crawl.stats["catalogue/skipped"]
    assert_is_calm(crawl)
    with embedded_database(folder) as database:
        assert_holds_catalogue(database, site)


def test_two_signals_leave_an_embedded_server_that_the_next_run_takes_over(
    site: Site, embedded: dict[str, str]
) -> None:
    folder = Path(embedded["MONGO_DATA_DIR"])
    with crawling(site.url, **embedded) as running:
        with running.midway(site, 60), running.frozen():
            (pid,) = servers(folder)
            os.kill(pid, signal.SIGSTOP)
        interrupt_twice(running)
        os.kill(pid, signal.SIGCONT)
        crawl = running.end()
    assert crawl.exitcode == 1
    assert_is_calm(crawl)
    with crawling(site.url, **embedded) as running:
        crawl = running.end()
    assert (crawl.exitcode, crawl.reason) == (0, "finished")
    with embedded_database(folder) as database:
        assert_holds_catalogue(database, site)


def test_a_crawl_out_of_file_descriptors_goes_on_when_it_has_some(
    site: Site, server: Mongod, database: Database
) -> None:
    """Its connections to MongoDB do not last: it needs new ones."""
    through = replace(database, uri=f"{server.uri}?{SHORT}&maxIdleTimeMS=1")
    with crawling(site.url, **through.environment) as running:
        with running.midway(site, 60):
            pid = running.process.pid
            soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
        running.wait_for(AWAY)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        crawl = running.end()
    assert "Too many open files" in crawl.log
    assert_is_complete(crawl, database, site)
    assert_was_away_once(crawl)


def test_a_crawl_that_never_had_enough_file_descriptors_ends(
    site: Site, database: Database
) -> None:
    """With 8 Scrapy itself does not start, with 11 MongoDB can't be reached."""
    ended = subprocess.run(
        ["sh", "-c", f"ulimit -n 11 && exec {sys.executable} -m scrapy crawl books"],
        cwd=ROOT,
        env={**os.environ, **database.environment, "SITE_URL": site.url},
        stderr=subprocess.DEVNULL,
        timeout=60,
    )
    assert ended.returncode == 1
    assert_next_run_does_the_rest(database, site)


def test_a_full_disk_under_the_log_costs_the_log_alone(
    site: Site, database: Database, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        log = ("--logfile", str(disk / "log"), "-L", "DEBUG")  # more than a block is left for
        site.control(hold={"paths": r"/book/\d", "first": 60})
        with crawling(site.url, *log, **database.environment) as running:
            while site.stats()["detail"] < 60:
                pass
            with running.frozen():
                fill(disk)
            site.control(hold=None)
            crawl = running.end()
        assert "Spider closed" not in (disk / "log").read_text(errors="replace")
    assert_holds_catalogue(database, site)
    assert (crawl.exitcode, crawl.reason) == (0, "finished"), crawl.log
    assert (crawl.stats["mongo/inserted"], site.stats()["repeats"]) == (BOOKS, 0)


class Failing:
    """A spider middleware that fails before the spider's callback begins, for an index page."""

    async def process_spider_output(
        self, response: Response, result: AsyncIterator[Any]
    ) -> AsyncIterator[Any]:
        if "offset=100&" in f"{response.url}&":
            raise OSError("Too many open files")
        async for output in result:
            yield output


def test_a_page_that_the_spider_never_sees_does_not_let_the_crawl_hang(
    site: Site, database: Database
) -> None:
    middlewares = settings.SPIDER_MIDDLEWARES | {f"{__name__}.{Failing.__name__}": 100}
    arguments = ("-s", f"SPIDER_MIDDLEWARES={json.dumps(middlewares)}")
    with crawling(site.url, *arguments, MAX_SWEEPS="1", **database.environment) as running:
        crawl = running.end()
    assert (crawl.exitcode, crawl.reason) == (1, "incomplete")
    assert_next_run_does_the_rest(database, site)


def test_a_crawl_that_is_ended_while_its_server_starts_ends_the_server(tmp_path: Path) -> None:
    mongod = f'#!/bin/sh\nkill -INT $PPID\nexec {find_binary()} "$@"\n'
    environment = {"PYTHONPATH": fake_wheel(tmp_path, mongod), "MONGO_URI": "embedded"}
    crawl = run("crawl", "books", MONGO_DATA_DIR=str(tmp_path / "data"), **environment)
    left = servers(tmp_path / "data")
    for pid in left:
        kill(pid)
    assert left == []
    assert crawl.exitcode == 0
    assert "Spider closed (shutdown)" in crawl.log
    assert "Traceback" not in crawl.log
