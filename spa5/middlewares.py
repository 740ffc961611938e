"""SkipStored drops requests for items that need no fetching; Sweeps repeats the walk until
nothing is missing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from scrapy import Request
from scrapy.exceptions import CloseSpider, NotConfigured

from spa5.catalogue.freshness import Freshness
from spa5.catalogue.listing import DONE, Verdict
from spa5.catalogue.spider import catalogue_of
from spa5.engine import idle
from spa5.mongo.errors import StoreError
from spa5.mongo.judge import Judge
from spa5.mongo.store import MOST_KEYS, Seen
from spa5.pipelines import MongoPipeline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from scrapy.crawler import Crawler
    from scrapy.http import Response
    from typing_extensions import Self

    from spa5.catalogue.item import Key
    from spa5.catalogue.walk import Walk
    from spa5.crew.crew import Crew

logger = logging.getLogger(__name__)

END_OF_WALK = object()  # what `Sweeps` tells `SkipStored`, which is between it and the engine


class _ForCatalogues:
    """The base of the two middlewares. Spiders of other kinds crawl without them."""

    def __init__(self, crawler: Crawler):
        if not (spider := catalogue_of(crawler)):
            raise NotConfigured
        self.crawler = crawler
        self.spider = spider
        self.stats = crawler.stats

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls(crawler)


class SkipStored(_ForCatalogues):
    """Lets only those requests for details pass whose items the collection lacks.

    For each index page MongoDB is asked once what it holds. The spider's argument `refresh` says
    which stored items are fetched again: `changed` (listed otherwise than stored, or older than
    REFRESH_AFTER_DAYS), `missing` (none) or `all`. Without MongoPipeline everything passes.
    """

    def __init__(self, crawler: Crawler):
        super().__init__(crawler)
        self.freshness = Freshness(crawler.settings.getfloat("REFRESH_AFTER_DAYS"))

    async def process_start(self, start: AsyncIterator[Any]) -> AsyncIterator[Any]:
        details: list[Any] = []  # of given ids: MongoDB is asked for many at once
        async for output in start:
            if _key(output) is not None:
                details.append(output)
            elif output is not END_OF_WALK:  # an index page, for which the walk waits
                yield output
            if output is END_OF_WALK or len(details) == MOST_KEYS:
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
        outcomes = self.spider.outcomes
        keys = [one for output in outputs if (one := _key(output)) is not None]
        due = outcomes.listing.meet(keys)
        seen, waiting = await self._see(due), set(due)
        for output in outputs:
            one = _key(output)
            if one is None:
                yield output
            if one not in waiting:  # it is listed twice, or what became of it is known
                continue
            waiting.discard(one)
            stored, listed = seen.stored.get(one), output.meta["listed"]
            if stored is None or self.freshness.is_due(self.spider, listed, stored):
                # Workers share out an item once; one that a sweep before left is due again.
                output.dont_filter = self.stats.get_value("catalogue/sweeps", 1) > 1
                yield output
            elif reason := seen.refused.get(one):
                outcomes.not_marked(one, reason)
            else:
                outcomes.settle(one, DONE)
                self.stats.inc_value("catalogue/skipped")

    async def _see(self, ids: list[Key]) -> Seen:
        """Return what is stored of these items; nothing where there is no pipeline to ask."""
        pipeline = self.crawler.get_item_pipeline(MongoPipeline)
        if pipeline is None or not ids:
            return Seen({}, {})
        try:
            return await pipeline.mark_listed(ids)
        except StoreError as error:
            pipeline.give_up(error)
            raise CloseSpider("mongo_unavailable") from None


class Sweeps(_ForCatalogues):
    """Repeats the spider's walk until every listed item is in the collection.

    After each walk there is a verdict, see `Judge`. A crawl that is not complete after MAX_SWEEPS
    walks, or that one more walk can't complete, ends as `incomplete`; as `drift`, if more than
    DRIFT_SHARE of the catalogue of the last complete crawl is gone. Without MongoPipeline there is
    one walk. Of a shared crawl's workers only the leader walks.
    """

    def __init__(self, crawler: Crawler):
        super().__init__(crawler)
        self.most_sweeps = max(1, crawler.settings.getint("MAX_SWEEPS"))
        self.drift_share = crawler.settings.getfloat("DRIFT_SHARE")
        self.verdict: Verdict | None = None

    async def process_start(self, start: AsyncIterator[Any]) -> AsyncIterator[Any]:
        crew = self.spider.outcomes.crew
        walking = self._share(crew) if crew else self._sweep(start)
        async for output in walking:
            yield output
        if verdict := self.verdict:
            if verdict.missing is not None:
                self.stats.set_value("catalogue/missing", verdict.missing)
            if verdict.reason != "finished":
                raise CloseSpider(verdict.reason)

    async def _share(self, crew: Crew) -> AsyncIterator[Any]:
        """Walk while this worker leads, until the shared crawl has ended."""
        while crew.ended is None:
            if not crew.leading:
                await crew.beats.next()
                continue
            self.spider.outcomes.forget()
            async for output in self._sweep(self.spider.start()):
                yield output
            if self.verdict:
                expected = self.stats.get_value("catalogue/expected", 0)
                if not await crew.end(self.verdict.reason, expected, self.verdict.missing):
                    self.verdict = None
        if not self.verdict:
            self.verdict = Verdict(crew.ended["reason"], crew.ended["missing"], False, "")
            logger.info("The shared crawl ended: %s", self.verdict.reason)
            if pipeline := self.crawler.get_item_pipeline(MongoPipeline):
                pipeline.ledger.has_verdict = True
            if crew.ended["expected"] is not None:
                self.stats.set_value("catalogue/expected", crew.ended["expected"])

    async def _sweep(self, start: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Walk until there is a verdict, or until another worker leads."""
        spider = self.spider
        walks: list[Walk] = []
        for sweep in range(1, self.most_sweeps + 1):
            spider.begin_walk(sweep)
            if spider.arguments.ids is None:
                walks.append(spider.walk)
            async for output in start:
                if spider.walk.is_abandoned:
                    return
                yield output
            yield END_OF_WALK
            crew = spider.outcomes.crew
            await (crew.idle() if crew else idle(self.crawler))
            if spider.walk.is_abandoned or self.stats.get_value("site/unavailable"):
                return
            self.verdict = await self._judge(walks, is_last=sweep == self.most_sweeps)
            if self.verdict:
                return
            start = spider.start()

    async def _judge(self, walks: list[Walk], *, is_last: bool) -> Verdict | None:
        """The verdict; None where another walk could help."""
        pipeline = self.crawler.get_item_pipeline(MongoPipeline)
        if pipeline is None:
            return Verdict("finished", None, False, "")
        pipeline.drift.end_sweep()
        spider = self.spider
        judge = Judge(pipeline.store, pipeline.ledger, spider, self.drift_share)
        try:
            verdict = await judge.verdict(walks)
            if verdict.may_find_more and not is_last:
                sweep = self.stats.get_value("catalogue/sweeps")
                logger.info("Sweep %d: %s. Walking again", sweep, verdict.line)
                return None
            if not spider.outcomes.crew:
                self.stats.set_value("catalogue/vanished", spider.outcomes.listing.gone)
            await judge.conclude(walks, verdict)
        except StoreError as error:
            pipeline.give_up(error)
            raise CloseSpider("mongo_unavailable") from None
        if verdict.reason == "finished" and spider.arguments.is_whole:
            for name, count in (("unlisted", judge.others), ("delisted", judge.delisted)):
                if count:
                    self.stats.set_value(f"catalogue/{name}", count)
        return verdict


def _key(output: Any) -> Key | None:
    return output.meta.get("key") if isinstance(output, Request) else None
