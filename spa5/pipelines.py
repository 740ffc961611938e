"""MongoPipeline: a scraped item is a stored item."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

from itemadapter import ItemAdapter
from scrapy import signals
from scrapy.exceptions import CloseSpider, DropItem

from spa5.catalogue.drift import Drift, Drifted
from spa5.catalogue.item import ANY, Item
from spa5.catalogue.listing import FAILED, HELD, REJECTED
from spa5.catalogue.spider import catalogue_of
from spa5.mongo.documents import Document, HeldBack, Rejected
from spa5.mongo.errors import StoreError
from spa5.mongo.groupcommit import GroupCommit
from spa5.mongo.history import history_of
from spa5.mongo.ledger import Ledger
from spa5.mongo.store import Store
from spa5.mongo.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scrapy.crawler import Crawler
    from typing_extensions import Self

    from spa5.catalogue.item import Key
    from spa5.crew.crew import Crew
    from spa5.mongo.plan import Outcome
    from spa5.mongo.store import Seen

logger = logging.getLogger(__name__)


class Dropped(DropItem):
    """An item that is not stored; `outcome` is what `Listing` notes of it."""

    def __init__(self, reason: str, outcome: str):
        super().__init__(reason, log_level="DEBUG")  # the pipeline says why, once
        self.outcome = outcome


class MongoPipeline:
    """Upserts each item into MongoDB, and returns it when MongoDB has acknowledged it.

    Items are those of a CatalogueSpider; another spider's are dataclasses, dicts or Scrapy items
    with an `id`. Settings: DRIFT_SHARE, and MONGO_…, see Store.
    """

    def __init__(self, crawler: Crawler):
        self.crawler = crawler
        self.stats = crawler.stats
        spider, settings = catalogue_of(crawler), crawler.settings
        self.schema = spider.schema if spider else ANY
        self.emptied: Counter[str] = Counter()  # documents that lost the field
        accepted = spider is not None and spider.arguments.accepts_drift
        share = settings.getfloat("DRIFT_SHARE")
        self.drift = Drift(share, self._count_emptied, accepted=accepted)
        name = crawler.spider.name if crawler.spider else "items"
        self.store = Store(settings, name, self.schema, crawler.stats.inc_value)
        self.store.is_listing = spider is None or spider.arguments.ids is None
        self.history = history_of(self.store, settings)
        self.writer = Writer(self.store, self.history, self.drift.admit)
        self.ledger = Ledger(crawler, self.store)
        self.is_open = False
        self.closing: asyncio.Task[None] | None = None
        self.commit: GroupCommit[Document, Outcome] = GroupCommit(self._write, size=Document.size)
        own = self.store.crawl
        self.store.crawl = lambda: self._crew.link.crawl if self._crew else own()
        # By then a worker knows in which shared crawl it takes part.
        crawler.signals.connect(self.ledger.begin, signals.engine_started)
        crawler.signals.connect(self.spider_closed, signals.spider_closed)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls(crawler)

    async def open_spider(self) -> None:
        try:
            await self.store.open()
            if self.history:
                await self.history.open()
        except StoreError as error:
            logger.error("%s", error)
            self.stats.set_value("mongo/unavailable", str(error))
            raise CloseSpider("mongo_unavailable") from None
        except asyncio.CancelledError:  # by `run_crawl`, after a signal
            raise CloseSpider("shutdown") from None
        self.is_open = True
        logger.info("%s go to %s", self.schema.nouns.capitalize(), self.store.connection.place)

    async def process_item(self, item: Any) -> Any:
        try:
            # An Item's values are plain already: no need to copy them all.
            fields = vars(item) if isinstance(item, Item) else ItemAdapter(item).asdict()
            document = Document.from_item(fields, self.schema)
            outcome = await self.commit.submit(document)
        except (Rejected, RecursionError) as error:
            self.stats.inc_value("mongo/rejected")
            logger.warning("MongoDB can't hold %s: %s", self._name(item), error)
            raise Dropped(str(error), REJECTED) from None
        except HeldBack as error:
            self._say_held_back(item, error)
            raise Dropped(str(error), HELD) from None
        except StoreError as error:
            self.give_up(error)
            raise Dropped(str(error), FAILED) from None
        except Drifted as error:
            self.give_up(error, "drift")
            raise Dropped(str(error), HELD) from None
        self.stats.inc_value(f"mongo/{outcome}")
        return item

    def give_up(self, error: Exception, reason: str = "mongo_unavailable") -> None:
        """End the crawl, once; what is not stored is fetched by the next one."""
        self.ledger.is_unsure = True
        if self.closing is None:
            logger.error("%s", error)
            self.stats.set_value("mongo/unavailable", str(error))  # also when it ends anyway
            self.closing = asyncio.ensure_future(self._end(reason))

    async def _end(self, reason: str) -> None:
        crew = self._crew
        if reason == "drift" and crew and crew.leading:  # else the leader hears why it is held
            await crew.end(reason, None, None)
        await self.crawler.engine.close_spider_async(reason=reason)

    def _say_held_back(self, item: Any, error: HeldBack) -> None:
        if self.stats.get_value("mongo/held_back") is None:
            said = "%s is held back until this sweep has ended, and so are further ones: %s"
            logger.warning(said, self._name(item), error)
        self.stats.inc_value("mongo/held_back")

    async def _count_emptied(self, field: str) -> int:
        """Count one more document that loses this field, in all workers of a shared crawl."""
        if self._crew:
            return await self._crew.link.count_emptied(field)
        self.emptied[field] += 1
        return self.emptied[field]

    async def mark_listed(self, keys: list[Key]) -> Seen:
        """Note that these items are listed; return what is stored of those that need no fetching.

        What a killed crawl may have been writing is not among them, see `History`.
        """
        seen = await self.store.mark_listed(keys)
        returned = [one for one, item in seen.stored.items() if item.get("delisted_at")]
        if returned and self.store.is_listing:
            self.stats.inc_value("catalogue/returned", len(returned))
            self.ledger.returned += returned
        if self.history:
            for one in self.history.unsettled.keys() & seen.stored.keys():
                del seen.stored[one]
        return seen

    async def close_spider(self) -> None:
        await self.commit.drain()

    async def spider_closed(self, reason: str) -> None:
        """Note how the crawl ended. It is not known before the pipelines are closed."""
        try:
            if self.is_open:
                await self.ledger.end(reason)
        finally:
            await self.store.close()

    async def _write(self, documents: list[Document]) -> Sequence[Outcome | Exception]:
        if self.drift.found:
            raise self.drift.found
        self.stats.inc_value("mongo/batches")
        return await self.writer.write(documents)

    @property
    def _crew(self) -> Crew | None:
        spider = catalogue_of(self.crawler)
        return spider.outcomes.crew if spider else None

    def _name(self, item: Any) -> str:
        return f"{self.schema.noun} {ItemAdapter(item).get(self.schema.key)!r:.40}"
