"""Progress: what a crawl tells people, a bar while it runs and a summary at its end."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from scrapy import signals
from scrapy.utils.asyncio import create_looping_call

from spa5.catalogue.spider import catalogue_of
from spa5.catalogue.text import plain
from spa5.engine import under_way
from spa5.pipelines import MongoPipeline

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from typing_extensions import Self

    from spa5.screen.bar import Bar

logger = logging.getLogger(__name__)

_TICK_SECONDS = 0.25

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
# The table has these too, for it leaves out troubles that did not occur.
_MORE_TROUBLES = {
    "held back": "mongo/held_back",
    "unlisted": "catalogue/unlisted",
    "bad pages": "catalogue/index_failed",
    "retries": "retry/count",
}
_DONE = ("catalogue/skipped", "item_scraped_count", "catalogue/vanished")
_FAILED = ("catalogue/failed", "catalogue/index_failed", "catalogue/invalid", "mongo/rejected")


class Progress:
    """Shows a bar on a terminal, and a table at the end; elsewhere the log's last lines say it.

    With LOG_FILE, or PROGRESS_ENABLED off, a terminal is like any other place.
    """

    def __init__(self, crawler: Crawler):
        self.crawler = crawler
        self.figures = Figures(crawler)
        self.bar: Bar | None = None
        self.ticking = create_looping_call(self.tick)
        # A crawl that can't be opened starts no engine.
        crawler.signals.connect(self.engine_started, signals.engine_started)
        crawler.signals.connect(self.engine_stopped, signals.engine_stopped)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls(crawler)

    def engine_started(self) -> None:
        if self._is_wanted() and catalogue_of(self.crawler):
            from spa5.screen.bar import Bar  # takes 10 ms

            self.bar = Bar()
            atexit.register(self.bar.close)  # a second Ctrl-C ends the process without a signal
            self.ticking.start(_TICK_SECONDS)

    def engine_stopped(self) -> None:
        if self.bar is not None:
            self.ticking.stop()
            self._show("{rate_noinv_fmt}", "took {elapsed}")
            self.bar.close()
        if self.crawler.stats.get_value("elapsed_time_seconds") is None:  # it never began
            return
        if self.bar is not None:
            sys.stderr.write(plain(table(self.figures)))
        else:
            log(self.figures)

    def _is_wanted(self) -> bool:
        settings = self.crawler.settings
        is_terminal = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        return is_terminal and settings.getbool("PROGRESS_ENABLED") and not settings["LOG_FILE"]

    def tick(self) -> None:
        if self.crawler.crawling:
            self._show("{rate_noinv_fmt}", "{remaining} left")
        else:
            under_way = self.figures.under_way
            self._show("finishing", f"{under_way} under way" if under_way else "")

    def _show(self, pace: str, time: str) -> None:
        """Draw all, or what matters most where the terminal is narrow."""
        assert self.bar is not None
        get = self.figures.get
        done, total = self.figures.done
        count = f"{done}/{total}" if total else f"{done}"
        percent = f"{done * 100 // total}%" if total else ""
        bar = f"{percent:>4}|{{bar}}| " if total else ""
        own = f"{get(*_DONE)} own" if self.figures.workers else ""
        retried = f"{get('retry/count')} retried" if get("retry/count") else ""
        failed = f"{get(*_FAILED)} failed" if get(*_FAILED) else ""
        texts = (
            (f"{bar}{count} {self.figures.nouns}", own, pace, time, retried, failed),
            (f"{percent} {count}".lstrip(), own, pace, time, retried, failed),
            (count, pace, time, retried, failed),
            (count, pace, time, failed),
            (count, pace, failed),
        )
        self.bar.show(done, total, [", ".join(filter(None, text)) for text in texts])


class Figures:
    """What the stats say of a crawl."""

    def __init__(self, crawler: Crawler):
        self.crawler = crawler

    def get(self, *stats: str) -> Any:
        """The sum of these."""
        return sum(self.crawler.stats.get_value(stat, 0) for stat in stats)

    @property
    def nouns(self) -> str:
        """What the items are called."""
        spider = catalogue_of(self.crawler)
        return spider.schema.nouns if spider else "items"

    @property
    def workers(self) -> int:
        """How many share the crawl; 0: it is this process's own."""
        return int(self.get("crawl/workers"))

    @property
    def done(self) -> tuple[int, int]:
        """Items done, and of how many (0: not known); of all workers where the crawl is shared.

        What failed is not done: another sweep asks for it, or it is missing at the end.
        """
        spider: Any = self.crawler.spider
        done = max(self.get(*_DONE), self.get("crawl/stored"))  # the latter may be of a beat ago
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
    def under_way(self) -> int:
        """Requests that are being answered, and items that are being stored."""
        return under_way(self.crawler)

    @property
    def whole(self) -> str:
        """What all workers did."""
        done, total = self.done
        return f"{done} of {total} {self.nouns}, {self.workers} workers"

    @property
    def whole_counts(self) -> list[str]:
        """What became of the items that all workers fetched."""
        words = {"new": "inserted", "changed": "changed", "unchanged": "unchanged"}
        return [f"{self.get(f'crawl/{stat}')} {word}" for word, stat in words.items()]

    def counts(self, stats: dict[str, str]) -> dict[str, int]:
        """Of these what this process did.

        What is missing, all workers of a crawl miss. Where it is not known it is left out.
        """
        own = {word: self.get(stat) for word, stat in stats.items()}
        if self.workers or self.crawler.stats.get_value("catalogue/missing") is None:
            own.pop("missing", None)
        return own


def log(figures: Figures) -> None:
    """The summary as lines of the log."""
    if figures.workers:
        fetched = ", ".join(figures.whole_counts)
        logger.info("The whole crawl: %s; %s. Of this worker:", figures.whole, fetched)
    counts = figures.counts(_ITEMS | _TROUBLES).items()
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
    """The summary as a few lines, which fit into 40 columns."""
    seconds, requests = map(figures.get, ("elapsed_time_seconds", "downloader/request_count"))
    rows = [("ended", f"{figures.reason} after {seconds:.1f} s"), ("stored in", figures.place)]
    if figures.workers:
        rows += [("crawl", figures.whole), *(("", count) for count in figures.whole_counts)]
        rows += [("own share", "")]
    rows += [("speed", f"{figures.speed:.0f} {figures.nouns}/s, {requests} requests")]
    rows += [(word, f"{count:6}") for word, count in figures.counts(_ITEMS).items()]
    troubles = figures.counts(_TROUBLES | _MORE_TROUBLES).items()
    rows += [(word, f"{count:6}") for word, count in troubles if count]
    return "".join(f"{word:<10} {text}".rstrip() + "\n" for word, text in rows)
