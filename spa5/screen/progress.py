"""Progress: what a crawl tells people, a bar while it runs and a summary at its end."""

from __future__ import annotations

import atexit
import os
import sys
from typing import TYPE_CHECKING

from scrapy import signals
from scrapy.utils.asyncio import create_looping_call

from spa5.catalogue.spider import catalogue_of
from spa5.catalogue.text import plain
from spa5.engine import under_way
from spa5.screen.summary import DONE, FAILED, Figures, log, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scrapy.crawler import Crawler
    from typing_extensions import Self

    from spa5.screen.bar import Bar

_TICK_SECONDS = 0.25


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
            count = under_way(self.crawler)
            self._show("finishing", f"{count} under way" if count else "")

    def _show(self, pace: str, time: str) -> None:
        """Draw all, or what matters most where the terminal is narrow."""
        assert self.bar is not None
        done, total = self.figures.done
        count = f"{done}/{total}" if total else f"{done}"
        percent = f"{done * 100 // total}%" if total else ""
        bar = f"{percent:>4}|{{bar}}| " if total else ""
        own = self._counted("own", DONE) if self.figures.workers else ""
        retried, failed = self._counted("retried", ["retry/count"]), self._counted("failed", FAILED)
        texts = (
            (f"{bar}{count} {self.figures.nouns}", own, pace, time, retried, failed),
            (f"{percent} {count}".lstrip(), own, pace, time, retried, failed),
            (count, pace, time, retried, failed),
            (count, pace, time, failed),
            (count, pace, failed),
        )
        self.bar.show(done, total, [", ".join(filter(None, text)) for text in texts])

    def _counted(self, word: str, stats: Sequence[str]) -> str:
        count = self.figures.get(*stats)
        return f"{count} {word}" if count else ""
