"""`scrapy crawl`, with an exit code that tells whether the crawl did what was asked."""

from __future__ import annotations

import gc
import logging
import sys
from typing import TYPE_CHECKING

from scrapy.commands import crawl
from scrapy.exceptions import UsageError

from spa5.commands import run_crawl

if TYPE_CHECKING:
    import argparse

logger = logging.getLogger(__name__)

# Scrapy's reasons for a limit or a signal that the user set start or read like this.
_DONE = ("finished", "shutdown", "closespider_")


class Command(crawl.Command):
    """Scrapy's own command, but for its end: wrong arguments are one line and exit code 2, and
    a crawl that did not do what was asked is exit code 1.
    """

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        if len(args) != 1:
            super().run(args, opts)  # says what is wrong
            return
        try:
            crawler = self._create_crawler(args[0])
        except (UsageError, KeyError) as error:  # KeyError: no spider of that name
            self._refuse(error)
            return
        # Scrapy filters at the handler only: each response would make records for nobody.
        logging.getLogger("scrapy").setLevel(crawler.settings["LOG_LEVEL"])
        # What was imported stays: the collector need not look at it each time.
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        try:
            run_crawl(self.crawler_process, crawler, **opts.spargs)
        except UsageError as error:
            self._refuse(error)
            return
        stats = crawler.stats.get_stats() if crawler._stats else {}
        done = str(stats.get("finish_reason")).startswith(_DONE)
        is_cut_short = any(name.endswith("/unavailable") for name in stats)
        self.exitcode = 0 if done and not is_cut_short else 1

    def _refuse(self, error: Exception) -> None:
        sys.stderr.write(f"scrapy crawl: {error.args[0]}\n")
        if self.settings and self.settings["LOG_FILE"]:  # scrapyd shows that one
            logger.error("%s", error.args[0])
        self.exitcode = 2
