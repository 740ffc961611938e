"""The project's Scrapy commands, one a module, and what they share."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from typing import TYPE_CHECKING, Any

from scrapy.exceptions import UsageError

from spa5.catalogue.text import plain, show_plainly

if TYPE_CHECKING:
    import argparse

    from scrapy import Spider
    from scrapy.commands import ScrapyCommand
    from scrapy.crawler import Crawler

    _Base = ScrapyCommand
else:
    _Base = object  # Scrapy would take a subclass of ScrapyCommand in this package for a command

logger = logging.getLogger(__name__)

# Scrapy's reasons for a limit or a signal that the user set start or read like this.
_DONE = ("finished", "shutdown", "closespider_")

show_plainly()  # Scrapy imports this package before it runs any command


class OnlyLooks(_Base):
    """Makes a command show pages: nothing is skipped, swept, summed up or waited for.

    No database is needed, except for `scrapy parse --pipelines`: Scrapy opens the item pipelines
    for each command that fetches.
    """

    def process_options(self, args: list[str], opts: argparse.Namespace) -> None:
        super().process_options(args, opts)
        assert self.settings is not None
        off = {"spa5.screen.progress.Progress": None}
        self.settings["EXTENSIONS"].update(off, priority="cmdline")
        way = {"spa5.downloadermiddlewares.SiteGate": None, "spa5.catalogue.backoff.Backoff": 550}
        self.settings["DOWNLOADER_MIDDLEWARES"].update(way, priority="cmdline")
        self.settings.set("SPIDER_MIDDLEWARES", {}, priority="cmdline")
        if not getattr(opts, "pipelines", False):
            self.settings.set("ITEM_PIPELINES", {}, priority="cmdline")


def run_spider(
    command: ScrapyCommand, spider: str | type[Spider], arguments: dict[str, str]
) -> int:
    """Run a crawl to its end, and return the exit code that tells whether it did what was asked.

    0: it did, or a limit or signal of the user's ended it; 1: it did not; 2: the spider does not
    exist or refuses its arguments or settings, which is told in one line.
    """
    from spa5.engine import stats_of  # `scrapy doctor` must start without aiohttp

    try:
        stats = stats_of(run_crawl(command, spider, **arguments))
    except (UsageError, KeyError) as error:  # KeyError: no spider of that name
        return refuse(command, error)
    done = str(stats.get("finish_reason")).startswith(_DONE)
    return 0 if done and not any(name.endswith("/unavailable") for name in stats) else 1


def refuse(command: ScrapyCommand, error: Exception) -> int:
    """Say in one line what is wrong with the arguments or settings; return the exit code."""
    name = command.__module__.rpartition(".")[2]
    sys.stderr.write(plain(f"scrapy {name}: {error.args[0]}\n"))
    if command.settings and command.settings["LOG_FILE"]:  # scrapyd shows that one
        logger.error("%s", error.args[0])
    return 2


def run_crawl(command: ScrapyCommand, spider: str | type[Spider], **arguments: Any) -> Crawler:
    """Run a crawl to its end; UsageError where the spider refuses its arguments or settings."""
    from spa5.engine import stats_of

    process = command.crawler_process
    assert process
    crawler = process.create_crawler(spider)
    # Scrapy filters at the handler only: each response would make records for nobody.
    logging.getLogger("scrapy").setLevel(crawler.settings["LOG_LEVEL"])
    # What was imported stays: the collector need not look at it each time.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    crawling = process.crawl(crawler, **arguments)
    process.start()
    assert isinstance(crawling, asyncio.Task)
    if not crawling.done() and "start_time" not in stats_of(crawler):
        # A signal came while the crawl was being opened: Scrapy just leaves it so.
        crawling.cancel()
        crawling.get_loop().run_until_complete(asyncio.wait([crawling]))
    if crawling.done() and not crawling.cancelled():
        crawling.result()
    return crawler
