"""Crawls: what complete crawls found, in the collection `crawls`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from spa5.catalogue.fields import now
from spa5.mongo.errors import StoreError

if TYPE_CHECKING:
    from spa5.mongo.connection import Connection
    from spa5.mongo.retry import Retry

logger = logging.getLogger(__name__)


class Crawls:
    """The complete crawls of whole catalogues into one collection."""

    def __init__(self, connection: Connection, retry: Retry):
        self._items_name = connection.items_name
        self._crawls = connection.collection("crawls")
        self._retry = retry

    async def last_complete(self, spider: str, site: str) -> int | None:
        """How many items the last one found; None where there was none."""
        query = {"spider": spider, "site": site, "collection": self._items_name}
        youngest = [("ended", -1)]
        found = await self._retry.run(lambda: self._crawls.find_one(query, sort=youngest))
        listed = (found or {}).get("listed")
        return listed if isinstance(listed, int) else None

    async def note_complete(self, spider: str, site: str, listed: int) -> None:
        crawl: dict[str, Any] = {"spider": spider, "site": site, "collection": self._items_name}
        crawl |= {"ended": now(), "reason": "finished", "listed": listed}
        try:
            await self._retry.run(lambda: self._crawls.insert_one(crawl))
        except StoreError as error:
            logger.warning("This crawl can't be noted in `crawls`: %s", error)
