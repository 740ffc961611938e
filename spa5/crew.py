"""Crew: the workers of one shared crawl, as they know each other through Redis."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import uuid
from contextlib import suppress
from datetime import datetime
from time import monotonic
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from spa5.documents import now
from spa5.items import brief

if TYPE_CHECKING:
    from collections.abc import Callable

    from scrapy.settings import BaseSettings

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 2.0  # of one round trip
_BEAT_SECONDS = 0.5
_GONE_SECONDS = 5  # without a beat for so long, a worker is taken for dead
_FORGOTTEN_SECONDS = 24 * 3600  # what nobody uses for so long is gone
_MOST_AWAY_SECONDS = 300.0

# KEYS of all scripts: run, leader, workers, busy, totals, requests, dupefilter. `workers` and
# `busy` are sorted sets, scored with the time until which a worker is believed to be so.
_LIVING = f"""
local time = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', time)
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', time)
local worker, run = ARGV[1], ARGV[2]
local believed, forgotten = time + {_GONE_SECONDS}, {_FORGOTTEN_SECONDS}
"""
# Where nobody is alive a new run begins: what a dead one left is in nobody's way.
_JOIN = f"""{_LIVING}
if redis.call('ZCARD', KEYS[3]) == 0 then redis.call('DEL', unpack(KEYS)) end
redis.call('SET', KEYS[1], run, 'NX')
redis.call('ZADD', KEYS[3], believed, worker)
return redis.call('GET', KEYS[1])
"""
# The first worker that finds the leader gone is the next one. Redis may have lost any of it.
_BEAT = f"""{_LIVING}
local end_, busy, totals = ARGV[3], ARGV[4], ARGV[5]
local ended = redis.call('GET', end_)
if ended then return {{'ended', ended}} end
redis.call('SET', KEYS[1], run, 'NX')
local current = redis.call('GET', KEYS[1])
if current ~= run then return {{'other', current}} end
redis.call('ZADD', KEYS[3], believed, worker)
if busy == '1' then redis.call('ZADD', KEYS[4], believed, worker)
else redis.call('ZREM', KEYS[4], worker) end
redis.call('HSET', KEYS[5], worker, totals)
local leader = redis.call('GET', KEYS[2])
if not (leader and redis.call('ZSCORE', KEYS[3], leader)) then
    leader = worker
    redis.call('SET', KEYS[2], leader)
