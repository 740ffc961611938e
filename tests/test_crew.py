"""Workers without a crawl: what they tell each other through a real Redis, and believe of it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest
from scrapy.crawler import Crawler
from scrapy.utils.project import get_project_settings

from spa5.catalogue.item import schema_of
from spa5.crew import wire
from spa5.crew.crew import Crew
from spa5.crew.link import Link
from spa5.crew.mail import Mail
from spa5.crew.scheduler import Scheduler
from spa5.crew.server import RedisUnavailable
from spa5.items import Book
from spa5.spiders.books import BooksSpider
from tests.helpers.redises import RedisServer, needs_redis, running_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator

    from redis import Redis

    from spa5.catalogue.item import Key

MOST_SECONDS = 120  # then a test hangs
BOOK = schema_of(Book)
SCOPE, OTHER_SCOPE = "0" * 16, "1" * 16


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running_redis() as redis:
        yield redis


@pytest.fixture
def redis(server: RedisServer) -> Iterator[Redis]:
    with server.client() as client:
        client.config_set("maxmemory", 0)
        client.flushall()
        yield client


def unpack(raw: str) -> tuple[Any, dict[str, Any]]:
    return wire.unpack_request(raw.encode(), BOOK.listed, BOOK.kind.clean)


class Worker:
    """One that has joined; a test does its work."""

    def __init__(self, server: RedisServer, prefix: str = "books:a", scope: str = SCOPE) -> None:
        self.stats: Counter[str] = Counter()
        self.beaten = asyncio.Event()
        self.busy = False
        self.totals: dict[str, int] = {}
        self.heard: list[tuple[str, str, str]] = []
        self.mail = Mail(BOOK, lambda: self.totals, self.count)
        link = Link(server.url, prefix, scope, self.count)
        self.crew = Crew(link, self.mail, lambda: self.busy)

    def count(self, stat: str, by: Any) -> None:
        self.stats[stat] += by

    def listen(self) -> None:
        self.crew.heard = lambda *outcome: self.heard.append(outcome)

    async def join(self) -> None:
        await self.crew.join(self.beaten.set)

    async def beat(self) -> None:
        """Return after a beat that begins from now on, or after a failure."""
        next_one = self.crew.beats._next
        self.crew.beats.hurry()
        while not (next_one.is_set() or self.crew.beats.failure):
            self.beaten.clear()
            await self.beaten.wait()

    async def take(self, most: int = 100) -> list[Key]:
        """The ids that it gets."""
        self.crew.want(most)
        await self.crew.beats.next()
        ids = [one for one, _ in self.mail.taken]
        self.mail.taken.clear()
        return ids

    async def fail(self) -> str:
        """Why it can't go on."""
        while self.crew.beats.failure is None:
            await self.beat()
        return self.crew.beats.failure


@asynccontextmanager
async def crew(server: RedisServer, workers: int) -> AsyncIterator[list[Worker]]:
    """The first of them leads."""
    async with AsyncExitStack() as stack:
        all_of_them = []
        for _ in range(workers):
            worker = Worker(server)
            stack.push_async_callback(worker.crew.leave)
            await worker.join()
            all_of_them.append(worker)
        all_of_them[0].listen()
        yield all_of_them


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, MOST_SECONDS))


pytestmark = needs_redis


def test_the_leader_hears_what_the_others_tell(server: RedisServer, redis: Redis) -> None:
    async def scenario() -> None:
        async with crew(server, 2) as (leader, other):
            assert (leader.crew.leading, other.crew.leading) == (True, False)
            other.crew.tell("1", "done")
            other.crew.tell("2", "failed", "status 500\nagain")
            leader.crew.tell("3", "gone")
            await other.beat()  # a worker that has to tell is busy, and so the leader is not idle
            await leader.crew.idle()
            told = [("3", "gone", ""), ("1", "done", ""), ("2", "failed", "status 500 again")]
            assert leader.heard == told

    run(scenario())


def test_many_outcomes_are_heard_before_the_leader_is_idle(
    server: RedisServer, redis: Redis
) -> None:
    async def scenario() -> None:
        async with crew(server, 2) as (leader, other):
            for one in range(20_000):
                other.crew.tell(str(one), "done")
            await other.beat()
            await leader.crew.idle()
            assert [one for one, _, _ in leader.heard] == [str(one) for one in range(20_000)]

    run(scenario())


def test_outcomes_wait_until_the_leader_listens(server: RedisServer, redis: Redis) -> None:
    async def scenario() -> None:
        async with crew(server, 2) as (leader, other):
            leader.crew.heard = None
            other.crew.tell("1", "gone")
            while other.mail.outcomes:
                await other.crew.beats.next()
            leader.crew.tell("2", "gone")
            leader.listen()
            await leader.crew.idle()
            assert sorted(leader.heard) == [("1", "gone", ""), ("2", "gone", "")]

    run(scenario())


