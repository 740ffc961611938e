"""The project's Scrapy commands, one a module."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scrapy.crawler import Crawler, CrawlerProcessBase
    from scrapy.settings import Settings


def only_look(settings: Settings | None, *, store: bool = False) -> None:
    """Let a command show pages: nothing is skipped, swept or waited for, no database is needed.

    With `store` the item pipelines stay. Scrapy opens them for each command that fetches.
    """
    assert settings is not None
    settings.set("SPIDER_MIDDLEWARES", {}, priority="cmdline")
    settings.set("PROGRESS_ENABLED", False, priority="cmdline")
    way = {"spa5.sitegate.SiteGate": None, "spa5.downloadermiddlewares.Backoff": 550}
    settings["DOWNLOADER_MIDDLEWARES"].update(way, priority="cmdline")
    if not store:
        settings.set("ITEM_PIPELINES", {}, priority="cmdline")


def run_crawl(process: CrawlerProcessBase | None, crawler: Crawler, **arguments: Any) -> None:
    """Run a crawl to its end; UsageError where the spider refuses its arguments or settings."""
    assert process
    crawling = process.crawl(crawler, **arguments)
    process.start()
    assert isinstance(crawling, asyncio.Task)
    if not crawling.done() and not (crawler._stats and crawler.stats.get_value("start_time")):
        # A signal came while the crawl was being opened: Scrapy just leaves it so.
        crawling.cancel()
        crawling.get_loop().run_until_complete(asyncio.wait([crawling]))
    if crawling.done() and not crawling.cancelled():
        crawling.result()
