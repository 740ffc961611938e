"""Beats: when a worker asks Redis about the others."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from spa5.crew.server import RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from spa5.crew.crew import Crew

logger = logging.getLogger(__name__)

SECONDS = 0.5
POLL_SECONDS = 0.05  # between beats that find no request though one is wanted


class Beats:
    """Lets a crew beat again and again, until its crawl has ended, it leaves or it fails."""

    def __init__(self, crew: Crew):
        self._crew = crew
        self._task: asyncio.Task[None] | None = None
        self._next = asyncio.Event()  # set after a beat that has not begun yet
        self._hurried = asyncio.Event()
        self._stopped = asyncio.Event()
        self.began_at = monotonic()  # the latest one
        self.failure: str | None = None  # one line: why this worker can't go on

    def start(self, beaten: Callable[[], None]) -> None:
        """Begin; `beaten` is called after each beat."""
        self.began_at = monotonic()
        self._task = asyncio.create_task(self._beat_on(beaten))

    def hurry(self) -> None:
        """Let the next one come at once, unless Redis is away."""
        self._hurried.set()

    async def next(self) -> None:
        """Return after a beat that begins from now on; never, after a failure."""
        await self._next.wait()

    async def stop(self) -> bool:
        """End after the beat that is under way; False if there has been none."""
        self._stopped.set()
        self._hurried.set()
        if self._task is None:
            return False
        await self._task  # not cancelled: what it takes would be lost
        return True

    async def _beat_on(self, beaten: Callable[[], None]) -> None:
        try:
            while await self._pause():
                begun, self._next = self._next, asyncio.Event()
                self.began_at = monotonic()
                await self._crew.beat()
                beaten()
                begun.set()
        except RedisUnavailable as error:
            self.failure = str(error)
        except Exception:
            logger.exception("A beat failed")
            place = self._crew.link.place
            self.failure = f"What Redis at {place} holds can't be worked with: see above"
        if self.failure:
            beaten()
        elif self._crew.ended:
            self._next.set()

    async def _pause(self) -> bool:
        """Wait for the next beat; return False if there is none."""
        is_away = self._crew.outage.is_on
        event = self._stopped if is_away else self._hurried
        is_short = self._crew.mail.wanted and not is_away
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(event.wait(), POLL_SECONDS if is_short else SECONDS)
        self._hurried.clear()
        return not (self._crew.ended or self._stopped.is_set())
