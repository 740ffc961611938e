"""Demand: when the next index page is to be asked for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from scrapy.crawler import Crawler

    from spa5.catalogue.walk import Page, Walk


class Demand:
    """Tells when further index pages are needed, so that few requests wait but never none.

    `reserve` is how many requests may be in flight, in all workers of a shared crawl.
    """

    def __init__(self, crawler: Crawler):
        self._crawler = crawler
        self._answered = asyncio.Event()
        self._enqueued_before = 0  # requests, when the walk began
        self.reserve = crawler.settings.getint("CONCURRENT_REQUESTS")

    async def pages(self, walk: Walk) -> AsyncIterator[Page]:
        """Yield the pages of a walk, each as soon as it is needed."""
        self._enqueued_before = self._enqueued
        while not walk.is_abandoned and (walk.open or not walk.is_over):
            if self._lacks_requests(walk) and (page := walk.next_page()):
                yield page
            else:
                self._answered.clear()
                await self._answered.wait()

    def answered(self) -> None:
        """Note that an answer came, so that the walk looks anew whether it lacks requests."""
        self._answered.set()

    def _lacks_requests(self, walk: Walk) -> bool:
        """True if the waiting requests, plus those that open index pages are expected to add, are
        fewer than `2 * reserve`.

        A page adds as many requests as the pages before it did on average: none of them where
        all items are stored. Then pages fill the semaphore.
        """
        scheduler: Any = self._crawler.engine.scheduler
        added = self._enqueued - self._enqueued_before - walk.asked
        answered = walk.asked - walk.open
        coming = walk.open * added / answered if answered else 0
        return bool(len(scheduler) + coming < 2 * self.reserve)

    @property
    def _enqueued(self) -> int:
        enqueued: int = self._crawler.stats.get_value("scheduler/enqueued", 0)
        return enqueued
