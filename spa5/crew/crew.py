"""Crew: the workers of one shared crawl, as one of them knows the others through Redis."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import uuid
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import RedisError

from spa5.catalogue.fields import now
from spa5.catalogue.outage import Outage
from spa5.catalogue.text import one_line
from spa5.crew import scripts, wire
from spa5.crew.server import RedisUnavailable, client, explain, is_of_others, place

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.commands.core import AsyncScript

    from spa5.catalogue.item import Key
    from spa5.crew.mail import Mail

logger = logging.getLogger(__name__)

_BEAT_SECONDS = 0.5
_POLL_SECONDS = 0.05  # between beats that find no request though one is wanted
_AWAY_SECONDS = 300.0  # the most that Redis is waited for
_STEADY_SECONDS = 5.0  # so long Redis must work until a failure counts as a new outage


class Learned(NamedTuple):
    """What a beat tells of the others."""

    leads: int
    workers: int
    others_busy: int
    waiting: int  # requests
    told: int  # batches of outcomes that the leader has not heard
    known: int  # of the requests sent
    taken: list[bytes]
    heard: list[bytes]
    totals: list[bytes]


class Crew:
    """One worker's membership of a shared crawl, whose keys begin with `prefix`.

    With each beat it tells Redis that it lives, whether it is busy, what its totals are and what
    `mail` has to send, and learns the same of the others. One of them is the leader, who walks the
    index; it gets to `heard` what became of the requests, wherever they were taken. `scope` is a
    hash of what is crawled, as 16 hexadecimal digits: only workers of the same scope work together.
    """

    def __init__(
        self,
        url: str,
        prefix: str,
        scope: str,
        mail: Mail,
        is_busy: Callable[[], bool],
        totals: Callable[[], dict[str, int]],
        count: Callable[[str, Any], None],
    ):
        self._redis = client(url)
        # Redis gets them whole only if it does not know them.
        self._join, self._tell, self._end = map(
            self._redis.register_script, (scripts.JOIN, scripts.BEAT, scripts.END)
        )
        self.place = place(self._redis)
        self.outage = Outage("Redis", "redis", _AWAY_SECONDS, count, steady_seconds=_STEADY_SECONDS)
        self.mail = mail
        self._prefix = prefix
        self._scope = scope
        self._works = is_busy
        self._own_totals = totals
        self._count = count  # of stats
        self._worker = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._keys = [f"{prefix}:{name}" for name in scripts.KEYS]
        self._run = f"{uuid.uuid4().hex} {now().isoformat()} {scope}"
        self._before: dict[str, int] = {}  # own totals from an earlier run
        self._beating: asyncio.Task[None] | None = None
        self._beaten = asyncio.Event()
        self._hurry = asyncio.Event()
        self._leaving = asyncio.Event()
        self._beat_at = self._sure_from = monotonic()
        self._others = Learned(0, 1, 0, 0, 0, 0, [], [], [])
        self.heard: Callable[[Key, str, str], object] | None = None
        self.totals: dict[str, int] = {}  # of all workers
        self.expected = 0  # items
        self.ended: dict[str, Any] | None = None  # how the shared crawl ended
        self.failure: str | None = None  # one line: why this worker can't go on

    @property
    def leading(self) -> bool:
        return bool(self._others.leads)

    @property
    def workers(self) -> int:
        return self._others.workers

    @property
    def waiting(self) -> int:
        """Requests that no worker has taken."""
        return self._others.waiting

    async def join(self, beaten: Callable[[], None]) -> None:
        """Join or begin; `beaten` is called after each beat. `RedisUnavailable` where it fails."""
        try:
            run = await self._call(self._join, self._worker, self._run, self._scope)
        except RedisError as error:
            raise RedisUnavailable(explain(self.place, error)) from None
        self._enter(run)
        await self._beat()
        self._beating = asyncio.create_task(self._beat_on(beaten))

    async def leave(self) -> None:
        """Let the others know, and give them what is not done."""
        if self._beating is not None:
            self._leaving.set()
            self._hurry.set()
            await self._beating  # not cancelled: what it takes would be lost
            if not (self.ended or self.failure or self.outage.is_on):
                with suppress(RedisUnavailable):  # then they find out by the missing beats
                    await self._beat(leaves=True)
        self.outage.end()
        await self._redis.aclose()

    async def end(self, reason: str, expected: int | None, missing: int | None) -> bool:
        """Tell all that the crawl has ended; False if this worker turns out not to lead."""
        how = {"reason": reason, "expected": expected, "missing": missing, "totals": self.totals}
        try:
            ended = await self._call(
                self._end, self._worker, self._run, self._run_key("ended"), wire.pack(how)
            )
        except RedisError:
            ended = True  # as far as this worker can tell
        if ended:
            self.ended = how
        else:
            self._others = self._others._replace(leads=0)
        return bool(ended)

    async def count_emptied(self, field: str) -> int:
        """Count one more document that loses this field, and return how many did in all workers.

        Where Redis can't tell, that is more than any crawl holds.
        """
        self._count("redis/round_trips", 1)
        counting = self._redis.pipeline()
        key = self._run_key("emptied")
        counting.hincrby(key, field, 1)
        counting.expire(key, scripts.FORGOTTEN_SECONDS)
        try:
            return int((await counting.execute())[0])
        except RedisError:
            return sys.maxsize

    def tell(self, one: Key, outcome: str, reason: str = "") -> None:
        """Tell the leader what became of item `one`; `outcome` is one of `wire.OUTCOMES`."""
        told = wire.outcome(self.mail.clean, one, outcome, reason)
        if self.leading and self.heard:
            self.heard(*told)
        else:
            self.mail.outcomes.append(told)

    def share(self, one: Key, listed: dict[str, Any], once: bool) -> None:
        """Let any worker ask for the detail of item `one`; `once`: if none has been asked to."""
        self.mail.share(one, listed, once)
        self._hurry.set()

    def want(self, requests: int) -> None:
        """Take so many with the next beat, which is at once if some are known to wait."""
        self.mail.wanted = requests
        if self.waiting or monotonic() - self._beat_at > _POLL_SECONDS:
            self._hurry.set()

    async def next_beat(self) -> None:
        """Return after a beat that begins from now on; never, after a failure."""
        await self._beaten.wait()

    async def idle(self) -> None:
        """Return when this worker leads no more, or when all is done and the leader knows it.

        That is when no request waits, no worker is busy, and no outcome is on its way.
        """
        while self.leading and self.ended is None:
            await self.next_beat()
            others = self._others
            if not (
                self.outage.is_on
                or self._is_busy()
                or others.others_busy
                or others.waiting
                or others.told
                or monotonic() < self._sure_from
            ):
                return

    def _is_busy(self) -> bool:
        return bool(self._works() or self.mail.taken or self.mail.has_to_send)

    async def _beat_on(self, beaten: Callable[[], None]) -> None:
        try:
            while True:
                await self._pause()
                if self.ended or self._leaving.is_set():
                    break
                begun, self._beaten = self._beaten, asyncio.Event()
                await self._beat()
                beaten()
                begun.set()
        except RedisUnavailable as error:
            self.failure = str(error)
        except Exception:
            logger.exception("A beat failed")
            self.failure = f"What Redis at {self.place} holds can't be worked with: see above"
        if self.failure:
            beaten()
        elif self.ended:
            self._beaten.set()

    async def _pause(self) -> None:
        """Wait for the next beat. While Redis is away nothing but the end makes it come sooner."""
        event, seconds = self._hurry, _POLL_SECONDS if self.mail.wanted else _BEAT_SECONDS
        if self.outage.is_on:
            event, seconds = self._leaving, _BEAT_SECONDS
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(event.wait(), seconds)
        self._hurry.clear()

    async def _beat(self, leaves: bool = False) -> None:
        """Tell and learn; `RedisUnavailable` if to wait and try again would not help."""
        self._beat_at = monotonic()
        sent = self.mail.outgoing(everything=leaves)
        flags = [int(self._is_busy()), int(self.leading and self.heard is not None), int(leaves)]
        outcomes = wire.pack(sent.outcomes) if sent.outcomes else ""
        requests = [part for request in sent.requests for part in request]
        told = [*flags, sent.wanted, wire.pack(self._totals()), outcomes, *requests]
        try:
            reply = await self._call(
                self._tell, self._worker, self._run, self._run_key("ended"), *told
            )
        except RedisError as error:
            self._lose(error)
            return
        if self.outage.is_on:  # the others may need a beat more to be heard of
            self._sure_from = monotonic() + 2 * _BEAT_SECONDS
        self.outage.worked()
        match reply:
            case [b"going", *rest]:
                self._others = Learned(*rest)
                self.mail.sent(sent, self._others.known)
                self._learn(self._others)
            case [b"ended", how]:
                self._hear_the_end(how)
            case [_, run]:
                self._enter(run)
        if (sent.requests or sent.outcomes) and (self.mail.has_to_send or not self._is_busy()):
            self._hurry.set()

    def _learn(self, others: Learned) -> None:
        believe = self.mail.believe
        self.mail.take(others.taken)
        if others.heard and others.told:
            self._hurry.set()
        for batch in others.heard:
            for outcome in believe(wire.unpack_outcomes, batch, self.mail.clean) or ():
                assert self.heard
                self.heard(*outcome)
        self.totals = {}
        for raw in others.totals:
            totals = believe(wire.unpack_totals, raw) or {}
            self.expected = max(self.expected, totals.pop("catalogue/expected", 0))
            for name, value in totals.items():
                self.totals[name] = self.totals.get(name, 0) + value

    def _hear_the_end(self, how: bytes) -> None:
        try:
            ended = wire.unpack_ended(how)
        except wire.Refused:
            raise RedisUnavailable(self._foreign("how this crawl ended")) from None
        self.totals = ended["totals"]
        self.ended = ended

    def _enter(self, run: bytes) -> None:
        """Work for this run from now on, if it is of the same scope."""
        try:
            name = wire.unpack_run(run)
        except wire.Refused:
            raise RedisUnavailable(self._foreign("the name of this crawl")) from None
        if not name.endswith(self._scope):
            raise RedisUnavailable(
                f"{self._prefix} at Redis {self.place} is a crawl of another site, into another "
                "database or collection, or by another version: use another CRAWL_ID"
            )
        if name != self._run:
            self._run = name
            self._before = self._own_totals()
            self._others = self._others._replace(leads=0)
            self._hurry.set()

    def _foreign(self, what: str) -> str:
        return (
            f"Redis at {self.place} holds something else than {what} under {self._prefix}: "
            "another program or version uses it, so use another CRAWL_ID"
        )

    def _lose(self, error: RedisError) -> None:
        if is_of_others(error):
            raise RedisUnavailable(explain(self.place, error)) from None
        said = one_line(str(error).partition(" script: ")[0])
        self.outage.failed(f"Redis at {self.place} is away ({said}): this worker waits for it")
        if self.outage.left <= 0:
            self.outage.give_up()
            raise RedisUnavailable(
                f"Redis at {self.place} stayed away: see to it, and crawl again"
            ) from None

    def _totals(self) -> dict[str, int]:
        own, before = self._own_totals(), self._before
        return {name: max(0, value - before.get(name, 0)) for name, value in own.items()}

    def _run_key(self, name: str) -> str:
        """A key that outlives its run for the workers that have not heard of the end."""
        return f"{self._prefix}:{name}:{self._run.split()[0]}"

    async def _call(self, script: AsyncScript, *arguments: Any) -> Any:
        self._count("redis/round_trips", 1)
        return await script(keys=self._keys, args=arguments)
