"""Retry: a read or a write waits while MongoDB is away."""

from __future__ import annotations

import asyncio
import random
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from pymongo.errors import PyMongoError

from spa5.catalogue.outage import Outage
from spa5.mongo.errors import StoreError, is_passing, reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from spa5.mongo.connection import Connection

T = TypeVar("T")

_FIRST_PAUSE_SECONDS = 0.05
_MOST_PAUSE_SECONDS = 5.0


class Retry:
    """Repeats reads and writes while MongoDB is away, each for `most_seconds` at the most.

    After that it raises `StoreError`, and tries nothing any more. What waiting does not mend is
    raised at once.
    """

    def __init__(
        self, connection: Connection, most_seconds: float, count: Callable[[str, Any], None]
    ):
        self._connection = connection
        self._count = count  # of stats
        self._outage = Outage("MongoDB", "mongo", most_seconds, count)
        self._waiting = 0  # reads and writes that are being repeated
        self._given_up: StoreError | None = None

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return what `work` returns."""
        try:
            result = await self._try(work)
        except PyMongoError as error:
            self._waiting += 1
            try:
                result = await self._repeat(work, error)
            finally:
                self._waiting -= 1
        if not self._waiting:  # those who wait still find MongoDB away
            self._outage.worked()
        return result

    async def _try(self, work: Callable[[], Awaitable[T]]) -> T:
        if self._given_up:
            raise self._given_up
        return await work()

    async def _repeat(self, work: Callable[[], Awaitable[T]], error: PyMongoError) -> T:
        """Try after pauses that double."""
        began, pause = monotonic(), _FIRST_PAUSE_SECONDS
        while True:
            self._failed(error, monotonic() - began)
            self._count("mongo/retries", 1)
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, _MOST_PAUSE_SECONDS)
            await self._connection.restart_server()
            try:
                return await self._try(work)
            except PyMongoError as again:
                error = again

    def _failed(self, error: PyMongoError, seconds: float) -> None:
        """Note a failure; raise it where waiting does not help, `StoreError` where it is over."""
        if self._given_up:
            raise self._given_up
        if not is_passing(error):
            raise error
        where = f"MongoDB at {self._connection.place}"
        self._outage.failed(f"{where} is away ({reason(error)}): the crawl waits for it")
        if seconds >= self._outage.most_seconds:
            self._outage.give_up()
            self._given_up = StoreError(
                f"{where} stayed away for {self._outage.most_seconds:g} s: see to it, and run "
                f"the crawl again"
            )
            raise self._given_up