def test_outcomes_survive_an_outage(redis: Redis) -> None:
    async def scenario() -> None:
        with running_redis() as server:
            async with crew(server, 2) as workers:
                server.stop()
                for one, worker in enumerate(workers):
                    while not worker.crew.outage.is_on:
                        await worker.beat()
                    worker.crew.tell(str(one), "gone")
                server.start()
                for worker in workers:
                    worker.listen()
                    while worker.crew.outage.is_on:
                        await worker.beat()
                (leader,) = [worker for worker in workers if worker.crew.leading]
                await leader.crew.idle()
                heard = sorted(outcome for worker in workers for outcome in worker.heard)
                assert heard == [("0", "gone", ""), ("1", "gone", "")]

    run(scenario())


def test_a_new_leader_hears_what_the_old_one_has_not(server: RedisServer, redis: Redis) -> None:
    async def scenario() -> None:
        async with crew(server, 2) as (leader, other):
            leader.crew.heard = None
            other.crew.tell("1", "gone")
            while other.mail.outcomes:
                await other.crew.beats.next()
            await leader.crew.leave()
            other.listen()
            while not other.crew.leading:
                await other.crew.beats.next()
            await other.crew.idle()
            assert other.heard == [("1", "gone", "")]

    run(scenario())


def test_the_leader_is_not_idle_while_another_works(server: RedisServer, redis: Redis) -> None:
    async def scenario() -> None:
        async with crew(server, 2) as (leader, other):
            leader.crew.share("1", {}, once=True)
            await leader.crew.beats.next()
            other.busy = True
            assert await other.take() == ["1"]
            idle = asyncio.ensure_future(leader.crew.idle())
            for _ in range(5):
                await leader.beat()
            assert not idle.done()
            other.busy = False
            await idle

    run(scenario())


def test_a_request_is_shared_out_once(server: RedisServer, redis: Redis) -> None:
    async def scenario() -> None:
        async with crew(server, 2) as (leader, other):
            for one in ("1", "2", "1"):
                leader.crew.share(one, {}, once=True)
            leader.crew.share("2", {}, once=False)
            await leader.crew.beats.next()
            assert await other.take(most=1) + await leader.take() == ["1", "2"]
            assert await other.take() == ["2"]
            assert leader.stats["dupefilter/filtered"] == 1

    run(scenario())


def test_workers_take_their_share_of_what_waits(server: RedisServer, redis: Redis) -> None:
    async def scenario() -> None:
        async with crew(server, 3) as workers:
            for one in range(9):
                workers[0].crew.share(str(one), {}, once=True)
            await workers[0].crew.beats.next()
            assert [len(await worker.take()) for worker in workers] == [3, 2, 2]

    run(scenario())


def test_who_finds_no_request_pauses_before_the_next_beat(
    server: RedisServer, redis: Redis
) -> None:
    async def scenario() -> None:
        async with crew(server, 1) as (worker,):
            began = monotonic()
            for _ in range(20):
                assert await worker.take() == []
            assert monotonic() - began > 0.9

    run(scenario())


def test_who_leaves_gives_back_what_he_took(server: RedisServer, redis: Redis) -> None:
    async def scenario() -> None:
        async with crew(server, 2) as (leader, other):
            leader.crew.share("1", {"name": "one"}, once=True)
            await leader.crew.beats.next()
            other.crew.want(1)
            await other.crew.beats.next()
            other.mail.give_back()
            await other.crew.leave()
            leader.crew.want(1)
            await leader.crew.beats.next()
            assert list(leader.mail.taken) == [("1", {"name": "one"})]

    run(scenario())


def test_only_the_leader_ends_the_crawl(server: RedisServer, redis: Redis) -> None:
    async def scenario() -> None:
        async with crew(server, 2) as (leader, other):
            leader.totals = {"mongo/inserted": 3, "catalogue/expected": 4}
            other.totals = {"mongo/inserted": 1}
            await leader.beat()
            await other.beat()
            await leader.beat()
            assert not await other.crew.end("finished", 1, 0)
            assert await leader.crew.end("incomplete", 4, None)
            await other.beat()
            assert other.crew.ended
            assert other.crew.ended["reason"] == "incomplete"
            assert (other.crew.ended["expected"], other.crew.ended["missing"]) == (4, None)
            assert other.mail.totals == leader.mail.totals == {"mongo/inserted": 4}

    run(scenario())


