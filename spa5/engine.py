"""Engine: all that the project uses of Scrapy's private parts, and what to do when one goes.

They are those of Scrapy 2.19. Elsewhere, two subclasses of Scrapy's override private methods: the
command genspider, and the middleware Redirect.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from scrapy import signals
from scrapy.core.downloader.handlers._aiohttp import AiohttpDownloadHandler
from scrapy.exceptions import DownloadFailedError
from scrapy.statscollectors import MemoryStatsCollector
from scrapy.utils.log import get_scrapy_root_handler

if TYPE_CHECKING:
    from collections.abc import Callable

    from scrapy import Request
    from scrapy.commands import fetch
    from scrapy.crawler import Crawler
    from scrapy.http import Response

_CREDENTIALS = re.compile(r"//\S*@")  # in a URL


class Aiohttp(AiohttpDownloadHandler):
    """Scrapy's handler on aiohttp, which takes less time than the one on Twisted.

    Scrapy 2.19 calls it experimental and warns at each start, for each scheme. Here the fault tests
    run on it, so it stands without the warning. README, Speed, says what it brings. Without it:
    DOWNLOAD_HANDLERS = {} in the settings.
    """

    experimental = False
    lazy = True  # no connector for http where the site is on https

    async def download_request(self, request: Request) -> Response:
        """Download as Scrapy does. aiohttp's errors may quote the proxy's URL with the password."""
        try:
            return await super().download_request(request)
        except DownloadFailedError as error:
            if (said := _CREDENTIALS.sub("//", str(error))) == str(error):
                raise
            raise DownloadFailedError(f"{type(error.__cause__).__name__}: {said}") from None


class Stats(MemoryStatsCollector):
    """Scrapy's collector without its own look-up of attributes.

    Scrapy 2.19's wraps each access, to warn of an argument that nobody here passes: for some
    twenty counts an item that is 6 % of a crawl's instructions. Without it: leave STATS_CLASS out.
    """

    __getattribute__ = object.__getattribute__


def is_ending(crawler: Crawler) -> bool:
    """True if the crawl is being stopped, of which no signal tells."""
    engine = crawler.engine
    return not engine.running or engine._slot is None or engine._slot.closing is not None


def is_idle(crawler: Crawler) -> bool:
    """True if no request waits or is being answered, and every item is through the pipelines."""
    engine = crawler.engine
    assert engine.scheduler is not None  # an empty one is false
    slot = engine.scraper.slot
    is_waiting = bool(engine.downloader.active) or engine.scheduler.has_pending_requests()
    return not is_waiting and (slot is None or slot.is_idle())


async def idle(crawler: Crawler) -> None:
    """Return when every request is answered and every item is through the pipelines."""
    while not is_idle(crawler):
        await crawler.signals.wait_for(signals.scheduler_empty)


def under_way(crawler: Crawler) -> int:
    """Count the requests that are being answered, and the responses that are worked through."""
    engine = crawler.engine
    slot = engine.scraper.slot
    return len(engine.downloader.active) + (len(slot.queue) + len(slot.active) if slot else 0)


def wake(crawler: Crawler) -> None:
    """Let the engine look for requests now: the scheduler has some that it did not ask for."""
    if crawler.engine.running and crawler.engine._slot:
        crawler.engine._slot.nextcall.schedule()


def set_delay(crawler: Crawler, request: Request, seconds: float) -> None:
    """Set the pause between requests to the request's site, which Scrapy reads but once."""
    downloader = crawler.engine.downloader
    key = downloader.get_slot_key(request)
    downloader.per_slot_settings[key] = {"delay": seconds}  # of a slot that is made anew
    if key in downloader.slots:
        downloader.slots[key].delay = seconds


def stats_of(crawler: Crawler) -> dict[str, Any]:
    """A crawler's stats; none if it has not begun, of which `crawler.stats` tells by an error."""
    return crawler._stats.get_stats() if crawler._stats else {}


def print_by(command: fetch.Command, show: Callable[[bytes], None]) -> None:
    """Let `scrapy fetch` show what it fetched otherwise. Without it, terminals get raw bytes."""
    command._print_bytes = show  # type: ignore[assignment,method-assign]


def log_handler() -> logging.StreamHandler[Any] | None:
    """The handler through which the log reaches stderr, where it does."""
    handler = get_scrapy_root_handler()
    return handler if isinstance(handler, logging.StreamHandler) else None
