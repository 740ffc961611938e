"""The closing summary: what a crawl did, in words."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from scrapy import signals

from spa5.pipelines import MongoPipeline

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from typing_extensions import Self

logger = logging.getLogger(__name__)

# In words, and the stat that counts it.
_COUNTED = {
    "listed": "books/listed",
    "new": "mongo/inserted",
    "changed": "mongo/changed",
    "unchanged": "mongo/unchanged",
    "skipped": "books/skipped",
    "vanished": "books/vanished",
    "invalid": "books/invalid",
    "rejected": "mongo/rejected",
    "failed": "books/failed",
    "missing": "books/missing",
}


class Summary:
    """Logs, as the last lines of a crawl, what its stats say."""

    def __init__(self, crawler: Crawler):
        self.crawler = crawler
        crawler.signals.connect(self.engine_stopped, signals.engine_stopped)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls(crawler)

    def engine_stopped(self) -> None:
        stats = self.crawler.stats
        seconds = stats.get_value("elapsed_time_seconds")
        if seconds is None:  # it never began
            return
        counts = [f"{stats.get_value(stat, 0)} {word}" for word, stat in _COUNTED.items()]
        logger.info("Books: %s", ", ".join(counts))
        stored = stats.get_value("item_scraped_count", 0)
        pipeline = self.crawler.get_item_pipeline(MongoPipeline)
        logger.info(
            "%s after %.1f s: %.0f books a second, %d requests, %d sweeps; stored in %s",
            str(stats.get_value("finish_reason")).capitalize(),
            seconds,
            stored / seconds if seconds else 0,
            stats.get_value("downloader/request_count", 0),
            stats.get_value("books/sweeps", 0),
            pipeline.store.place if pipeline else "no database",
        )
