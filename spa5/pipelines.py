"""MongoPipeline: open, process_item, close."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from itemadapter import ItemAdapter
from scrapy.exceptions import CloseSpider, DropItem

from spa5.documents import Document, Outcome, Rejected
from spa5.groupcommit import GroupCommit
from spa5.items import Book
from spa5.store import BookStore, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scrapy.crawler import Crawler
    from typing_extensions import Self

logger = logging.getLogger(__name__)


class MongoPipeline:
    """Upserts each item into MongoDB, and returns it when MongoDB has acknowledged it.

    Items are dataclasses, dicts or Scrapy items with an `id`. Settings: MONGO_…, see BookStore.
    """

    def __init__(self, crawler: Crawler):
        self.crawler = crawler
        self.stats = crawler.stats
        self.store = BookStore(crawler.settings, crawler.stats.inc_value)
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
            raise DropItem(str(error), log_level="DEBUG") from None
        except StoreError as error:
            self.give_up(error)
            raise DropItem(str(error), log_level="DEBUG") from None
        self.stats.inc_value(f"mongo/{outcome}")
        return item

    def give_up(self, error: StoreError) -> None:
        """End the crawl, once; what is not stored is fetched by the next one."""
        if self.closing is None:
            logger.error("%s", error)
            self.stats.set_value("mongo/unavailable", str(error))  # also when it ends anyway
            closing = self.crawler.engine.close_spider_async(reason="mongo_unavailable")
            self.closing = asyncio.ensure_future(closing)

    async def close_spider(self) -> None:
        await self.commit.drain()
        await self.store.close()

    async def _write(self, documents: list[Document]) -> Sequence[Outcome | Exception]:
        self.stats.inc_value("mongo/batches")
        return await self.store.write(documents)


def _name(item: Any) -> str:
    return f"book {ItemAdapter(item).get('id')!r:.40}"
