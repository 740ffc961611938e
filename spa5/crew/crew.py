"""Crew: the workers of one shared crawl, as one of them knows the others through Redis."""

from __future__ import annotations

from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from spa5.catalogue.outage import Outage
from spa5.catalogue.text import one_line
from spa5.crew import beats, wire
from spa5.crew.beats import Beats
from spa5.crew.link import Learned, Link
from spa5.crew.server import RedisUnavailable, explain, is_of_others

if TYPE_CHECKING:
    from collections.abc import Callable

    from spa5.catalogue.item import Key
    from spa5.crew.mail import Mail


_AWAY_SECONDS = 300.0  # the most that Redis is waited for
_STEADY_SECONDS = 5.0  # so long Redis must work until a failure counts as a new outage


class Crew:
    """One worker's membership of a shared crawl.

    With each beat it tells Redis that it lives, whether it is busy and what `mail` has to send, and
    learns the same of the others. One of them is the leader, who walks the index; it gets to
    `heard` what became of the requests, wherever they were taken.
    """

    def __init__(self, link: Link, mail: Mail, is_busy: Callable[[], bool]):
        self.link = link
        self.mail = mail
        count = link.count
        self.outage = Outage("Redis", "redis", _AWAY_SECONDS, count, steady_seconds=_STEADY_SECONDS)
        self.beats = Beats(self)
        self._works = is_busy
        self.others = Learned()  # by the latest beat
        self._sure_from = 0.0
        self.heard: Callable[[Key, str, str], object] | None = None
        self.ended: dict[str, Any] | None = None  # how the shared crawl ended

    @property
    def leading(self) -> bool:
        return bool(self.others.leads)

    async def join(self, beaten: Callable[[], None]) -> None:
        """Join or begin; `beaten` is called after each beat. `RedisUnavailable` where it fails."""
        if await self.link.join():
            self._begin_anew()
        await self.beat()
        self.beats.start(beaten)

    async def leave(self) -> None:
        """Let the others know, and give them what is not done."""
        has_joined = await self.beats.stop()
        if has_joined and not (self.ended or self.beats.failure or self.outage.is_on):
            with suppress(RedisUnavailable):  # then they find out by the missing beats
                await self.beat(leaves=True)
        self.outage.end()
        await self.link.close()

    async def end(self, reason: str, expected: int | None, missing: int | None) -> bool:
        """Tell all that the crawl has ended; False if this worker turns out not to lead."""
        totals = self.mail.totals
        how = {"reason": reason, "expected": expected, "missing": missing, "totals": totals}
        has_ended = await self.link.end(how)
        if has_ended:
            self.ended = how
        else:
            self.others = self.others._replace(leads=0)
        return has_ended

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
        self.beats.hurry()

    def want(self, requests: int) -> None:
        """Take so many with the next beat, which is at once if some are known to wait."""
        self.mail.wanted = requests
        if self.others.waiting or monotonic() - self.beats.began_at > beats.POLL_SECONDS:
            self.beats.hurry()

    async def idle(self) -> None:
        """Return when this worker leads no more, or when all is done and the leader knows it.

        That is when no request waits, no worker is busy, and no outcome is on its way.
        """
        while self.leading and self.ended is None:
            await self.beats.next()
            others = self.others
            is_sure = not self.outage.is_on and monotonic() >= self._sure_from
            is_left = others.others_busy or others.waiting or others.told or self._is_busy()
            if is_sure and not is_left:
                return

    async def beat(self, leaves: bool = False) -> None:
        """Tell and learn; `RedisUnavailable` if to wait and try again would not help."""
        sent = self.mail.outgoing(everything=leaves)
        flags = [int(self._is_busy()), int(self.leading and self.heard is not None), int(leaves)]
        try:
            answer = await self.link.beat(*flags, *sent.packed())
        except RedisError as error:
            self._lose(error)
            return
        if self.outage.is_on:  # the others may need a beat more to be heard of
            self._sure_from = monotonic() + 2 * beats.SECONDS
        self.outage.worked()
        if answer is None:
            self._begin_anew()
        elif isinstance(answer, Learned):
            self.mail.sent(sent, answer.known)
            self._learn(answer)
        else:
            self.ended = answer
            self.mail.totals = answer["totals"]
        if (sent.requests or sent.outcomes) and (self.mail.has_to_send or not self._is_busy()):
            self.beats.hurry()

    def _is_busy(self) -> bool:
        return bool(self._works() or self.mail.taken or self.mail.has_to_send)

    def _learn(self, others: Learned) -> None:
        self.others = others
        self.mail.take(others.taken)
        if others.heard and others.told:
            self.beats.hurry()
        for outcome in self.mail.read_outcomes(others.heard):
            assert self.heard
            self.heard(*outcome)
        self.mail.add_up(others.totals)

    def _begin_anew(self) -> None:
        """Take part in another run."""
        self.mail.begin_anew()
        self.others = self.others._replace(leads=0)
        self.beats.hurry()

    def _lose(self, error: RedisError) -> None:
        if is_of_others(error):
            raise RedisUnavailable(explain(self.link.place, error)) from None
        said, place = one_line(str(error).partition(" script: ")[0]), self.link.place
        self.outage.failed(f"Redis at {place} is away ({said}): this worker waits for it")
        if self.outage.left <= 0:
            self.outage.give_up()
            raise RedisUnavailable(
                f"Redis at {self.link.place} stayed away: see to it, and crawl again"
            ) from None
