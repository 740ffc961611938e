"""`scrapy crawl`, with an exit code that tells whether the crawl did what was asked."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from scrapy.commands import crawl
from scrapy.exceptions import UsageError

if TYPE_CHECKING:
    import argparse

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
        assert self.crawler_process
        try:
            crawler = self._create_crawler(args[0])
            crawling = self.crawler_process.crawl(crawler, **opts.spargs)
            self.crawler_process.start()
            assert isinstance(crawling, asyncio.Task)
            if crawling.done() and not crawling.cancelled():
                crawling.result()
        except (UsageError, KeyError) as error:  # KeyError: no spider of that name
            sys.stderr.write(f"scrapy crawl: {error.args[0]}\n")
            self.exitcode = 2
        else:
            reason = crawler._stats and crawler.stats.get_value("finish_reason")
            self.exitcode = 0 if str(reason).startswith(_DONE) else 1
