"""MongoDB fails: the crawl waits for it, and goes on where it was; or says that it gave up."""

from __future__ import annotations

import signal
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from spa5.mongo.server import EmbeddedServer
from tests.helpers.disk import fill, small_disk
from tests.helpers.embedded import kill, servers, wait_for_end
from tests.helpers.mongods import Mongod, replica_set, running_mongod
from tests.helpers.proxy import running_proxy
from tests.helpers.running import (
    AWAY,
    BACK,
    assert_holds_no_half_book,
    assert_is_back,
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
    from collections.abc import Callable, Iterator

    from tests.helpers.crawls import Ended
    from tests.helpers.databases import Database

WRITES = "insert update"
BOOKS = 150
STORES = "Books go to"  # the collection is open
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
    only_server.fail_no_more()
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


def crawl_and_break(
    database: Database, site: Site, breaks: Callable[[], None], *args: str
) -> Ended:
    """A crawl; what it stores in breaks when it has been opened and nothing is stored yet."""
    site.control(hold={})
    with crawling(site.url, *args, **database.environment) as running:
        running.wait_for(STORES)
        breaks()
        site.control(hold=None)
        return running.end()


Where = Literal["request", "reply"]
Then = Literal["cut", "silence"]


@pytest.mark.parametrize(
    ("commands", "where", "then", "times"),
    [
        # The driver repeats a query once itself, and several index pages may be in the making.
        ("find", "reply", "cut", 8),
        ("aggregate", "reply", "cut", 2),
        (WRITES, "request", "cut", 3),
        (WRITES, "reply", "cut", 3),
        (WRITES, "reply", "silence", 1),
    ],
)
def test_a_connection_that_breaks_in_the_middle_of_a_message_costs_a_retry_and_no_book(
    site: Site,
    server: Mongod,
    database: Database,
    commands: str,
    where: Where,
    then: Then,
    times: int,
) -> None:
    with running_proxy(server.port) as proxy:
        through = replace(database, uri=f"{proxy.uri}?{SHORT}")
        breaks = partial(proxy.break_off, commands, where, then, times)
        crawl = crawl_and_break(through, site, breaks)
    assert_is_complete(crawl, database, site)
    assert_is_back(crawl, most_outages=times)  # a page's query may succeed between two failures


@pytest.mark.parametrize(
    ("command", "passing", "ends"),
    [("distinct", 0, (1, "mongo_unavailable")), ("aggregate", 1, (0, "finished"))],
    ids=["marks what is gone", "asks how full the fields are"],
)
def test_a_crawl_that_loses_mongodb_for_good_after_its_verdict_says_so(
    site: Site,
    server: Mongod,
    database: Database,
    command: str,
    passing: int,
    ends: tuple[int, str],
) -> None:
    """A mark that is missing would be wrong for good; what the ledger lacks fails no crawl."""
    database.books.insert_one({"id": "7", "crawl": "another"})
    breaks = partial(server.cut_off, command, database.books.full_name, passing=passing)
    crawl = crawl_and_break(database, site, breaks, "-s", "MONGO_RETRY_SECONDS=1")
    assert (crawl.exitcode, crawl.reason) == ends, crawl.log
    assert_is_calm(crawl)
    server.fail_no_more()
    database.books.delete_one({"id": "7"})
    assert_next_run_does_the_rest(database, site)


def test_a_write_that_was_done_and_not_confirmed_is_counted_as_what_it_was(
    site: Site, server: Mongod, database: Database
) -> None:
    database.crawl(site.url)
    site.control(edit=site.catalogue.ids[:70])
    site.catalogue.edit(site.catalogue.ids[:70])
    site.reset()
    with running_proxy(server.port) as proxy:
        through = replace(database, uri=f"{proxy.uri}?{SHORT}")
        with crawling(site.url, "-a", "refresh=all", **through.environment) as running:
            with running.midway(site, 20):
                proxy.break_off(WRITES, "reply", times=3)
            crawl = running.end()
    assert crawl.exitcode == 0
    assert_holds_catalogue(database, site)
    names = ("mongo/inserted", "mongo/changed", "mongo/unchanged")
    assert [crawl.stats.get(name, 0) for name in names] == [0, 70, BOOKS - 70]
    assert site.stats()["repeats"] == 0
    assert_was_away_once(crawl)
    assert_is_calm(crawl)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_that_ends_and_starts_again_is_waited_for(
    site: Site, server: Mongod, database: Database, number: int
) -> None:
    through = replace(database, uri=f"{server.uri}?{SHORT}")
    with crawling(site.url, **through.environment) as running:
        with running.midway(site, 60), running.frozen():
            server.stop(number)
        running.wait_for(AWAY)
        server.start()
        crawl = running.end()
    assert_is_complete(crawl, database, site)
    assert_was_away_once(crawl)


def test_a_server_that_stands_still_is_waited_for(
    site: Site, server: Mongod, database: Database
) -> None:
    """When it goes on, it also does the writes that the crawl had given up and repeated."""
    through = replace(database, uri=f"{server.uri}?{SHORT}")
    with crawling(site.url, **through.environment) as running:
        with running.midway(site, 60), running.frozen():
            server.pause()
        running.wait_for(AWAY)
        server.resume()
        crawl = running.end()
    assert_is_complete(crawl, database, site)
    assert_was_away_once(crawl)


def test_a_network_that_is_gone_for_a_while_is_waited_for(
    site: Site, server: Mongod, database: Database
) -> None:
    with running_proxy(server.port) as proxy:
        through = replace(database, uri=f"{proxy.uri}?{SHORT}")
        with crawling(site.url, **through.environment) as running:
            with running.midway(site, 60), running.frozen():
                proxy.refuse()
            running.wait_for(AWAY)
            proxy.accept()
            crawl = running.end()
    assert_is_complete(crawl, database, site)
    assert_was_away_once(crawl)


def test_a_slow_server_is_no_outage(site: Site, server: Mongod, database: Database) -> None:
    with running_proxy(server.port) as proxy:
        proxy.delay = 0.1
        crawl = replace(database, uri=proxy.uri).crawl(site.url)
    assert_is_complete(crawl, database, site)
    assert AWAY not in crawl.log
    assert "mongo/retries" not in crawl.stats


@pytest.mark.parametrize(
    "how",
    [
        {"errorCode": 14031},  # OutOfDiskSpace
        {"errorCode": 10107},  # NotWritablePrimary
        {"writeConcernError": {"code": 64, "errmsg": "waiting timed out"}},
    ],
)
def test_an_error_that_passes_is_waited_for(
    site: Site, server: Mongod, database: Database, how: dict[str, Any]
) -> None:
    through = replace(database, uri=f"{server.uri}?{SHORT}")
    crawl = crawl_and_break(through, site, partial(server.fail, WRITES, times=3, **how))
    assert_is_complete(crawl, database, site)
    assert_was_away_once(crawl)


def test_while_only_writes_fail_the_log_tells_of_one_outage(
    site: Site, server: Mongod, database: Database
) -> None:
    """The queries for the next index pages go on meanwhile: they are no sign of its end."""
    breaks = partial(server.fail, WRITES, times=6, errorCode=14031)
    crawl = crawl_and_break(database, site, breaks, "-a", "page_size=5")
    assert_is_complete(crawl, database, site)
    assert_was_away_once(crawl)


def test_an_error_that_does_not_pass_ends_the_crawl_at_once(
    site: Site, server: Mongod, database: Database
) -> None:
    with crawling(site.url, **database.environment) as running:
        with running.midway(site, 60), running.frozen():
            server.fail(WRITES, errorCode=13)  # Unauthorized
        crawl = running.end()
    assert (crawl.exitcode, crawl.reason) == (1, "mongo_unavailable")
    assert len(crawl.lines("ERROR")) == 1
    assert "not authorized" in crawl.lines("ERROR")[0]
    assert "mongo/retries" not in crawl.stats
    assert crawl.stats.get("mongo/inserted", 0) == assert_holds_no_half_book(database, site)
    assert_is_calm(crawl)


def test_a_collection_that_is_dropped_under_two_crawls_holds_no_book_twice(
    site: Site, database: Database
) -> None:
    environment = database.environment
    with crawling(site.url, **environment) as one, crawling(site.url, **environment) as other:
        with one.midway(site, 60):
            other.wait_for(STORES)
            database.books.drop()
        crawls = [one.end(), other.end()]
    assert_holds_no_half_book(database, site)
    indexes = database.books.index_information().values()
    assert [index["key"] for index in indexes if index.get("unique")] == [[("id", 1)]]
    for crawl in crawls:
        assert_is_calm(crawl)


@pytest.mark.parametrize("commands", ["find", WRITES, "aggregate"])
def test_past_the_limit_the_crawl_gives_up_and_the_next_run_does_the_rest(
    site: Site, server: Mongod, database: Database, commands: str
) -> None:
    with running_proxy(server.port) as proxy:
        through = replace(database, uri=f"{proxy.uri}?{SHORT}")
        breaks = partial(proxy.break_off, commands, "request", times=10**9)
        crawl = crawl_and_break(through, site, breaks, "-s", "MONGO_RETRY_SECONDS=0.5")
    assert (crawl.exitcode, crawl.reason) == (1, "mongo_unavailable")
    stored = BOOKS if commands == "aggregate" else 0
    assert database.books.count_documents({}) == stored
    assert crawl.stats.get("mongo/inserted", 0) == stored
    assert crawl.stats.get("item_scraped_count", 0) == stored
    assert crawl.stats["mongo/outage_seconds"] >= 0.5
    assert (crawl.log.count(AWAY), crawl.log.count(BACK)) == (1, 0)
    assert len(crawl.lines("ERROR")) == 1
    assert "stayed away for 0.5 s" in crawl.lines("ERROR")[0]
    assert_is_calm(crawl)
    assert_next_run_does_the_rest(database, site)


def test_a_server_that_does_not_come_back_ends_the_crawl(
    site: Site, server: Mongod, database: Database
) -> None:
    through = replace(database, uri=f"{server.uri}?{SHORT}")
    with crawling(site.url, MONGO_RETRY_SECONDS="1", **through.environment) as running:
        with running.midway(site, 60), running.frozen():
            server.kill()
        crawl = running.end()
    assert (crawl.exitcode, crawl.reason) == (1, "mongo_unavailable")
    assert len(crawl.lines("ERROR")) == 1
    assert_is_calm(crawl)
    server.start()
    # What was confirmed is there; a write that the kill kept from being confirmed may be too.
    stored = assert_holds_no_half_book(database, site)
    counts = [crawl.stats.get(name, 0) for name in ("item_scraped_count", "mongo/inserted")]
    assert counts[0] == counts[1] <= stored
    assert_next_run_does_the_rest(database, site)


def test_while_mongodb_is_away_the_crawl_pauses_and_its_memory_is_bounded(
    server: Mongod, database: Database
) -> None:
    with running_site(6000, latency=0.005, prerender=True) as site:
        with crawling(site.url, CONCURRENT_REQUESTS="16", **database.environment) as running:
            with running.midway(site, 100), running.frozen():
                server.pause()
                before = running.measure()
            wait_until_idle(site)
            grown = running.measure() - before
            running.process.kill()
        asked = site.stats()["detail"]
    assert asked < 3000
    assert grown < 60


def wait_until_idle(site: Site) -> None:
    """Return when the site is asked for nothing: a crawl at work always has requests in flight."""
    seen = 0
    while seen < 20:
        seen = 0 if site.stats()["in_flight"] else seen + 1


def test_a_primary_that_steps_down_is_followed_by_another(site: Site, tmp_path: Path) -> None:
    with (
        replica_set(tmp_path, members=3) as replicas,
        database_at(f"{replicas.uri}&{SHORT}") as database,
    ):
        with crawling(site.url, **database.environment) as running:
            with running.midway(site, 40):
                replicas.step_down(60)
            running.wait_for_details(site, 120)
            replicas.primary().kill()
            crawl = running.end()
        assert_is_complete(crawl, database, site)
        assert crawl.log.count(AWAY) == crawl.log.count(BACK)


def test_a_set_without_a_primary_is_waited_for(site: Site, tmp_path: Path) -> None:
    with replica_set(tmp_path, members=1) as replicas, database_at(replicas.uri) as database:
        through = replace(database, uri=f"{replicas.uri}&{SHORT}")
        with crawling(site.url, **through.environment) as running:
            with running.midway(site, 40):
                replicas.step_down(600)
            running.wait_for(AWAY)
            replicas.members[0].stand_again()
            crawl = running.end()
        assert_is_complete(crawl, database, site)
        assert_was_away_once(crawl)


def test_what_a_lost_primary_alone_held_was_not_confirmed(site: Site, tmp_path: Path) -> None:
    """A book counts when most members hold it: those live on, whichever takes over."""
    with (
        replica_set(tmp_path, members=3, election_seconds=2) as replicas,
        database_at(f"{replicas.uri}&{SHORT}") as database,
        crawling(site.url, "-a", f"page_size={BOOKS}", **database.environment) as running,
    ):
        with running.midway(site, 40):
            primary = replicas.primary()
            others = [one for one in replicas.members if one is not primary]
            for one in others:
                one.pause()
        running.wait_for_details(site, BOOKS)
        primary.kill()
        for one in others:
            one.resume()
        crawl = running.end()
        assert_is_complete(crawl, database, site)


def write_all(uri: str) -> None:
    """Let MongoDB write to its files what it would write within a minute."""
    client = MongoClient[dict[str, Any]](uri, retryReads=False, serverSelectionTimeoutMS=10_000)
    with client, suppress(PyMongoError):
        client.admin.command("fsync")


def test_a_full_disk_is_waited_for(site: Site, tmp_path: Path) -> None:
    """MongoDB ends where it can't write its journal."""
    journal = ("--wiredTigerEngineConfigString", "log=(file_max=128KB)")
    with small_disk(tmp_path / "disk", 48) as disk:
        (tmp_path / "log").mkdir()
        server = Mongod(tmp_path / "log", *journal)
        server.data = disk / "data"
        server.start()
        try:
            with database_at(server.uri) as database:
                through = replace(database, uri=f"{server.uri}?{SHORT}")
                with crawling(site.url, **through.environment) as running:
                    with running.midway(site, 40), running.frozen():
                        full = fill(disk)
                        write_all(server.uri)
                    running.wait_for(AWAY)
                    server.wait_for_end()
                    full.unlink()
                    server.start()
                    crawl = running.end()
                assert_is_complete(crawl, database, site)
                assert_was_away_once(crawl)
        finally:
            if server.pid:
                server.kill()


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The settings for an embedded server of this test's own."""
    folder = tmp_path / "mongodb"
    yield {"MONGO_URI": "embedded", "MONGO_DATA_DIR": str(folder)}
    assert servers(folder) == []


def test_the_embedded_server_is_started_again(site: Site, embedded: dict[str, str]) -> None:
    folder = Path(embedded["MONGO_DATA_DIR"])
    with crawling(site.url, **embedded) as running:
        with running.midway(site, 60), running.frozen():
            kill(*servers(folder))
        crawl = running.end()
    assert servers(folder) == []
    assert not (folder / "mongod.sock").exists()
    with embedded_database(folder) as database:
        assert_is_complete(crawl, database, site)
    assert_was_away_once(crawl)


def test_two_crawls_that_share_the_embedded_server_survive_its_end(
    site: Site, embedded: dict[str, str]
) -> None:
    folder = Path(embedded["MONGO_DATA_DIR"])
    with crawling(site.url, **embedded) as one, crawling(site.url, **embedded) as other:
        with one.midway(site, 60):
            other.wait_for(STORES)
            with one.frozen(), other.frozen():
                kill(*servers(folder))
        crawls = [one.end(), other.end()]
    assert servers(folder) == []
    for crawl in crawls:
        assert (crawl.exitcode, crawl.reason) == (0, "finished"), crawl.log
        assert_is_calm(crawl)
    with embedded_database(folder) as database:
        assert_holds_catalogue(database, site)


def test_the_embedded_server_comes_back_when_its_disk_has_space_again(
    site: Site, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 420) as disk:
        folder = disk / "mongodb"
        with crawling(site.url, MONGO_URI="embedded", MONGO_DATA_DIR=str(folder)) as running:
            with running.midway(site, 40), running.frozen():
                full = fill(disk)
                write_all(EmbeddedServer(folder).uri)
                for pid in servers(folder):
                    wait_for_end(pid)
            running.wait_for(AWAY)
            full.unlink()
            crawl = running.end()
        assert servers(folder) == []
        with embedded_database(folder) as database:
            assert_is_complete(crawl, database, site)
        assert_was_away_once(crawl)
