"""Freshness: which stored items are to be fetched again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from spa5.catalogue.fields import now

if TYPE_CHECKING:
    from spa5.catalogue.spider import CatalogueSpider

# So much may the clocks of the hosts differ that share a crawl.
_HOSTS_APART = timedelta(minutes=10)


class Freshness:
    """Judges a stored item by the spider's argument `refresh`, and by its age.

    `days`: an item that was fetched before these is stale; 0: none is.
    """

    def __init__(self, days: float):
        self._fresh_for = timedelta(days=days)

    def is_due(
        self, spider: CatalogueSpider, listed: dict[str, Any], stored: dict[str, Any]
    ) -> bool:
        """True if an item is to be fetched again; `listed` is what the index page says of it."""
        refresh = spider.arguments.refresh
        if refresh != "changed" or not listed:
            return refresh != "missing"
        if self._is_stale(stored.get("crawled_at"), shared=spider.outcomes.crew is not None):
            return True
        unread: list[str] = []
        item = spider.item_class.from_api({spider.schema.key: 0, **listed}, unread)
        return any(getattr(item, name) != stored.get(name) for name in listed.keys() - unread)

    def _is_stale(self, crawled_at: Any, *, shared: bool) -> bool:
        """True for what is old, was not crawled by this project, or has a time ahead of now."""
        if not isinstance(crawled_at, datetime):
            return True
        ahead = _HOSTS_APART if shared else timedelta(0)
        age = now() - crawled_at
        return bool(self._fresh_for) and not -ahead <= age <= self._fresh_for
