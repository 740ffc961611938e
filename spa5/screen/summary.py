"""Summary: what the stats say of a crawl, and the words in which people read it at the end."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from spa5.catalogue.spider import catalogue_of
from spa5.pipelines import MongoPipeline

if TYPE_CHECKING:
    from scrapy.crawler import Crawler

logger = logging.getLogger(__name__)

# In words, and the stat that counts it.
_ITEMS = {
    "listed": "catalogue/listed",
    "new": "mongo/inserted",
    "changed": "mongo/changed",
    "unchanged": "mongo/unchanged",
    "skipped": "catalogue/skipped",
}
_TROUBLES = {
    "vanished": "catalogue/vanished",
    "invalid": "catalogue/invalid",
    "rejected": "mongo/rejected",
    "bad fields": "catalogue/field_errors",
    "failed": "catalogue/failed",
    "missing": "catalogue/missing",
}
# These are told where they occur.
_MORE = {
    "held back": "mongo/held_back",
    "unlisted": "catalogue/unlisted",
    "delisted": "catalogue/delisted",
    "returned": "catalogue/returned",
    "bad pages": "catalogue/index_failed",
    "retries": "retry/count",
}
DONE = ("catalogue/skipped", "item_scraped_count", "catalogue/vanished")
FAILED = ("catalogue/failed", "catalogue/index_failed", "catalogue/invalid", "mongo/rejected")


class Figures:
    """The figures of a crawl, read from its stats."""

    def __init__(self, crawler: Crawler):
        self.crawler = crawler

    def get(self, *stats: str) -> Any:
        """Return the sum of these stats."""
        return sum(self.crawler.stats.get_value(stat, 0) for stat in stats)

    @property
    def nouns(self) -> str:
        """The word for the items, in the plural."""
        spider = catalogue_of(self.crawler)
        return spider.schema.nouns if spider else "items"

    @property
    def workers(self) -> int:
        """The number of processes that share the crawl; 0 if this one has it for itself."""
        return int(self.get("crawl/workers"))

    @property
    def done(self) -> tuple[int, int]:
        """How many items are done, and how many there are (0: not known), by all workers together.

        What failed is not done: another sweep asks for it, or it is missing at the end.
        """
        spider: Any = self.crawler.spider
        done = max(self.get(*DONE), self.get("crawl/stored"))  # the latter may be of a beat ago
        total = max(map(self.get, ("catalogue/expected", "catalogue/listed", "crawl/expected")))
        ids, pages = spider.arguments.ids, spider.arguments.pages
        if ids is not None:
            total = len(ids)
        elif pages is not None:
            total = min(total, pages * spider.walk.step)
        missing = self.crawler.stats.get_value("catalogue/missing")
        if total and missing is not None:
            if pages is not None:
                total = done + missing
            return max(0, total - missing), total
        return min(done, total or done), total

    @property
    def reason(self) -> str:
        return str(self.crawler.stats.get_value("finish_reason"))

    @property
    def place(self) -> str:
        pipeline = self.crawler.get_item_pipeline(MongoPipeline)
        return pipeline.store.connection.place if pipeline else "no database"

    @property
    def speed(self) -> float:
        """Items a second."""
        seconds = self.get("elapsed_time_seconds")
        return self.get("item_scraped_count") / seconds if seconds else 0.0

    @property
    def whole(self) -> str:
        """One line about the work of all workers."""
        done, total = self.done
        return f"{done} of {total} {self.nouns}, {self.workers} workers"

    @property
    def whole_counts(self) -> list[str]:
        """The outcomes of the items that all workers fetched."""
        words = {"new": "inserted", "changed": "changed", "unchanged": "unchanged"}
        return [f"{self.get(f'crawl/{stat}')} {word}" for word, stat in words.items()]

    def counts(self, stats: dict[str, str]) -> dict[str, int]:
        """Return what this process counted.

        All workers of a crawl miss the same items. Where "missing" is not known it is left out.
        """
        own = {word: self.get(stat) for word, stat in stats.items()}
        if self.workers or self.crawler.stats.get_value("catalogue/missing") is None:
            own.pop("missing", None)
        return own


def log(figures: Figures) -> None:
    """Write the summary into the log."""
    if figures.workers:
        fetched = ", ".join(figures.whole_counts)
        logger.info("The whole crawl: %s; %s. Of this worker:", figures.whole, fetched)
    more = {word: count for word, count in figures.counts(_MORE).items() if count}
    counts = (figures.counts(_ITEMS | _TROUBLES) | more).items()
    logger.info(
        "%s: %s", figures.nouns.capitalize(), ", ".join(f"{count} {word}" for word, count in counts)
    )
    logger.info(
        "%s after %.1f s: %.0f %s a second, %d requests, %d sweeps; stored in %s",
        figures.reason.capitalize(),
        figures.get("elapsed_time_seconds"),
        figures.speed,
        figures.nouns,
        figures.get("downloader/request_count"),
        figures.get("catalogue/sweeps"),
        figures.place,
    )


def table(figures: Figures) -> str:
    """Return the summary as a few lines, which fit into 40 columns."""
    seconds, requests = map(figures.get, ("elapsed_time_seconds", "downloader/request_count"))
    rows = [("ended", f"{figures.reason} after {seconds:.1f} s"), ("stored in", figures.place)]
    if figures.workers:
        rows += [("crawl", figures.whole), *(("", count) for count in figures.whole_counts)]
        rows += [("own share", "")]
    rows += [("speed", f"{figures.speed:.0f} {figures.nouns}/s, {requests} requests")]
    rows += [(word, f"{count:6}") for word, count in figures.counts(_ITEMS).items()]
    troubles = figures.counts(_TROUBLES | _MORE).items()
    rows += [(word, f"{count:6}") for word, count in troubles if count]
    return "".join(f"{word:<10} {text}".rstrip() + "\n" for word, text in rows)