end
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, forgotten) end
return {{
    'going', leader, redis.call('ZCARD', KEYS[3]), redis.call('ZCARD', KEYS[4]),
    redis.call('LLEN', KEYS[6]), redis.call('HVALS', KEYS[5])
}}
"""
_LEAVE = f"""{_LIVING}
redis.call('ZREM', KEYS[3], worker)
redis.call('ZREM', KEYS[4], worker)
"""
_END = f"""{_LIVING}
redis.call('SET', ARGV[3], ARGV[4], 'EX', forgotten)
if redis.call('GET', KEYS[1]) == run then redis.call('DEL', unpack(KEYS)) end
"""
_KEYS = ("run", "leader", "workers", "busy", "totals", "requests", "dupefilter")


class RedisUnavailable(Exception):
    """One line for people: what happened and what to do."""


class Crew:
    """One worker's membership of the shared crawl `crawl_id`.

    With each beat it tells Redis that it lives, whether it is `busy` and what its `totals` are,
    and learns the same of the others. One of them is the leader, who walks the index.
    """

    def __init__(
        self,
        url: str,
        crawl_id: str,
        busy: Callable[[], bool],
        totals: Callable[[], dict[str, int]],
        count: Callable[[str, Any], None],
    ):
        self._redis = client(Redis, url, Retry)
        self.place = place(self._redis)
        self.prefix = f"books:{crawl_id}"
        self._busy = busy
        self._own_totals = totals
        self._count = count  # of stats
        self._worker = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._keys = [self.key(name) for name in _KEYS]
        self._run = f"{uuid.uuid4().hex} {now().isoformat()}"
        self._before: dict[str, int] = {}  # own totals from an earlier run
        self._beating: asyncio.Task[None] | None = None
        self._beaten = asyncio.Event()
        self._hurry = asyncio.Event()
        self._away_since: float | None = None
        self.working = False  # Redis has been told that this worker is busy
        self.leading = False
        self.workers = 1
        self.others_busy = False
        self.waiting = 0  # requests
        self.totals: dict[str, int] = {}  # of all workers
        self.expected = 0  # books
        self.ended: dict[str, Any] | None = None  # how the shared crawl ended

    def key(self, name: str) -> str:
        return f"{self.prefix}:{name}"

    @property
    def away(self) -> bool:
        return self._away_since is not None

    @property
    def began(self) -> datetime:
        """When the first worker began."""
        return datetime.fromisoformat(self._run.split()[1])

    async def join(self, beaten: Callable[[], None]) -> None:
        """Join or begin; `beaten` is called after each beat. `RedisUnavailable` where it fails."""
        try:
            run = await self._script(_JOIN, self._worker, self._run)
        except RedisError as error:
            raise RedisUnavailable(_explain(self.place, error)) from None
        self._run = run.decode()
        await self._beat()
        self._beating = asyncio.create_task(self._beat_on(beaten))

    async def leave(self) -> None:
        """Let the others know; what this worker had queued stays for them."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait([self._beating])
            with suppress(RedisError):  # then they find out by the missing beats
                await self._script(_LEAVE, self._worker, self._run)
        await self._redis.aclose()

    async def end(self, **how: Any) -> None:
        """Tell all that the crawl has ended, and how."""
        self.ended = how
        with suppress(RedisError):
            ended = json.dumps(how)
            await self._script(_END, self._worker, self._run, self._end_key, ended)

    async def next_beat(self) -> None:
        """Return after a beat that begins from now on."""
        await self._beaten.wait()

    async def idle(self) -> None:
        """Return when no request waits and no worker is busy, or when this one leads no more."""
        while self.leading and self.ended is None:
            await self.next_beat()
            if not (self.away or self.working or self.others_busy or self.waiting):
                return

    def hurry(self) -> None:
        """Beat now, for there is something to tell."""
        self._hurry.set()

    def lose(self, error: RedisError) -> None:
        """Note that Redis is away, until a beat succeeds."""
        if self._away_since is None:
            self._away_since = monotonic()
            logger.warning(
                "Redis at %s is away (%s): this worker waits for it, %g s at the most",
                self.place,
                brief(str(error), 200),
                _MOST_AWAY_SECONDS,
            )

    @property
    def has_given_up(self) -> bool:
        since = self._away_since
        return since is not None and monotonic() - since > _MOST_AWAY_SECONDS

    async def _beat_on(self, beaten: Callable[[], None]) -> None:
        try:
            while self.ended is None:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), _BEAT_SECONDS)
                self._hurry.clear()
                begun, self._beaten = self._beaten, asyncio.Event()
                await self._beat()
                beaten()
                begun.set()
        finally:
            self._beaten.set()

    async def _beat(self) -> None:
        """Tell and learn. Whoever is idle says that he is busy before he takes a request."""
        busy = self._busy() or bool(self.waiting)
        totals = json.dumps(self._totals())
        try:
            state, *rest = await self._script(
                _BEAT, self._worker, self._run, self._end_key, int(busy), totals
            )
        except RedisError as error:
            self.lose(error)
            return
        self._back()
        if state == b"going":
            self.working = busy
            self._learn(*rest)
        elif state == b"ended":
            self.ended = json.loads(rest[0])
        else:
            self._run = rest[0].decode()
            self._before = self._own_totals()
        if self.waiting and not self.working:
            self.hurry()

    def _learn(
        self, leader: bytes, workers: int, busy: int, waiting: int, totals: list[bytes]
    ) -> None:
        self.leading = leader.decode() == self._worker
        self.workers = workers
        self.others_busy = busy > self.working
        self.waiting = waiting
        self.totals = {}
        for one in map(json.loads, totals):
            self.expected = max(self.expected, one.pop("books/expected"))
            for name, value in one.items():
                self.totals[name] = self.totals.get(name, 0) + value

    def _totals(self) -> dict[str, int]:
        return {
            name: value - self._before.get(name, 0) for name, value in self._own_totals().items()
        }

    def _back(self) -> None:
        if self._away_since is not None:
            seconds = monotonic() - self._away_since
            self._away_since = None
            self._count("redis/outage_seconds", seconds)
            logger.info("Redis is back after %.1f s", seconds)

    @property
    def _end_key(self) -> str:
        return self.key(f"ended:{self._run.split()[0]}")

    async def _script(self, script: str, *arguments: Any) -> Any:
        self._count("redis/round_trips", 1)
        return await self._redis.eval(script, len(self._keys), *self._keys, *arguments)


def shared(settings: BaseSettings) -> tuple[str, str]:
    """REDIS_URL and CRAWL_ID; `RedisUnavailable` where one of them is not set."""
    url, crawl_id = settings["REDIS_URL"], settings["CRAWL_ID"]
    if not url or not crawl_id:
        raise RedisUnavailable("A shared crawl needs REDIS_URL and CRAWL_ID: set both")
    return url, crawl_id


async def ping(url: str) -> str:
    """The place of a Redis that answers; `RedisUnavailable` where none does."""
    redis = client(Redis, url, Retry)
    try:
        await redis.ping()
    except RedisError as error:
        raise RedisUnavailable(_explain(place(redis), error)) from None
    finally:
        await redis.aclose()
    return place(redis)


def client(kind: Any, url: str, retry: Any) -> Any:
    """A client of Redis that gives up after TIMEOUT_SECONDS, and never sleeps."""
    try:
        return kind.from_url(
            url,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=retry(NoBackoff(), 0),
        )
    except (ValueError, TypeError):  # whose words may quote the password
        raise RedisUnavailable(
            "REDIS_URL is not valid: use redis://user:password@host:6379/0"
        ) from None


def _explain(where: str, error: RedisError) -> str:
    cause = error.__cause__ or error  # on a Unix socket it is wrapped
    if isinstance(cause, (AuthenticationError, NoPermissionError)):
        return f"Redis at {where} refuses user or password: check REDIS_URL"
    return f"no Redis answers at {where} ({brief(str(error), 100)}): start it, or check REDIS_URL"


def place(redis: Any) -> str:
    """Where it is, for people: no credentials in it."""
    options = redis.connection_pool.connection_kwargs
    if "path" in options:
        return str(options["path"])
    return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
