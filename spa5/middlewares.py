"""SkipStored drops requests for items that need no fetching; Sweeps repeats the walk until
nothing is missing.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from scrapy import Request, signals
from scrapy.exceptions import CloseSpider

from spa5.catalogue.listing import DONE, DRIFT, REJECTED, Listing, Verdict, is_drift, judge
from spa5.catalogue.spider import CatalogueSpider, catalogue_of
from spa5.engine import is_idle
from spa5.mongo.connection import StoreError
from spa5.mongo.documents import now
from spa5.mongo.store import Seen
from spa5.pipelines import MongoPipeline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from scrapy.crawler import Crawler
    from scrapy.http import Response
    from typing_extensions import Self

    from spa5.catalogue.item import Key
    from spa5.catalogue.walk import Walk
    from spa5.crew import Crew

logger = logging.getLogger(__name__)

MOST_ASKED = 10_000  # ids in one question to MongoDB
END_OF_WALK = object()  # what `Sweeps` tells `SkipStored`, which is between it and the engine
HOSTS_APART = timedelta(minutes=10)  # so much may the clocks of a shared crawl's hosts differ


class SkipStored:
    """Lets only those requests for details pass whose items the collection lacks.

    For each index page MongoDB is asked once what it holds. The spider's argument `refresh` says
    which stored items are fetched again: `changed` (listed otherwise than stored, or older than
    REFRESH_AFTER_DAYS), `missing` (none) or `all`. Without MongoPipeline everything passes.
    """

    def __init__(self, crawler: Crawler):
        self.crawler = crawler
        self.stats = crawler.stats
        self.fresh_for = timedelta(days=crawler.settings.getfloat("REFRESH_AFTER_DAYS"))

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls(crawler)

    async def process_start(self, start: AsyncIterator[Any]) -> AsyncIterator[Any]:
        details: list[Any] = []  # of given ids: MongoDB is asked for many at once
        async for output in start:
            if _key(output):
                details.append(output)
            elif output is not END_OF_WALK:  # an index page, for which the walk waits
                yield output
            if output is END_OF_WALK or len(details) == MOST_ASKED:
                async for detail in self._drop_stored(details):
                    yield detail
                details = []

    async def process_spider_output(
        self, response: Response, result: AsyncIterator[Any]
    ) -> AsyncIterator[Any]:
        if "key" in response.meta:  # a detail: its item goes on as it is
            async for output in result:
                yield output
        else:
            outputs = [output async for output in result]
            async for output in self._drop_stored(outputs):
                yield output

    async def _drop_stored(self, outputs: list[Any]) -> AsyncIterator[Any]:
        spider = catalogue_of(self.crawler)
        if spider is None:
            for output in outputs:
                yield output
            return
        due = spider.outcomes.listing.meet([one for output in outputs if (one := _key(output))])
        seen, waiting = await self._see(due), set(due)
        for output in outputs:
            one = _key(output)
            if one is None:
                yield output
            if one not in waiting:  # it is listed twice, or what became of it is known
                continue
            waiting.discard(one)
            if not seen or self._needs_fetching(
                spider, output.meta["listed"], seen.stored.get(one)
            ):
                # Workers share out an item once; one that a sweep before left is due again.
                output.dont_filter = self.stats.get_value("catalogue/sweeps", 1) > 1
                yield output
            elif one in seen.refused:
                self._reject(spider, one, seen.refused[one])
            else:
                spider.outcomes.settle(one, DONE)
                self.stats.inc_value("catalogue/skipped")

    async def _see(self, ids: list[Key]) -> Seen | None:
        """What is stored of these listed items; None where there is no pipeline to ask."""
        pipeline = self.crawler.get_item_pipeline(MongoPipeline)
        if pipeline is None:
            return None
        if not ids:
            return Seen({}, {})
        try:
            return await pipeline.store.see(ids)
        except StoreError as error:
            pipeline.give_up(error)
            raise CloseSpider("mongo_unavailable") from None

    def _reject(self, spider: CatalogueSpider, one: Key, reason: str) -> None:
        """MongoDB does not let a stored item be marked as listed: that costs this item alone."""
        self.stats.inc_value("mongo/rejected")
        noun = spider.schema.noun
        logger.warning("MongoDB refuses to mark %s %s as listed: %s", noun, one, reason)
        spider.outcomes.settle(one, REJECTED, reason)

    def _needs_fetching(
        self, spider: CatalogueSpider, listed: dict[str, Any], stored: dict[str, Any] | None
    ) -> bool:
        if stored is None:
            return True
        refresh = spider.arguments.refresh
        if refresh != "changed" or not listed:
            return bool(refresh != "missing")
        if self._is_stale(spider, stored.get("crawled_at")):
            return True
        unread: list[str] = []
        item = spider.item_class.from_api({spider.schema.key: 0, **listed}, unread)
        names = listed.keys() - unread
        return any(getattr(item, name) != stored.get(name) for name in names)

    def _is_stale(self, spider: CatalogueSpider, crawled_at: Any) -> bool:
        """True for what is old, was not crawled by this project, or has a time ahead of now."""
        if not isinstance(crawled_at, datetime):
            return True
        ahead = HOSTS_APART if spider.outcomes.crew else timedelta(0)
        age = now() - crawled_at
        return bool(self.fresh_for) and not -ahead <= age <= self.fresh_for


class Sweeps:
    """Repeats the spider's walk until every listed item is in the collection.

    After each walk it asks MongoDB which of the listed ids it holds now, see `judge`. A crawl that
    is not complete after MAX_SWEEPS walks, or that one more walk can't complete, ends as
    `incomplete`; as `drift`, if more than DRIFT_SHARE of the catalogue of the last complete crawl
    is gone. Without MongoPipeline there is one walk. Of a shared crawl's workers only the leader
    walks.
    """

    # Counted anew in each sweep, for each meets the whole catalogue.
    PER_SWEEP = ("catalogue/listed", "catalogue/invalid")

    def __init__(self, crawler: Crawler):
        self.crawler = crawler
        self.stats = crawler.stats
        self.most_sweeps = max(1, crawler.settings.getint("MAX_SWEEPS"))
        self.drift_share = crawler.settings.getfloat("DRIFT_SHARE")
        self.verdict: Verdict | None = None

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls(crawler)

    async def process_start(self, start: AsyncIterator[Any]) -> AsyncIterator[Any]:
        spider = catalogue_of(self.crawler)
        if spider is None:
            async for output in start:
                yield output
            yield END_OF_WALK
            return
        crew = spider.outcomes.crew
        walking = self._share(spider, crew) if crew else self._sweep(spider, start)
        async for output in walking:
            yield output
        if self.verdict and self.verdict.reason != "finished":
            raise CloseSpider(self.verdict.reason)

    async def _share(self, spider: CatalogueSpider, crew: Crew) -> AsyncIterator[Any]:
        """Walk while this worker leads, until the shared crawl has ended."""
        while crew.ended is None:
            if not crew.leading:
                await crew.next_beat()
                continue
            spider.outcomes.listing = Listing(is_number=spider.schema.kind.type is int)
            async for output in self._sweep(spider, spider.start()):
                yield output
            if self.verdict:
                expected = self.stats.get_value("catalogue/expected", 0)
                if not await crew.end(self.verdict.reason, expected, self.verdict.missing):
                    self.verdict = None
        if not self.verdict:
            self.verdict = Verdict(crew.ended["reason"], crew.ended["missing"], False, "")
            logger.info("The shared crawl ended: %s", self.verdict.reason)
            if crew.ended["expected"] is not None:
                self.stats.set_value("catalogue/expected", crew.ended["expected"])
            self._count_missing(self.verdict)

    async def _sweep(
        self, spider: CatalogueSpider, start: AsyncIterator[Any]
    ) -> AsyncIterator[Any]:
        """Walk until there is a verdict, or until another worker leads."""
        walks: list[Walk] = []
        for sweep in range(1, self.most_sweeps + 1):
            self._begin(sweep, spider)
            if spider.arguments.ids is None:
                walks.append(spider.walk)
            async for output in start:
                if spider.walk.is_abandoned:
                    return
                yield output
            yield END_OF_WALK
            await self._idle(spider)
            if spider.walk.is_abandoned or self.stats.get_value("site/unavailable"):
                return
            verdict = await self._judge(spider, walks)
            if sweep == self.most_sweeps or not verdict.may_find_more:
                await self._end(spider, walks, verdict)
                return
            logger.info("Sweep %d: %s. Walking again", sweep, verdict.line)
            start = spider.start()

    def _begin(self, sweep: int, spider: CatalogueSpider) -> None:
        spider.begin_walk(sweep)
        self.stats.set_value("catalogue/sweeps", sweep)
        for name in self.PER_SWEEP:
            self.stats.set_value(name, 0)

    async def _idle(self, spider: CatalogueSpider) -> None:
        """Return when every request is answered and every item stored."""
        if spider.outcomes.crew:
            await spider.outcomes.crew.idle()
            return
        while not is_idle(self.crawler):
            await self.crawler.signals.wait_for(signals.scheduler_empty)

    @property
    def _pipeline(self) -> MongoPipeline | None:
        return self.crawler.get_item_pipeline(MongoPipeline)

    async def _judge(self, spider: CatalogueSpider, walks: list[Walk]) -> Verdict:
        """Ask MongoDB which of the listed ids it holds now, and give the verdict."""
        pipeline, listing = self._pipeline, spider.outcomes.listing
        if pipeline is None:
            return Verdict("finished", None, False, "")
        pipeline.drift.end_sweep()
        listing.end_sweep(believes_gone=spider.arguments.accepts_drift)
        try:
            held = 0
            for ids in listing.chunks(MOST_ASKED):
                held += listing.check(ids, await pipeline.store.held(ids))
            self.others = await pipeline.store.total() - held
            before = await pipeline.store.last_complete(spider.name, spider.site)
        except StoreError as error:
            pipeline.give_up(error)
            raise CloseSpider("mongo_unavailable") from None
        if listing.drift:
            return Verdict("drift", None, False, listing.drift.removeprefix(DRIFT))
        drifted = (
            is_drift(len(listing), before, self.drift_share) and not spider.arguments.accepts_drift
        )
        if drifted and spider.is_whole and not walks[-1].lost_pages:
            return Verdict("drift", None, False, _shrunk(len(listing), before, spider.schema.nouns))
        return judge(listing, walks, whole=spider.is_whole, others=self.others)

    async def _end(self, spider: CatalogueSpider, walks: list[Walk], verdict: Verdict) -> None:
        """Say how the crawl ended, and remember a complete one."""
        self.verdict = verdict
        self._count_missing(verdict)
        if not spider.outcomes.crew:
            self.stats.set_value("catalogue/vanished", spider.outcomes.listing.gone)
        if spider.is_whole and not walks[-1].lost_pages and walks[-1].count != walks[-1].listed:
            count = "no" if walks[-1].count is None else walks[-1].count
            logger.warning(
                "The site counts %s %s, its index pages list %d",
                count,
                spider.schema.nouns,
                walks[-1].listed,
            )
        if verdict.reason != "finished":
            again = ". Run the crawl again" if verdict.reason == "incomplete" else ""
            logger.error("%s: %s%s", verdict.reason.capitalize(), verdict.line, again)
            return
        if verdict.line:
            logger.warning("%s", verdict.line)
        if spider.is_whole and self._pipeline:
            if self.others:
                self.stats.set_value("catalogue/unlisted", self.others)
                logger.info(
                    "%d stored %s are not listed by %s",
                    self.others,
                    spider.schema.nouns,
                    spider.site,
                )
            await self._pipeline.store.note_complete(
                spider.name, spider.site, len(spider.outcomes.listing)
            )

    def _count_missing(self, verdict: Verdict) -> None:
        if verdict.missing is not None:
            self.stats.set_value("catalogue/missing", verdict.missing)


def _key(output: Any) -> Key | None:
    return output.meta.get("key") if isinstance(output, Request) else None


def _shrunk(listed: int, before: int | None, nouns: str) -> str:
    return (
        f"the site lists {listed} {nouns}, the last complete crawl found {before}. If that is "
        f"right, crawl again with -a accept=drift"
    )
