"""Scheduler: makes a process one worker of a shared crawl."""

from __future__ import annotations

import asyncio
import json
import logging
import warnings
from collections import deque
from typing import TYPE_CHECKING, Any

from redis import Redis
from redis.exceptions import RedisError
from redis.retry import Retry
from scrapy import signals
from scrapy.exceptions import CloseSpider, ScrapyDeprecationWarning
from scrapy.utils.defer import deferred_from_coro
from scrapy_redis import scheduler
from scrapy_redis.dupefilter import RFPDupeFilter

from spa5.crew import Crew, RedisUnavailable, client, shared

if TYPE_CHECKING:
    from collections.abc import Callable

    from scrapy import Request, Spider
    from scrapy.crawler import Crawler
    from twisted.internet.defer import Deferred
    from typing_extensions import Self

logger = logging.getLogger(__name__)

# What the workers tell each other: how many books each has done, and what Sweeps judges by.
DONE = ("books/skipped", "mongo/inserted", "mongo/changed", "mongo/unchanged")
TOTALS = (
    *("books/expected", "books/vanished", "books/invalid", "books/failed", "books/index_failed"),
    *("mongo/rejected", "spider_exceptions/count", "robotstxt/forbidden", *DONE),
)


class Scheduler(scheduler.Scheduler):  # type: ignore[misc]  # untyped
    """scrapy-redis's, with which all workers of CRAWL_ID share the requests for details.

    A request for an index page stays with the worker that walks the index. While Redis is away,
    no request is taken and what comes up is kept here. Settings: REDIS_URL, CRAWL_ID.
    """

    def __init__(self, crawler: Crawler):
        self.crawler = crawler
        self.server: Redis | None = None
        self.crew: Crew | None = None
        self.pages: deque[Request] = deque()
        self.unsent: deque[Request] = deque()
        self.closing: asyncio.Task[None] | None = None
        crawler.signals.connect(self.spider_opened, signals.spider_opened)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls(crawler)

    def open(self, spider: Spider) -> None:
        self.spider = spider

    def close(self, reason: str) -> Deferred[None]:
        return deferred_from_coro(self._close())

    def __len__(self) -> int:
        waiting: int = self._ask(0, 1, super().__len__)
        return len(self.pages) + len(self.unsent) + waiting

    def has_pending_requests(self) -> bool:
        """Of this worker's own; it ends when `Crew` says that the crawl has ended."""
        return bool(self.pages or self.unsent)

    def enqueue_request(self, request: Request) -> bool:
        if "book_id" not in request.meta:
            self.pages.append(request)
        elif (accepted := self._share(request)) is None:
            self.unsent.append(request)
        elif not accepted:
            return False
        self.crawler.stats.inc_value("scheduler/enqueued")
        return True

    def next_request(self) -> Request | None:
        request: Request | None = None
        if self.pages:
            request = self.pages.popleft()
        elif self.crew and self.crew.working:
            request = self._ask(None, 1, super().next_request)
        if request is not None:
            self.crawler.stats.inc_value("scheduler/dequeued")
        return request

    async def spider_opened(self) -> None:
        """Join the others: here, and not in `open`, may a component end the crawl cleanly."""
        try:
            url, crawl_id = shared(self.crawler.settings)
            await self._join(url, crawl_id)
        except RedisUnavailable as error:
            logger.error("%s", error)
            raise CloseSpider("redis_unavailable") from None
        logger.info("Worker of %s at Redis %s", crawl_id, self.crew and self.crew.place)

    async def _join(self, url: str, crawl_id: str) -> None:
        count = self.crawler.stats.inc_value
        self.crew = Crew(url, crawl_id, self._is_busy, self._totals, count)
        await self.crew.join(self._beaten)
        server = client(Redis, url, Retry)
        super().__init__(
            server,
            persist=True,
            queue_key=self.crew.key("requests").replace("%", "%%"),
            queue_cls="scrapy_redis.queue.FifoQueue",
            dupefilter=RFPDupeFilter(server, self.crew.key("dupefilter")),
            serializer=Json,
        )
        with warnings.catch_warnings():  # scrapy-redis 0.9.1 says it so where requests wait
            warnings.filterwarnings("ignore", r"Spider\.log\(\)", ScrapyDeprecationWarning)
            super().open(self.spider)

    async def _close(self) -> None:
        if self.crew is not None:
            await self.crew.leave()
        if self.server is not None:
            self.server.close()

    def _share(self, request: Request) -> bool | None:
        """Whether Redis took the request; False: it is a duplicate, None: Redis is away."""
        rounds = 1 if request.dont_filter else 2
        accepted: bool | None = self._ask(None, rounds, super().enqueue_request, request)
        if self.crew and not self.crew.working:
            self.crew.hurry()
        return accepted

    def _ask(self, otherwise: Any, rounds: int, work: Callable[..., Any], *arguments: Any) -> Any:
        """What `work` makes of its blocking round trips; none is made while Redis is away."""
        if self.crew is None or self.crew.away:
            return otherwise
        self.crawler.stats.inc_value("redis/round_trips", rounds)
        try:
            return work(*arguments)
        except RedisError as error:
            self.crew.lose(error)
            return otherwise

    def _beaten(self) -> None:
        """Send what was kept, and go on walking and taking requests."""
        assert self.crew
        engine = self.crawler.engine
        while self.unsent and self._share(self.unsent[0]) is not None:
            self.unsent.popleft()
        if self.crew.has_given_up and self.closing is None:
            logger.error("Redis at %s stayed away: see to it, and crawl again", self.crew.place)
            closing = engine.close_spider_async(reason="redis_unavailable")
            self.closing = asyncio.ensure_future(closing)
        self._count_all(self.crew)
        spider: Any = self.spider
        spider.reserve = engine.downloader.total_concurrency * self.crew.workers
        spider.answered.set()
        if engine.running and engine._slot:  # there is no public way to say that there is work
            engine._slot.nextcall.schedule()

    def _count_all(self, crew: Crew) -> None:
        """The whole crawl's stats, beside this worker's own."""
        stats = self.crawler.stats
        stats.max_value("crawl/workers", crew.workers)
        stats.set_value("crawl/expected", crew.expected)
        stats.set_value("crawl/stored", sum(crew.totals.get(name, 0) for name in DONE))

    def _is_busy(self) -> bool:
        engine = self.crawler.engine
        slot = engine.scraper.slot
        return bool(
            engine.downloader.active or self.has_pending_requests() or (slot and not slot.is_idle())
        )

    def _totals(self) -> dict[str, int]:
        return {name: self.crawler.stats.get_value(name, 0) for name in TOTALS}


class Json:
    """Requests as JSON: pickle, scrapy-redis's own, would run what others put into Redis."""

    FIELDS = ("url", "callback", "errback", "priority", "dont_filter")
    META = ("book_id", "listed", "verbatim_url", "retry_", "redirect_")

    @classmethod
    def dumps(cls, request: dict[str, Any]) -> str:
        kept = {name: request[name] for name in cls.FIELDS}
        meta = request["meta"].items()
        kept["meta"] = {name: value for name, value in meta if name.startswith(cls.META)}
        return json.dumps(kept, separators=(",", ":"))

    loads = staticmethod(json.loads)
