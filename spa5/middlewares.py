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

    from spa5.crew import Crew

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
        self.opened = now()
        days = crawler.settings.getfloat("REFRESH_AFTER_DAYS")
        self.stale_before = self.opened - timedelta(days=days) if days > 0 else None

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls(crawler)

    @property
    def crawl_began(self) -> datetime:
        crew = crew_of(self.crawler)
        return crew.began if crew else self.opened

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
    Without MongoPipeline there is one walk. Of a shared crawl's workers only the leader walks.
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
        self.crew: Crew | None = None
        self.missing = 0
        self.verdict: str | None = None  # finish reason

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls(crawler)

    async def process_start(self, start: AsyncIterator[Any]) -> AsyncIterator[Any]:
        self.crew = crew_of(self.crawler)
        if self.crew is None:
            async for output in self._sweep(start):
                yield output
        else:
            async for output in self._share(self.crew):
                yield output
        if self.verdict == "incomplete":
            raise CloseSpider(self.verdict)

    async def _share(self, crew: Crew) -> AsyncIterator[Any]:
        """Walk while this worker leads, until the shared crawl has ended."""
        while crew.ended is None:
            if not crew.leading:
                await crew.next_beat()
                continue
            assert self.crawler.spider
            async for output in self._sweep(self.crawler.spider.start()):
                yield output
            if self.verdict:
                expected = self.stats.get_value("books/expected", 0)
                if not await crew.end(self.verdict, expected, self.missing):
                    self.verdict = None
        if not self.verdict:
            self.verdict = crew.ended["reason"]
            logger.info("The shared crawl ended: %s", self.verdict)
            for name in ("expected", "missing"):
                self.stats.set_value(f"books/{name}", crew.ended[name])

    async def _sweep(self, start: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Walk until there is a verdict, or until another worker leads."""
        spider = self.crawler.spider
        pipeline = self.crawler.get_item_pipeline(MongoPipeline)
        for sweep in range(1, self.most_sweeps + 1):
            self._begin(sweep)
            async for output in start:
                if not self._leads:
                    return
                yield output
            await self._idle()
            if not self._leads:
                return
            if pipeline is None or not isinstance(spider, BooksSpider):
                self.verdict = "finished"
                return
            await self._count_missing(pipeline, spider)
            if sweep == self.most_sweeps or not self._worth_another(sweep, spider):
                self._judge(spider)
                return
            logger.info("Sweep %d left %d books missing: walking again", sweep, self.missing)
            start = spider.start()

    @property
    def _leads(self) -> bool:
        return self.crew is None or (self.crew.leading and self.crew.ended is None)

    def _begin(self, sweep: int) -> None:
        self.began = now()
        self.stats.set_value("books/sweeps", sweep)
        for name in self.PER_SWEEP:
            if not self._is_shared(name):
                self.stats.set_value(name, 0)
        self.before = {name: self._value(name) for name in self.COUNTED + self.PER_SWEEP}

    def _is_shared(self, name: str) -> bool:
        """Whether all workers count it; only the leader asks for index pages."""
        return self.crew is not None and name != "books/listed"

    def _value(self, name: str) -> int:
        if self.crew and self._is_shared(name):
            return self.crew.totals.get(name, 0)
        return int(self.stats.get_value(name, 0))

    def _gained(self, name: str) -> int:
        return self._value(name) - self.before[name]

    @property
    def _failed(self) -> int:
        return sum(map(self._gained, self.COUNTED[:3]))

    async def _idle(self) -> None:
        """Return when every request is answered and every book stored."""
        if self.crew:
            await self.crew.idle()
            return
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
        self.missing = max(0, expected - self._gained("books/vanished") - held)
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
        hopeless = self._gained("books/invalid") + self._gained("mongo/rejected")
        return self.missing > hopeless and (sweep == 1 or self._gained("mongo/inserted") > 0)

    def _judge(self, spider: BooksSpider) -> None:
        self.verdict = "incomplete" if self.missing or self._failed else "finished"
        if self.verdict == "finished":
            return
        lost = ", ".join(spider.lost) or "not known which"
        logger.error(
            "Incomplete: %d books are missing and %d requests failed in the last sweep (%s); "
            "run the crawl again",
            self.missing,
            self._failed,
            lost,
        )


def _book_id(output: Any) -> str | None:
    return output.meta.get("book_id") if isinstance(output, Request) else None


def crew_of(crawler: Crawler) -> Crew | None:
    """The workers that share this crawl; None where it is one process's own."""
    return getattr(crawler.engine.scheduler, "crew", None)
