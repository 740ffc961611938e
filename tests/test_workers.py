"""Workers that share one crawl through a real Redis."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from spa5.catalogue.drift import MOST_EMPTIED
from tests.helpers.receivers import receiving
from tests.helpers.redises import RedisServer, needs_redis, running_redis
from tests.helpers.running import Running, crawling
from tests.helpers.stored import assert_holds_catalogue
from tests.standin.site import RunningSite as Site
from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.crawls import Ended
    from tests.helpers.databases import Database

pytestmark = needs_redis

BOOKS, SMALL = 900, 100
JOINED = "Worker of"
DAY_SECONDS = 24 * 3600
KEYS = ("run", "leader", "workers", "busy", "totals", "requests", "asked")


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture(scope="module")
def catalogue() -> Iterator[Site]:
    with running_site(BOOKS, latency=0.05) as site:
        yield site


@pytest.fixture
def site(catalogue: Site) -> Site:
    catalogue.reset()
    catalogue.control(latency=0.05, hold=None)
    return catalogue


@pytest.fixture(scope="module")
def small_catalogue() -> Iterator[Site]:
    with running_site(SMALL) as site:
        yield site


@pytest.fixture
def small(small_catalogue: Site) -> Site:
    small_catalogue.reset()
    small_catalogue.control(latency=0, hold=None)
    return small_catalogue


@contextmanager
def working(
    site: Site, database: Database, redis: RedisServer, *args: str, crawl_id: str | None = None
) -> Iterator[Running]:
    """One worker with four requests in flight."""
    ours = {"REDIS_URL": redis.url, "CRAWL_ID": crawl_id or database.name}
    with crawling(
        site.url, *args, CONCURRENT_REQUESTS="4", **database.environment, **ours
    ) as running:
        yield running


@contextmanager
def crew(
    workers: int,
    site: Site,
    database: Database,
    redis: RedisServer,
    *args: str,
    hold: int | None = None,
) -> Iterator[list[Running]]:
    """That many workers, all of which have joined before the site answers one of them.

    It holds its answers again when it was asked for `hold` details.
    """
    site.control(hold={"details": 0})
    with ExitStack() as stack:
        running = [
            stack.enter_context(working(site, database, redis, *args)) for _ in range(workers)
        ]
        for one in running:
            one.wait_for(JOINED)
        site.control(hold=None if hold is None else {"details": hold})
        yield running


def assert_finished(*crawls: Ended) -> None:
    for crawl in crawls:
        assert (crawl.exitcode, crawl.reason) == (0, "finished"), crawl.log
        assert crawl.stats["catalogue/missing"] == 0
        assert "Traceback" not in crawl.log


def scraped(crawl: Ended) -> int:
    return int(crawl.stats.get("item_scraped_count", 0))


def left(redis: RedisServer, database: Database) -> list[str]:
    """The keys that a crawl leaves, besides how it ended."""
    with redis.client() as client:
        keys = client.scan_iter(f"books:{database.name}:*")
        return [key for key in keys if ":ended:" not in key]


def test_three_workers_share_the_books(site: Site, database: Database, redis: RedisServer) -> None:
    with crew(3, site, database, redis) as running:
        crawls = [one.end() for one in running]
    assert_finished(*crawls)
    assert_holds_catalogue(database, site)
    assert min(map(scraped, crawls)) >= BOOKS / 15
    assert sum(map(scraped, crawls)) == BOOKS
    assert (site.stats()["detail"], site.stats()["index"]) == (BOOKS, BOOKS / 100 + 1)
    assert left(redis, database) == []
    crawl = noted(database)
    assert (crawl["reason"], crawl["exit_code"], crawl["settled"]) == ("finished", 0, True)
    assert (crawl["counts"]["listed"], crawl["counts"]["new"]) == (BOOKS, BOOKS)
    pids = {one.process.pid for one in running}
    assert {worker["pid"] for worker in crawl["workers"].values()} == pids
    assert {book["crawl"] for book in database.stored().values()} == {crawl["_id"]}


def noted(database: Database) -> dict[str, Any]:
    """The one document of the ledger."""
    (crawl,) = database.books.database["crawls"].find()
    return crawl


@pytest.mark.parametrize("leads", [True, False], ids=["leader", "follower"])
def test_a_killed_worker_loses_nothing(
    site: Site, database: Database, redis: RedisServer, leads: bool
) -> None:
    with crew(3, site, database, redis) as running:
        running[0].wait_for_details(site, 300)
        killed = next(one for one in running if is_leader(one, database, redis) is leads)
        killed.process.kill()
        crawls = [one.end() for one in running if one is not killed]
    assert_finished(*crawls)
    assert_holds_catalogue(database, site)
    assert BOOKS <= site.stats()["detail"] <= BOOKS + 100
    assert left(redis, database) == []
    crawl = noted(database)
    assert (crawl["reason"], crawl["settled"], len(crawl["workers"])) == ("finished", False, 3)


def is_leader(running: Running, database: Database, redis: RedisServer) -> bool:
    with redis.client() as client:
        return f":{running.process.pid}:" in str(client.get(f"books:{database.name}:leader"))


def test_a_worker_that_comes_late_takes_its_share(
    site: Site, database: Database, redis: RedisServer
) -> None:
    site.control(hold={"details": 100})
    with working(site, database, redis) as first:
        first.wait_for_details(site, 100)
        with working(site, database, redis) as late:
            late.wait_for(JOINED)
            site.control(hold=None)
            crawls = [first.end(), late.end()]
    assert_finished(*crawls)
    assert min(map(scraped, crawls)) > 0
    assert sum(map(scraped, crawls)) == site.stats()["detail"] == BOOKS


@pytest.mark.parametrize("leads", [True, False], ids=["leader", "follower"])
def test_a_worker_that_is_stopped_leaves_the_rest_to_the_others(
    site: Site, database: Database, redis: RedisServer, leads: bool
) -> None:
    with crew(2, site, database, redis) as running:
        running[0].wait_for_details(site, 200)
        stopped = next(one for one in running if is_leader(one, database, redis) is leads)
        stopped.process.send_signal(signal.SIGTERM)
        ended = stopped.end()
        crawls = [one.end() for one in running if one is not stopped]
    assert (ended.exitcode, ended.reason) == (0, "shutdown")
    assert_finished(*crawls)
    assert_holds_catalogue(database, site)
    assert site.stats()["detail"] == BOOKS
    assert scraped(ended) + scraped(*crawls) == BOOKS


def test_a_leader_that_was_paused_leads_again_with_a_walk_of_its_own(
    site: Site, database: Database, redis: RedisServer
) -> None:
    """Answers to pages that it asked for before the pause belong to a walk that is over."""
    site.control(latency=0.2)  # so that pages are in flight
    with crew(2, site, database, redis) as running:
        running[0].wait_for_details(site, 20)
        paused, other = sorted(running, key=lambda one: not is_leader(one, database, redis))
        paused.process.send_signal(signal.SIGSTOP)
        while not is_leader(other, database, redis):
            assert other.process.poll() is None
        other.process.kill()
        site.control(latency=0)
        paused.process.send_signal(signal.SIGCONT)
        crawl = paused.end()
    assert_finished(crawl)
    assert_holds_catalogue(database, site)


def test_a_redis_that_lost_everything_costs_no_book(site: Site, database: Database) -> None:
    with running_redis() as redis, crew(2, site, database, redis) as running:
        running[0].wait_for_details(site, 300)
        redis.stop()
        for one in running:
            one.wait_for("Redis at")
        redis.start()
        crawls = [one.end() for one in running]
        assert left(redis, database) == []
    assert_finished(*crawls)
    assert_holds_catalogue(database, site)
    assert site.stats()["detail"] <= BOOKS + 100  # what was in hand may be asked for twice
    for crawl in crawls:
        assert crawl.log.count("is away (") == crawl.log.count("is back after") == 1
        assert crawl.stats["redis/outage_seconds"] > 0


def test_a_redis_that_hangs_pauses_the_workers(site: Site, database: Database) -> None:
    with running_redis() as redis, crew(2, site, database, redis) as running:
        running[0].wait_for_details(site, 300)
        redis.process.send_signal(signal.SIGSTOP)
        for one in running:
            one.wait_for("is away (")
        redis.process.send_signal(signal.SIGCONT)
        crawls = [one.end() for one in running]
    assert_finished(*crawls)
    assert_holds_catalogue(database, site)


def test_crawls_with_different_ids_do_not_meet(
    small: Site, database: Database, redis: RedisServer
) -> None:
    with (
        working(small, database, redis, crawl_id="one") as one,
        working(small, database, redis, "-s", "MONGO_COLLECTION=other", crawl_id="two") as two,
    ):
        crawls = [one.end(), two.end()]
    assert_finished(*crawls)
    assert [scraped(crawl) for crawl in crawls] == [SMALL, SMALL]


def test_a_crawl_id_may_have_any_characters(
    small: Site, database: Database, redis: RedisServer
) -> None:
    with working(small, database, redis, crawl_id="100%s {x} é:*") as running:
        crawl = running.end()
    assert_finished(crawl)
    assert scraped(crawl) == SMALL


@pytest.mark.parametrize("other", ["site", "collection"])
def test_a_crawl_id_is_of_one_site_and_collection(
    small: Site, site: Site, database: Database, redis: RedisServer, other: str
) -> None:
    with crew(1, small, database, redis, hold=0) as (first,):
        args = ("-s", "MONGO_COLLECTION=other") if other == "collection" else ()
        with working(site if other == "site" else small, database, redis, *args) as second:
            refused = second.end()
        assert (refused.exitcode, refused.reason) == (1, "redis_unavailable")
        (error,) = refused.lines("ERROR")
        assert "use another CRAWL_ID" in error
        small.control(hold=None)
        assert_finished(first.end())
    assert site.stats()["requests"] == 0


def test_each_worker_tells_what_the_whole_crawl_did(
    small: Site, database: Database, redis: RedisServer
) -> None:
    small.control(latency=0.2)
    with crew(2, small, database, redis) as running:
        crawls = [one.end() for one in running]
    assert_finished(*crawls)
    for crawl in crawls:
        whole = [crawl.stats[f"crawl/{name}"] for name in ("inserted", "changed", "unchanged")]
        assert whole == [SMALL, 0, 0]
        assert f"{SMALL} new, 0 changed, 0 unchanged" in crawl.log
    assert sum(crawl.stats["mongo/inserted"] for crawl in crawls) == SMALL


def test_an_id_can_be_used_again(small: Site, database: Database, redis: RedisServer) -> None:
    for refresh in ("changed", "all"):
        with working(small, database, redis, "-a", f"refresh={refresh}") as running:
            crawl = running.end()
        assert_finished(crawl)
        assert scraped(crawl) == SMALL


def test_what_killed_workers_left_is_in_no_ones_way(
    small: Site, database: Database, redis: RedisServer
) -> None:
    small.control(latency=1)
    with crew(2, small, database, redis) as running:
        running[0].wait_for_details(small, 4)
        for one in running:
            one.process.kill()
    assert left(redis, database)
    small.control(latency=0)
    with working(small, database, redis) as again:
        crawl = again.end()
    assert_finished(crawl)
    assert_holds_catalogue(database, small)


def test_each_key_is_forgotten_after_a_day_without_use(
    small: Site, database: Database, redis: RedisServer
) -> None:
    with crew(2, small, database, redis, hold=4) as running, redis.client() as client:
        keys = [f"books:{database.name}:{name}" for name in KEYS]
        while not all(0 < client.ttl(key) <= DAY_SECONDS for key in keys):  # set with a beat
            assert running[0].process.poll() is None
        for one in running:
            one.process.kill()


def test_a_book_costs_less_than_a_round_trip(
    small: Site, database: Database, redis: RedisServer
) -> None:
    with redis.client() as client:
        client.config_resetstat()
        with working(small, database, redis) as running:
            crawl = running.end()
        calls = {name: one["calls"] for name, one in client.info("commandstats").items()}
    assert_finished(crawl)
    assert (calls["cmdstat_sadd"], calls["cmdstat_lpush"]) == (SMALL, SMALL)
    assert calls["cmdstat_rpop"] == SMALL
    # Besides, a worker that waits asks twenty times a second at the most, however long it takes.
    most = SMALL / 2 + 20 * crawl.stats["elapsed_time_seconds"]
    assert max(calls["cmdstat_evalsha"], crawl.stats["redis/round_trips"]) < most
    assert "cmdstat_eval" not in calls  # no script goes over the wire whole


# Others can write into Redis, too.


def test_garbage_among_the_totals_changes_nothing(
    small: Site, database: Database, redis: RedisServer
) -> None:
    with crew(2, small, database, redis, hold=4) as running, redis.client() as client:
        running[0].wait_for_details(small, 4)
        key = f"books:{database.name}:totals"
        client.hset(key, mapping={"x": '{"mongo/inserted": 3}', "y": b"\xff", "z": '{"a": "1"}'})
        small.control(hold=None)
        crawls = [one.end() for one in running]
    assert_finished(*crawls)
    assert_holds_catalogue(database, small)
    assert any(crawl.stats.get("redis/refused") for crawl in crawls)
    for crawl in crawls:
        assert crawl.log.count("no worker of this crawl wrote") == bool(
            crawl.stats.get("redis/refused")
        )


@pytest.mark.parametrize("name", ["totals", "workers", "requests", "ended"])
def test_what_is_not_of_this_crawl_ends_its_workers(
    small: Site, database: Database, redis: RedisServer, name: str
) -> None:
    small.control(latency=0.5)  # so that it can't end before the next beat
    with crew(2, small, database, redis, hold=4) as running, redis.client() as client:
        running[0].wait_for_details(small, 4)
        prefix = f"books:{database.name}"
        if name == "ended":
            name += ":" + str(client.get(f"{prefix}:run")).split()[0]
        client.pipeline().delete(f"{prefix}:{name}").set(f"{prefix}:{name}", "\0{").execute()
        small.control(hold=None)
        crawls = [one.end() for one in running]
    small.control(latency=0)
    for crawl in crawls:
        assert (crawl.exitcode, crawl.reason) == (1, "redis_unavailable"), crawl.log
        (error,) = crawl.lines("ERROR")
        assert "CRAWL_ID" in error
        assert "Traceback" not in crawl.log


def test_a_forged_request_reaches_nobody(
    small: Site, database: Database, redis: RedisServer
) -> None:
    """Neither its proxy nor its method, headers, class or callback."""
    forged = {
        "url": f"{small.url}/api/book/1/",
        "method": "DELETE",
        "body": "x",
        "priority": 9,
        "headers": {"X-Forged": ["1"]},
        "_class": "this.Zen",
        "callback": "_set_crawler",
        "meta": {"book_id": "1", "listed": {}, "proxy": "http://127.0.0.1:1"},
    }
    entries = [forged, [forged, {}], ["1", forged], ["../../x", {}], ["1", {}, forged]]
    with crew(1, small, database, redis, hold=4) as (running,), redis.client() as client:
        running.wait_for_details(small, 4)
        client.rpush(f"books:{database.name}:requests", *map(json.dumps, entries))
        small.control(hold=None)
        crawl = running.end()
    assert_finished(crawl)
    assert crawl.stats["redis/refused"] == len(entries)
    assert small.stats()["detail"] == SMALL
    assert small.stats()["other"] == 1  # robots.txt


def test_a_redis_that_is_full_for_a_while_is_one_outage(
    site: Site, database: Database, redis: RedisServer
) -> None:
    with crew(2, site, database, redis) as running, redis.client() as client:
        running[0].wait_for_details(site, 100)
        client.config_set("maxmemory", "1mb")
        try:
            for one in running:
                one.wait_for("is away (")
        finally:
            client.config_set("maxmemory", 0)
        crawls = [one.end() for one in running]
    assert_finished(*crawls)
    assert_holds_catalogue(database, site)
    for crawl in crawls:
        assert crawl.log.count("is away (") == crawl.log.count("is back after") == 1
        assert "maxmemory" in crawl.log


def test_an_answer_to_an_earlier_walk_counts_for_no_other(
    database: Database, redis: RedisServer
) -> None:
    """A worker leads, another one does for a while, and the first one leads again."""
    with running_site(SMALL) as site, redis.client() as client:
        assert_finished(database.crawl(site.url))
        site.reset()
        site.control(latency=0.5)
        with working(site, database, redis, "-a", "page_size=20") as running:
            wait_for_pages(1, site, running)
            site.control(latency=5)
            wait_for_pages(5, site, running)  # the first has told that there are more
            site.control(latency=0, remove=site.catalogue.ids[:20])  # then fewer pages are open
            prefix = f"books:{database.name}"
            client.zadd(f"{prefix}:workers", {"other": client.time()[0] + 2})
            client.set(f"{prefix}:leader", "other")
            crawl = running.end()
        assert_finished(crawl)
        assert crawl.stats["catalogue/sweeps"] == 1  # the counts of the new walk were right


def wait_for_pages(most: int, site: Site, running: Running) -> None:
    while site.stats()["index"] < most:
        assert running.process.poll() is None


@pytest.mark.parametrize("ends", [False, True], ids=["leads again", "the crawl ends"])
def test_a_walk_whose_pages_wait_is_given_up_with_the_lead(
    database: Database, redis: RedisServer, ends: bool
) -> None:
    with running_site(SMALL) as site, redis.client() as client:
        assert_finished(database.crawl(site.url))
        site.reset()
        site.control(latency=0.5)
        with working(site, database, redis, "-a", "page_size=10") as running:
            wait_for_pages(1, site, running)
            site.control(latency=3)
            wait_for_pages(5, site, running)  # four are in flight, five wait, no more are asked for
            site.control(latency=0)
            prefix = f"books:{database.name}"
            if ends:
                run = str(client.get(f"{prefix}:run")).split()[0]
                how = {"reason": "finished", "expected": SMALL, "missing": 0, "totals": {}}
                client.set(f"{prefix}:ended:{run}", json.dumps(how))
            else:
                client.zadd(f"{prefix}:workers", {"other": client.time()[0] + 2})
                client.set(f"{prefix}:leader", "other")
            assert_finished(running.end())


def test_what_can_not_be_had_makes_each_worker_incomplete(
    small: Site, database: Database, redis: RedisServer
) -> None:
    one = small.catalogue.ids[3]
    small.control(override={f"/api/book/{one}/": {"status": 403}})
    with receiving() as receiver:
        told = ("-s", f"NOTIFY_URLS={receiver.url}")
        with crew(2, small, database, redis, *told) as running:
            crawls = [each.end() for each in running]
    small.control(override={f"/api/book/{one}/": None})
    assert [one["title"] for one in receiver.messages] == ["books: incomplete, 1 of 100 missing"]
    for crawl in crawls:
        assert (crawl.exitcode, crawl.reason) == (1, "incomplete"), crawl.log
        assert crawl.stats["catalogue/missing"] == 1


def test_books_that_vanished_are_not_missing_whoever_asked_for_them(
    small: Site, database: Database, redis: RedisServer
) -> None:
    for one in small.catalogue.ids[:9]:
        small.control(
            override={f"/api/book/{one}/": {"status": 404, "body": '{"detail": "Not found."}'}}
        )
    with crew(2, small, database, redis) as running:
        crawls = [each.end() for each in running]
    for one in small.catalogue.ids[:9]:
        small.control(override={f"/api/book/{one}/": None})
    assert_finished(*crawls)
    assert database.books.count_documents({}) == SMALL - 9
    assert sum(crawl.stats.get("catalogue/vanished", 0) for crawl in crawls) == 9


def test_a_drift_ends_all_workers_before_more_than_twenty_books_lost_a_field(
    small: Site, database: Database, redis: RedisServer
) -> None:
    assert database.crawl(small.url).exitcode == 0
    scored = database.books.count_documents({"score": {"$ne": None}})
    small.control(rename={"score": "rating"}, latency=0.1)
    with crew(2, small, database, redis, "-a", "refresh=all") as running:
        crawls = [each.end() for each in running]
    small.control(rename={})
    for crawl in crawls:
        assert (crawl.exitcode, crawl.reason) == (1, "drift"), crawl.log
    assert database.books.count_documents({"score": {"$ne": None}}) >= scored - MOST_EMPTIED


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"REDIS_URL": "redis://127.0.0.1:1"}, "A shared crawl needs REDIS_URL and CRAWL_ID"),
        ({"CRAWL_ID": "a"}, "A shared crawl needs REDIS_URL and CRAWL_ID"),
        (
            {"REDIS_URL": "redis://:secret@127.0.0.1:1", "CRAWL_ID": "a"},
            "no Redis answers at 127.0.0.1:1",
        ),
        ({"REDIS_URL": "127.0.0.1 secret", "CRAWL_ID": "a"}, "REDIS_URL is not valid"),
        (
            {"REDIS_URL": "redis://localhost:secret/0", "CRAWL_ID": "a"},
            "REDIS_URL is not valid",
        ),
    ],
)
def test_a_redis_that_can_not_be_used_is_one_line(
    small: Site, database: Database, environment: dict[str, str], said: str
) -> None:
    crawl = database.crawl(small.url, **environment)
    assert_is_refused(crawl, said, small)


def test_a_wrong_redis_password_is_one_line(small: Site, database: Database) -> None:
    with running_redis("--requirepass", "right") as redis:
        url = f"unix://:secret@{redis.socket}"
        crawl = database.crawl(small.url, REDIS_URL=url, CRAWL_ID="a")
        assert_is_refused(crawl, "refuses user or password", small)
        crawl = database.crawl(small.url, REDIS_URL=redis.url, CRAWL_ID="a")
        assert_is_refused(crawl, "refuses user or password", small)


def assert_is_refused(crawl: Ended, said: str, site: Site) -> None:
    assert (crawl.exitcode, crawl.reason) == (1, "redis_unavailable"), crawl.log
    (error,) = crawl.lines("ERROR")
    assert said in error
    assert "secret" not in crawl.log
    assert "Traceback" not in crawl.log
    assert site.stats()["requests"] == 0
