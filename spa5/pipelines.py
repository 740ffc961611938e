"""MongoPipeline: open, process_item, close."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

from itemadapter import ItemAdapter
from scrapy.exceptions import CloseSpider, DropItem

from spa5.connection import StoreError
from spa5.documents import Document, HeldBack, Outcome, Rejected
from spa5.drift import Drift, Drifted
from spa5.groupcommit import GroupCommit
from spa5.items import Book
from spa5.listing import FAILED, HELD, REJECTED
from spa5.store import BookStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scrapy.crawler import Crawler
    from typing_extensions import Self

logger = logging.getLogger(__name__)


class Dropped(DropItem):
    """An item that is not stored; `outcome` is what `Listing` notes of it."""

    def __init__(self, reason: str, outcome: str):
        super().__init__(reason, log_level="DEBUG")  # the pipeline says why, once
        self.outcome = outcome


class MongoPipeline:
    """Upserts each item into MongoDB, and returns it when MongoDB has acknowledged it.

    Items are dataclasses, dicts or Scrapy items with an `id`. Settings: MONGO_…, see BookStore, and
    DRIFT_SHARE.
    """

    def __init__(self, crawler: Crawler):
        self.crawler = crawler
        self.stats = crawler.stats
        self.emptied: Counter[str] = Counter()  # documents that lost the field
        self.drift = Drift(
            crawler.settings.getfloat("DRIFT_SHARE"),
            self._count_emptied,
            accepted=getattr(crawler.spider, "accepts_drift", False),
        )
        self.store = BookStore(crawler.settings, crawler.stats.inc_value, self.drift.admit)
        self.closing: asyncio.Task[None] | None = None
        self.commit: GroupCommit[Document, Outcome] = GroupCommit(
            self._write, size=lambda document: len(document.content)
        )

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls(crawler)

    async def open_spider(self) -> None:
        try:
            await self.store.open()
        except StoreError as error:
            logger.error("%s", error)
            raise CloseSpider("mongo_unavailable") from None
        except asyncio.CancelledError:  # by `run_crawl`, after a signal
            raise CloseSpider("shutdown") from None
        logger.info("Books go to %s", self.store.place)

    async def process_item(self, item: Any) -> Any:
        try:
            # A Book's values are plain already: no need to copy them all.
            fields = vars(item) if isinstance(item, Book) else ItemAdapter(item).asdict()
            document = Document.from_item(fields)
            outcome = await self.commit.submit(document)
        except (Rejected, RecursionError) as error:
            self.stats.inc_value("mongo/rejected")
            logger.warning("MongoDB can't hold %s: %s", _name(item), error)
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
        if self.closing is None:
            logger.error("%s", error)
            self.stats.set_value("mongo/unavailable", str(error))  # also when it ends anyway
            self.closing = asyncio.ensure_future(self._end(reason))

    async def _end(self, reason: str) -> None:
        crew = getattr(self.crawler.spider, "crew", None)
        if reason == "drift" and crew and crew.leading:  # else the leader hears why it is held
            await crew.end(reason, None, None)
        await self.crawler.engine.close_spider_async(reason=reason)

    def _say_held_back(self, item: Any, error: HeldBack) -> None:
        if self.stats.get_value("mongo/held_back") is None:
            logger.warning(
                "%s is held back until this sweep has ended, and so are further ones: %s",
                _name(item),
                error,
            )
        self.stats.inc_value("mongo/held_back")

    async def _count_emptied(self, field: str) -> int:
        """Count one more document that loses this field, in all workers of a shared crawl."""
        if crew := getattr(self.crawler.spider, "crew", None):
            count: int = await crew.count_emptied(field)
            return count
        self.emptied[field] += 1
        return self.emptied[field]

    async def close_spider(self) -> None:
        await self.commit.drain()
        await self.store.close()

    async def _write(self, documents: list[Document]) -> Sequence[Outcome | Exception]:
        if self.drift.found:
            raise self.drift.found
        self.stats.inc_value("mongo/batches")
        return await self.store.write(documents)


def _name(item: Any) -> str:
    return f"book {ItemAdapter(item).get('id')!r:.40}"
