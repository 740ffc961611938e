"""Gate: a crawl waits while the site as a whole is away, as it does for MongoDB.

`Streak` counts failures until the site as a whole may be away. Then `Gate` finds out, and holds all
requests back meanwhile.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING, Any

from scrapy.exceptions import IgnoreRequest

from spa5.catalogue.answers import reason
from spa5.catalogue.outage import Outage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

FIRST_PAUSE_SECONDS = 0.25
MOST_PAUSE_SECONDS = 30.0


class Kind(Enum):
    """The ways in which a request fails."""

    CONNECTION = "connection"  # no answer came
    ANSWER = "answer"  # one that may be right the next time
    REFUSAL = "refusal"  # 403 and the like
    MOVED = "moved"  # a redirect that leads away from the API


@dataclass(frozen=True)
class Fault:
    """One failed attempt: the error, and whether another attempt may help."""

    kind: Kind
    error: Exception
    is_passing: bool = True
    retry_after: float | None = None  # seconds

    @property
    def reason(self) -> str:
        return reason(self.error)


LEAST_FAILURES = 5
LEAST_URLS = 3
# A site that has never answered is probably a wrong SITE_URL, and somebody sits in front of it.
FIRST_ANSWER_SECONDS = 10.0
NEVER_ANSWERED_SECONDS = 10.0

_AWAY = "is away (%s): the crawl waits for it"
_REFUSES = "refuses all requests (%s): it is asked ever less"
_GIVEN_UP = {
    Kind.REFUSAL: "refuses all requests (%s): ask whoever runs it, and crawl again later",
    Kind.MOVED: "redirects all requests (%s): set SITE_URL to where its API is",
}
_STAYED_AWAY = "stayed away (%s): check SITE_URL and the network, ask `scrapy doctor`, crawl again"


class SiteAway(IgnoreRequest):
    """The crawl ends while the site is away: this request is left to the next crawl."""


class Streak:
    """Counts failed attempts since the last good answer, and tells when they look like an outage.

    It takes five. Unless they are failures of the connection itself, they must be of three URLs,
    for one item or page may always fail. A site that gave no good answer yet needs less.
    """

    def __init__(self) -> None:
        self.needed = LEAST_FAILURES
        self.good_url: str | None = None  # the last one that was answered well
        self.is_heard = False  # an answer of any kind came
        self._start()

    def _start(self) -> None:
        self.failures = 0
        self.urls: set[str] = set()
        self.kinds: set[Kind] = set()

    def good(self, url: str) -> None:
        self.good_url = url
        self.is_heard = True
        if self.failures:
            self._start()
        if self.needed > LEAST_FAILURES:
            self.needed -= 1

    def bad(self, url: str, kind: Kind) -> bool:
        """Count a failure; True if the site as a whole may have failed."""
        self.is_heard |= kind is not Kind.CONNECTION
        self.failures += 1
        self.urls.add(url)
        self.kinds.add(kind)
        if self.good_url is None:
            # These are not tried again: there may be no more failures to come.
            is_final = kind in (Kind.REFUSAL, Kind.MOVED)
            return is_final or not self.is_heard or self.failures >= self.needed
        is_wide = self.kinds == {Kind.CONNECTION} or len(self.urls) >= LEAST_URLS
        return is_wide and self.failures >= self.needed

    def was_wrong(self) -> None:
        """The site did answer: the next suspicion needs twice as many failures."""
        self.needed = 2 * max(self.failures, LEAST_FAILURES)
        self._start()


@dataclass
class Surroundings:
    """The parts of a crawl that its gate uses."""

    site: str
    first_url: str  # what a crawl of it asks for first
    probe: Callable[[str, float], Awaitable[Fault | None]]  # URL, seconds; None: a good answer
    rest: Callable[[float], Awaitable[None]]  # seconds; less if the crawl is ending
    is_ending: Callable[[], bool]
    give_up: Callable[[str], None]  # what to tell people
    count: Callable[[str, Any], None]  # a stat, by how much
    clock: Callable[[], float] = monotonic


class Gate:
    """Holds requests back while it finds out whether the site is away, and as long as it is.

    It asks for one URL, with growing pauses. After `patience` seconds (less for a site that never
    answered), or when the crawl ends, waiting requests fail with SiteAway.
    """

    def __init__(self, crawl: Surroundings, patience: float):
        self.streak = Streak()
        self.is_over = False
        self._crawl = crawl
        self._patience = patience
        self._watch: asyncio.Task[bool] | None = None

    async def enter(self) -> None:
        """Return when a request may be sent; raise SiteAway if none will be."""
        while self._watch is not None:
            await asyncio.shield(self._watch)
        if self.is_over:
            raise SiteAway("the site is away")

    async def failed(self, url: str, fault: Fault) -> bool:
        """True if the site as a whole was away: it is back, and the request is to be sent again."""
        if self._watch is None and not self.is_over:
            if self._crawl.is_ending() or not self.streak.bad(url, fault.kind):
                return False
            self._watch = asyncio.ensure_future(self._find_out(fault))
        was_away = self._watch is not None and await asyncio.shield(self._watch)
        if self.is_over:
            raise SiteAway("the site is away")
        return was_away

    async def _find_out(self, fault: Fault) -> bool:
        """Ask until there is a good answer; True if the site was away until then."""
        try:
            url = self.streak.good_url or self._crawl.first_url
            outage = self._begin(fault)
            pause = 0.0
            while not self.is_over:
                await self._crawl.rest(min(pause, outage.left))
                if self._crawl.is_ending():
                    self.is_over = True
                elif again := await self._crawl.probe(url, max(outage.left, 1.0)):
                    self._still_away(outage, again)
                else:
                    return self._is_back(outage, url)
                pause = min(2 * pause or FIRST_PAUSE_SECONDS, MOST_PAUSE_SECONDS)
            return False
        finally:
            self._watch = None

    def _begin(self, fault: Fault) -> Outage:
        is_heard = self.streak.is_heard
        patience = self._patience if is_heard else min(self._patience, NEVER_ANSWERED_SECONDS)
        outage = Outage("The site", "site", patience, self._crawl.count, clock=self._crawl.clock)
        outage.begin()
        if not is_heard:
            self._tell(outage, fault)
        return outage

    def _still_away(self, outage: Outage, fault: Fault) -> None:
        """The probe failed, too."""
        is_elsewhere = fault.kind is Kind.MOVED and self.streak.good_url is None
        if outage.left <= 0 or is_elsewhere:
            self.is_over = True
            outage.give_up()
            words = _GIVEN_UP.get(fault.kind, _STAYED_AWAY) % fault.reason
            self._crawl.give_up(f"The site at {self._crawl.site} {words}")
        else:
            self._tell(outage, fault)

    def _tell(self, outage: Outage, fault: Fault) -> None:
        words = _REFUSES if fault.kind is Kind.REFUSAL else _AWAY
        outage.failed(f"The site at {self._crawl.site} {words % fault.reason}")

    def _is_back(self, outage: Outage, url: str) -> bool:
        was_away = outage.is_told
        if was_away:
            outage.worked()
        else:
            self.streak.was_wrong()
        self.streak.good(url)
        return was_away
