"""Scheduler: makes a process one worker of a shared crawl."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from scrapy import signals
from scrapy.core.scheduler import BaseScheduler
from scrapy.exceptions import CloseSpider
from scrapy.utils.defer import deferred_from_coro

from spa5.crew.crew import Crew
from spa5.crew.link import Link
from spa5.crew.mail import Mail
from spa5.crew.server import RedisUnavailable, shared
from spa5.engine import is_idle, wake
from spa5.mongo.connection import names_of

if TYPE_CHECKING:
    from scrapy import Request, Spider
    from scrapy.crawler import Crawler
    from twisted.internet.defer import Deferred
    from typing_extensions import Self

logger = logging.getLogger(__name__)

_VERSION = 3  # of what workers tell each other: other versions do not take part

# What the workers tell each other of their stats: the site's count, and the items that are done.
DONE = ("catalogue/skipped", "mongo/inserted", "mongo/changed", "mongo/unchanged")
TOTALS = ("catalogue/expected", *DONE)


class Scheduler(BaseScheduler):
    """Shares the requests for details among all workers of CRAWL_ID.

    Of such a request only the item's id and its index entry go through Redis; the worker that takes
    it makes the request itself, and repeats it where it has to. A request for an index page stays
    with the worker that walks the index. While Redis is away no request is taken, and new ones are
    kept here. Settings: REDIS_URL, CRAWL_ID.
    """

    def __init__(self, crawler: Crawler):
        self.crawler = crawler
        self.crew: Crew | None = None
        self.pages: deque[Request] = deque()
        self.repeated: deque[Request] = deque()  # retries and redirects of what was taken here
        self.closing: asyncio.Task[None] | None = None
        crawler.signals.connect(self.spider_opened, signals.spider_opened)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls(crawler)

    def open(self, spider: Spider) -> None:
        self.spider: Any = spider

    def close(self, reason: str) -> Deferred[None]:
        return deferred_from_coro(self._close())

    def __len__(self) -> int:
        """The requests that wait, as far as this worker knows."""
        if self.crew is None:
            return len(self.pages)
        return len(self.pages) + len(self.crew.mail.unsent) + self.crew.others.waiting

    def has_pending_requests(self) -> bool:
        """True if this worker has requests of its own. `Crew` says when the crawl has ended."""
        mail = self.crew and self.crew.mail
        return bool(self.pages or self.repeated or (mail and (mail.taken or mail.unsent)))

    def enqueue_request(self, request: Request) -> bool:
        meta = request.meta
        if "key" not in meta:
            self.pages.append(request)
        elif "taken" in meta:
            self.repeated.append(request)
        elif self.crew is None or self.crew.ended:
            return False
        else:
            self.crew.share(meta["key"], meta["listed"], once=not request.dont_filter)
        self.crawler.stats.inc_value("scheduler/enqueued")
        return True

    def next_request(self) -> Request | None:
        request = self._next_request()
        if request is not None:
            self.crawler.stats.inc_value("scheduler/dequeued")
        return request

    def _next_request(self) -> Request | None:
        for queue in (self.pages, self.repeated):
            if queue:
                return queue.popleft()
        if self.crew is None:
            return None
        if self.crew.mail.taken:
            one, listed = self.crew.mail.taken.popleft()
            request: Request = self.spider.detail_request(one, listed)
            request.meta["taken"] = True
            return request
        downloader = self.crawler.engine.downloader
        self.crew.want(2 * downloader.total_concurrency - len(downloader.active))
        return None

    async def spider_opened(self) -> None:
        """Join the others: here, and not in `open`, may a component end the crawl cleanly."""
        try:
            await self._join(*shared(self.crawler.settings))
        except RedisUnavailable as error:
            logger.error("%s", error)
            raise CloseSpider("redis_unavailable") from None

    async def _join(self, url: str, crawl_id: str) -> None:
        count = self.crawler.stats.inc_value
        prefix = f"{self.spider.name}:{crawl_id}"
        mail = Mail(self.spider.schema, self._totals, count)
        link = Link(url, prefix, self._scope(), count)
        self.crew = Crew(link, mail, lambda: not is_idle(self.crawler))
        self.crew.heard = self.spider.outcomes.hear
        self.spider.outcomes.crew = self.crew
        await self.crew.join(self._beaten)
        logger.info("Worker of %s at Redis %s", crawl_id, self.crew.link.place)

    def _scope(self) -> str:
        """A hash of what is crawled, and where to."""
        names = names_of(self.crawler.settings, self.spider.name)
        return sha256(repr([_VERSION, self.spider.site, *names]).encode()).hexdigest()[:16]

    async def _close(self) -> None:
        if self.crew is None:
            return
        self.crew.mail.give_back()
        for request in self.repeated:
            self.crew.share(request.meta["key"], request.meta["listed"], once=False)
        self.repeated.clear()
        await self.crew.leave()

    def _beaten(self) -> None:
        """Go on walking and taking requests."""
        assert self.crew
        engine = self.crawler.engine
        if self.crew.beats.failure and self.closing is None:
            logger.error("%s", self.crew.beats.failure)
            closing = engine.close_spider_async(reason="redis_unavailable")
            self.closing = asyncio.ensure_future(closing)
        if self.crew.ended:
            self.crew.mail.unsent.clear()
        if self.crew.ended or not self.crew.leading:
            self.spider.walk.is_abandoned = True  # its pages would wait here for ever
            self.pages.clear()
        self._count_all(self.crew)
        self.spider.demand.reserve = engine.downloader.total_concurrency * self.crew.others.workers
        self.spider.demand.answered()
        wake(self.crawler)

    def _count_all(self, crew: Crew) -> None:
        """The whole crawl's stats, beside this worker's own."""
        stats, totals = self.crawler.stats, crew.mail.totals
        stats.max_value("crawl/workers", crew.others.workers)
        stats.set_value("crawl/expected", crew.mail.expected)
        stats.set_value("crawl/stored", sum(totals.get(name, 0) for name in DONE))
        for name in ("inserted", "changed", "unchanged"):
            stats.set_value(f"crawl/{name}", totals.get(f"mongo/{name}", 0))

    def _totals(self) -> dict[str, int]:
        return {name: self.crawler.stats.get_value(name, 0) for name in TOTALS}
