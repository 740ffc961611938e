"""Diff: a pipeline that shows how items differ from what is stored."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from scrapy import signals
from scrapy.exceptions import CloseSpider

from spa5.catalogue.item import schema_of
from spa5.catalogue.spider import CatalogueSpider
from spa5.catalogue.text import plain
from spa5.mongo.documents import Document, Rejected
from spa5.mongo.errors import StoreError
from spa5.mongo.store import Store
from spa5.screen.values import ABSENT, shown

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from scrapy.http import Response
    from typing_extensions import Self

    from spa5.catalogue.item import Item, Key

logger = logging.getLogger(__name__)


class Diff:
    """Takes the place of MongoPipeline: prints how each item differs, and stores none."""

    def __init__(self, crawler: Crawler):
        self.crawler = crawler
        assert isinstance(crawler.spider, CatalogueSpider)
        self.spider = crawler.spider
        self.store = Store(
            crawler.settings, self.spider.name, self.spider.schema, crawler.stats.inc_value
        )
        self.stored: dict[Key, dict[str, Any]] = {}
        self.pending: set[Key] = set()
        self.differ = False
        crawler.signals.connect(self.response_received, signals.response_received)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls(crawler)

    async def open_spider(self) -> None:
        ids = self.spider.arguments.ids or []
        self.pending.update(ids)
        try:
            await self.store.open(read_only=True)
            self.stored = await self.store.get(ids)
        except StoreError as error:
            logger.error("%s", error)
            raise CloseSpider("mongo_unavailable") from None

    def process_item(self, item: Item) -> Item:
        key = self.spider.schema.key_of(item)
        stored = self.stored.get(key)
        if stored is None:
            self._say(key, [f"{item} is on the site, but not in the collection"])
        else:
            self._say(key, _differences(item, stored))
        return item

    def response_received(self, response: Response) -> None:
        one = self.spider.answers.asked(response.url)
        if response.status == 404 and one is not None:
            where = "but in the collection" if one in self.stored else "nor in the collection"
            self._say(one, [f"{self.spider.schema.noun} {one} is not on the site (404), {where}"])

    async def close_spider(self) -> None:
        await self.store.close()

    def _say(self, one: Key, lines: list[str]) -> None:
        self.pending.discard(one)
        self.differ |= bool(lines)
        for line in lines:
            print(plain(line))


def _differences(item: Item, stored: dict[str, Any]) -> list[str]:
    """Return lines as diff has them: the stored value after a minus, the site's after a plus."""
    fields = {name: value for name, value in vars(item).items() if name != "extra" or value}
    try:
        names = Document.from_item(fields, schema_of(type(item))).differing(stored)
    except Rejected as error:
        return [f"{item} can't be stored: {error}"]
    lines = [str(item)] * bool(names)
    for name in names:
        before, after = shown(stored.get(name, ABSENT), fields.get(name, ABSENT))
        lines += [f"  - {name}: {before}"] * bool(before) + [f"  + {name}: {after}"] * bool(after)
    return lines