def test_scripts_are_sent_once_and_again_when_redis_forgot_them(
    server: RedisServer, redis: Redis
) -> None:
    redis.script_flush()
    redis.config_resetstat()

    async def scenario() -> None:
        async with crew(server, 1) as (worker,):
            for _ in range(10):
                await worker.beat()
            loads = redis.info("commandstats")["cmdstat_script|load"]["calls"]
            assert loads == 2  # to join, and to beat
            redis.script_flush()
            await worker.beat()
            assert not worker.crew.outage.is_on
            calls = redis.info("commandstats")
            assert calls["cmdstat_script|load"]["calls"] == 3
            assert "cmdstat_eval" not in calls

    run(scenario())


# Redis is full.


def test_a_full_redis_is_one_outage(
    server: RedisServer,
    redis: Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        async with crew(server, 2) as (leader, other):
            redis.config_set("maxmemory", 1)
            leader.crew.share("1", {}, once=True)
            for worker in (leader, other):
                worker.crew.outage.steady_seconds = MOST_SECONDS  # however slow the beats are
                while not worker.crew.outage.is_on:
                    await worker.beat()
            for _ in range(5):  # it comes and goes
                redis.config_set("maxmemory", 0)
                await leader.beat()
                redis.config_set("maxmemory", 1)
                await leader.beat()
            assert redis.zcard("books:a:workers") > 0
            redis.config_set("maxmemory", 0)
            for worker in (leader, other):
                while worker.crew.outage.is_on:
                    await worker.beat()
            assert await leader.take() + await other.take() == ["1"]

    run(scenario())
    said = [record.message for record in caplog.records]
    assert sum("is away (" in line and "maxmemory" in line for line in said) == 2
    assert sum("is back after" in line for line in said) == 2


@pytest.mark.parametrize("comes_and_goes", [False, True])
def test_a_redis_that_stays_full_ends_the_worker(
    server: RedisServer, redis: Redis, comes_and_goes: bool
) -> None:
    async def scenario() -> None:
        async with crew(server, 1) as (worker,):
            worker.crew.outage.most_seconds = 1
            redis.config_set("maxmemory", 1)
            while worker.crew.beats.failure is None:
                if comes_and_goes:
                    redis.config_set("maxmemory", 0)
                    await worker.beat()
                    redis.config_set("maxmemory", 1)
                await worker.beat()
            assert "stayed away" in worker.crew.beats.failure

    run(scenario())


# Nothing in Redis is trusted.

GARBAGE = [
    b"\xff\xfe\x00",
    b"",
    b"{",
    b"null",
    b"3",
    b'"text"',
    b"[1]",
    b"[" * 100_000,
    b'{"mongo/inserted": "3"}',
    b'{"mongo/inserted": -3}',
    b'{"mongo/inserted": 1.5}',
    b"[[1, 2, 3, 4]]",
    b'[["1", "stored", ""]]',
    b"9" * 5_000,
    b"x" * (wire.MOST_BYTES + 1),
]


def test_garbage_is_dropped_counted_and_told_once(
    server: RedisServer, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with crew(server, 1) as (worker,):
            redis.rpush("books:a:requests", *GARBAGE)
            redis.rpush("books:a:told", *GARBAGE)
            worker.totals = {"mongo/inserted": 1}
            while len(worker.heard) + redis.llen("books:a:told") > 0:
                await worker.beat()
            assert [await worker.take(1) for _ in GARBAGE] == [[]] * len(GARBAGE)
            assert worker.stats["redis/refused"] == 2 * len(GARBAGE)
            for one, garbage in enumerate(GARBAGE):
                redis.hset("books:a:totals", str(one), garbage)
            await worker.beat()
            assert worker.mail.totals == {"mongo/inserted": 1}
            worker.crew.share("1", {}, once=True)
            await worker.crew.beats.next()
            assert await worker.take() == ["1"]
            assert worker.crew.beats.failure is None

    run(scenario())
    (said,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "no worker of this crawl wrote" in said
    assert len(said) < 300


REQUESTS = [
    '["1", {}, 3]',
    '["1"]',
    '["1", []]',
    '["../x", {}]',
    '["1", {"proxy": "http://127.0.0.1:1"}]',
    '[{"$gt": ""}, {}]',
    '{"url": "http://x/api/book/1/", "method": "DELETE", "callback": "close", "_class": "os.x"}',
]


@pytest.mark.parametrize("raw", REQUESTS)
def test_a_request_is_an_id_and_the_known_fields(raw: str) -> None:
    with pytest.raises(wire.Refused):
        unpack(raw)


def test_a_request_reads_back_as_it_was_shared() -> None:
    listed = {"name": "三体\ud800", "authors": [None, {"a": 1e400}], "score": "9.1"}
    assert unpack(wire.pack_request("1", listed)) == ("1", listed)
    huge = {"name": "x" * wire.MOST_BYTES}
    assert unpack(wire.pack_request("1", huge)) == ("1", {})


@pytest.mark.parametrize("garbage", [*GARBAGE, b'{"reason": "finished"}'])
def test_a_worker_ends_where_the_end_is_garbage(
    server: RedisServer, redis: Redis, garbage: bytes
) -> None:
    async def scenario() -> None:
        async with crew(server, 1) as (worker,):
            run = str(redis.get("books:a:run")).split()[0]
            redis.set(f"books:a:ended:{run}", garbage)
            assert "use another CRAWL_ID" in await worker.fail()

    run(scenario())


@pytest.mark.parametrize("garbage", [b"\xff", b"", b"x", b"0" * 32 + b" now " + b"0" * 16])
def test_a_worker_ends_where_the_run_is_garbage(
    server: RedisServer, redis: Redis, garbage: bytes
) -> None:
    async def scenario() -> None:
        async with crew(server, 1) as (worker,):
            redis.set("books:a:run", garbage)
            assert "use another CRAWL_ID" in await worker.fail()

    run(scenario())


@pytest.mark.parametrize(
    "name", ["run", "leader", "workers", "busy", "totals", "requests", "asked", "told"]
)
def test_a_worker_ends_where_a_key_is_somebody_elses(
    server: RedisServer, redis: Redis, name: str
) -> None:
    async def scenario() -> None:
        async with crew(server, 1) as (worker,):
            key = f"books:a:{name}"
            redis.delete(key)
            redis.xadd(key, {"a": "b"})
            worker.busy = name == "busy"
            worker.crew.share("1", {}, once=True)
            assert "holds other things" in await worker.fail()

    run(scenario())


def test_scores_that_no_worker_sets_hinder_nobody(server: RedisServer, redis: Redis) -> None:
    async def scenario() -> None:
        async with crew(server, 1) as (worker,):
            redis.zadd("books:a:workers", {"x": float("inf")})
            redis.zadd("books:a:busy", {"x": float("inf"), "y": 1e12})
            redis.set("books:a:leader", "x")
            while not worker.crew.leading:
                await worker.beat()
            await worker.crew.idle()

    run(scenario())


def test_a_beat_that_fails_for_any_reason_ends_the_worker(
    server: RedisServer, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    def break_down(*outcome: Any) -> None:
        raise KeyError(outcome)

    async def scenario() -> None:
        async with crew(server, 2) as (leader, other):
            leader.crew.heard = break_down
            other.crew.tell("1", "done")
            assert "see above" in await leader.fail()

    run(scenario())
    assert "A beat failed" in caplog.text


# Crawls that must not meet.


async def join(server: RedisServer, *workers: Worker) -> None:
    async with AsyncExitStack() as stack:
        for worker in workers:
            stack.push_async_callback(worker.crew.leave)
            await worker.join()


def test_two_spiders_with_one_crawl_id_do_not_meet(server: RedisServer, redis: Redis) -> None:
    workers = Worker(server, "books:a"), Worker(server, "movies:a")
    run(join(server, *workers))
    assert all(worker.crew.leading for worker in workers)


def test_crawls_of_two_sites_with_one_crawl_id_do_not_meet(
    server: RedisServer, redis: Redis
) -> None:
    workers = Worker(server), Worker(server, scope=OTHER_SCOPE)
    with pytest.raises(RedisUnavailable, match="use another CRAWL_ID"):
        run(join(server, *workers))


def test_a_worker_of_an_older_version_is_not_met(server: RedisServer, redis: Redis) -> None:
    redis.zadd("books:a:workers", {"old": redis.time()[0] + 5})
    redis.set("books:a:run", f"{'0' * 32} 2026-01-01T00:00:00+00:00")
    with pytest.raises(RedisUnavailable, match="use another CRAWL_ID"):
        run(join(server, Worker(server)))


def test_whatever_was_told_reads_back() -> None:
    told = [("1", "done", ""), ("20", "failed", "status 500")]
    assert wire.unpack_outcomes(json.dumps(told).encode(), BOOK.kind.clean) == told


def test_workers_that_store_in_the_same_place_work_together_however_it_was_named() -> None:
    def scope(**settings: str) -> str:
        wanted = get_project_settings()
        wanted.setdict(settings, priority="cmdline")
        crawler = Crawler(BooksSpider, wanted)
        scheduler = Scheduler(crawler)
        scheduler.open(BooksSpider.from_crawler(crawler))
        return scheduler._scope()

    assert scope() == scope(MONGO_DATABASE="books", MONGO_COLLECTION="books")
    assert len({scope(), scope(MONGO_DATABASE="a"), scope(MONGO_COLLECTION="a")}) == 3
