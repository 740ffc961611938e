"""SkipStored drops requests for books that need no fetching; Sweeps repeats the walk until
nothing is missing.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from scrapy import Request, signals
from scrapy.exceptions import CloseSpider

from spa5.documents import now
from spa5.items import Book
from spa5.pipelines import MongoPipeline
from spa5.spiders.books import BooksSpider
from spa5.store import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from scrapy.crawler import Crawler
    from scrapy.http import Response
    from typing_extensions import Self

logger = logging.getLogger(__name__)


class SkipStored:
    """Lets only those requests for details pass whose books the collection lacks.

    For each index page MongoDB is asked once what it holds. The spider's argument `refresh` says
    which stored books are fetched again: `changed` (listed otherwise than stored, or older than
    REFRESH_AFTER_DAYS), `missing` (none) or `all`. Without MongoPipeline everything passes.
    """

    def __init__(self, crawler: Crawler):
        self.crawler = crawler
        self.stats = crawler.stats
        self.crawl_began = now()
        days = crawler.settings.getfloat("REFRESH_AFTER_DAYS")
        self.stale_before = self.crawl_began - timedelta(days=days) if days > 0 else None

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls(crawler)

    async def process_start(self, start: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in start:
            async for output in self._drop_stored([request]):
                yield output

    async def process_spider_output(
        self, response: Response, result: AsyncIterator[Any]
    ) -> AsyncIterator[Any]:
        if "book_id" in response.meta:  # a detail: its book goes on as it is
            async for output in result:
                yield output
        else:
            outputs = [output async for output in result]
            async for output in self._drop_stored(outputs):
                yield output

    async def _drop_stored(self, outputs: list[Any]) -> AsyncIterator[Any]:
        stored = await self._stored([one for output in outputs if (one := _book_id(output))])
        for output in outputs:
            one = _book_id(output)
            if one is None or stored is None:
                yield output
            elif self._needs_fetching(output.meta["listed"], stored.get(one)):
                # A book that an earlier sweep asked for in vain is known to the duplicate filter.
                output.dont_filter = self.stats.get_value("books/sweeps", 1) > 1
                yield output
            elif not self._is_since(stored[one].get("listed_at"), self.crawl_began):
                self.stats.inc_value("books/skipped")

    async def _stored(self, ids: list[str]) -> dict[str, dict[str, Any]] | None:
        """What is stored of these books; None where there is no pipeline to ask."""
        pipeline = self.crawler.get_item_pipeline(MongoPipeline)
        if pipeline is None or not ids:
            return None if pipeline is None else {}
        try:
            return await pipeline.store.see(ids)
        except StoreError as error:
            pipeline.give_up(error)
            raise CloseSpider("mongo_unavailable") from None

    def _needs_fetching(self, listed: dict[str, Any], stored: dict[str, Any] | None) -> bool:
        if stored is None:
            return True
        crawled_at = stored.get("crawled_at")
        if self._is_since(crawled_at, self.crawl_began):  # in an earlier sweep of this crawl
            return False
        refresh = getattr(self.crawler.spider, "refresh", "changed")
        if refresh != "changed" or not listed:
            return bool(refresh != "missing")
        if not isinstance(crawled_at, datetime) or (
            self.stale_before and crawled_at < self.stale_before
        ):
            return True
        book = Book.from_api({"id": "0", **listed})
        return any(getattr(book, name) != stored.get(name) for name in listed)

    @staticmethod
    def _is_since(moment: Any, since: datetime) -> bool:
        return isinstance(moment, datetime) and moment >= since


class Sweeps:
    """Repeats the spider's walk until every listed book is in the collection.

    After each walk it compares what the site lists with what MongoDB holds. A crawl that is not
    complete after MAX_SWEEPS walks, or that one more walk can't complete, ends as `incomplete`.
    Without MongoPipeline there is one walk.
    """

    # Counted anew in each sweep, for each meets the whole catalogue.
    PER_SWEEP = ("books/listed", "books/vanished", "books/invalid")
    COUNTED = (
        *("books/failed", "books/index_failed", "spider_exceptions/count"),
        *("robotstxt/forbidden", "mongo/rejected", "mongo/inserted"),
    )

    def __init__(self, crawler: Crawler):
        self.crawler = crawler
        self.stats = crawler.stats
        self.most_sweeps = max(1, crawler.settings.getint("MAX_SWEEPS"))
        self.missing = 0

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls(crawler)

    async def process_start(self, start: AsyncIterator[Any]) -> AsyncIterator[Any]:
        spider = self.crawler.spider
        pipeline = self.crawler.get_item_pipeline(MongoPipeline)
        for sweep in range(1, self.most_sweeps + 1):
            self._begin(sweep)
            async for output in start:
                yield output
            if pipeline is None or not isinstance(spider, BooksSpider):
                return
            await self._idle()
            await self._count_missing(pipeline, spider)
            if sweep == self.most_sweeps or not self._worth_another(sweep, spider):
                self._judge(spider)
                return
            logger.info("Sweep %d left %d books missing: walking again", sweep, self.missing)
            start = spider.start()

    def _begin(self, sweep: int) -> None:
        self.began = now()
        self.stats.set_value("books/sweeps", sweep)
        for name in self.PER_SWEEP:
            self.stats.set_value(name, 0)
        self.before = {name: self.stats.get_value(name, 0) for name in self.COUNTED}

    def _gained(self, name: str) -> int:
        return int(self.stats.get_value(name, 0) - self.before[name])

    @property
    def _failed(self) -> int:
        return sum(map(self._gained, self.COUNTED[:3]))

    async def _idle(self) -> None:
        """Return when every request is answered and every book stored."""
        engine = self.crawler.engine
        assert engine.scheduler is not None  # an empty one is false
        assert engine.scraper.slot
        while (
            engine.downloader.active
            or engine.scheduler.has_pending_requests()
            or not engine.scraper.slot.is_idle()
        ):
            await self.crawler.signals.wait_for(signals.scheduler_empty)

    async def _count_missing(self, pipeline: MongoPipeline, spider: BooksSpider) -> None:
        """What the site lists, less what is gone, less what the collection holds of it."""
        try:
            if spider.ids is not None:
                expected = len(spider.ids)
                held = await pipeline.store.count(spider.ids)
            else:
                expected = self._expected(spider)
                held = await pipeline.store.count_listed(self.began)
        except StoreError as error:
            pipeline.give_up(error)
            raise CloseSpider("mongo_unavailable") from None
        self.missing = max(0, expected - self.stats.get_value("books/vanished", 0) - held)
        self.stats.set_value("books/missing", self.missing)

    def _expected(self, spider: BooksSpider) -> int:
        listed = int(self.stats.get_value("books/listed", 0))
        count = self.stats.get_value("books/expected")
        if spider.pages is not None:
            return listed
        if count != listed and not self._failed:
            logger.warning(
                "The site counts %s books, its index pages list %d", count or "no", listed
            )
        return listed if count is None else int(count)

    def _worth_another(self, sweep: int, spider: BooksSpider) -> bool:
        """Whether one more walk could find something: not what is unusable each time."""
        if self._failed > self._gained("robotstxt/forbidden") or spider.shrunk:
            return True
        hopeless = self.stats.get_value("books/invalid", 0) + self._gained("mongo/rejected")
        return self.missing > hopeless and (sweep == 1 or self._gained("mongo/inserted") > 0)

    def _judge(self, spider: BooksSpider) -> None:
        if not self.missing and not self._failed:
            return
        lost = ", ".join(spider.lost) or "not known which"
        logger.error(
            "Incomplete: %d books are missing and %d requests failed in the last sweep (%s); "
            "run the crawl again",
            self.missing,
            self._failed,
            lost,
        )
        raise CloseSpider("incomplete")


def _book_id(output: Any) -> str | None:
    return output.meta.get("book_id") if isinstance(output, Request) else None
