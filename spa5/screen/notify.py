"""Notify: tells people that a crawl was not complete, and that one is again."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from scrapy import signals
from scrapy.exceptions import NotConfigured

from spa5.catalogue.spider import catalogue_of
from spa5.engine import stats_of
from spa5.screen import send
from spa5.screen.message import message_of

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from scrapy.settings import BaseSettings
    from typing_extensions import Self

logger = logging.getLogger(__name__)

MOST_SECONDS = 15  # that the end of a crawl is held up
_BETWEEN = re.compile(r",(?=\s*\w+://)|\s+")  # URLs; there are commas in some


class Notify:
    """Sends a message when a crawl ends otherwise than complete, and when one is complete again.

    Of a shared crawl's workers the leader sends the message. Setting: NOTIFY_URLS, for Apprise.
    They hold secrets: of each the log has its number and scheme alone.
    """

    def __init__(self, crawler: Crawler):
        self.urls = urls_in(crawler.settings)
        if not self.urls:
            raise NotConfigured
        if find_spec("apprise") is None:
            logger.warning("NOTIFY_URLS can't be told anything: pip install apprise")
            raise NotConfigured
        self.crawler = crawler
        self.has_started = False
        self.checking: asyncio.Task[set[int]] | None = None
        crawler.signals.connect(self.spider_opened, signals.spider_opened)
        crawler.signals.connect(self.engine_started, signals.engine_started)
        crawler.signals.connect(self.spider_closed, signals.spider_closed)
        crawler.signals.connect(self.engine_stopped, signals.engine_stopped)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls(crawler)

    def spider_opened(self) -> None:
        self.checking = asyncio.ensure_future(self._check())

    def engine_started(self) -> None:
        self.has_started = True

    async def spider_closed(self, reason: str) -> None:
        """A crawl that can't be opened starts no engine. Otherwise the ledger is open still."""
        if not self.has_started:
            await self._tell(message_of(self.crawler, reason))

    async def engine_stopped(self) -> None:
        spider = catalogue_of(self.crawler)
        crew = spider.outcomes.crew if spider else None
        reason = str(stats_of(self.crawler).get("finish_reason"))
        leads = crew is None or crew.leading
        await self._tell(message_of(self.crawler, reason) if leads else None)

    async def _check(self) -> set[int]:
        """Return the numbers of the URLs that Apprise can't use."""
        outcomes = await run(self.urls, None)
        wrong = {number for number, outcome in outcomes.items() if outcome == send.WRONG}
        for number in sorted(wrong):
            logger.warning("NOTIFY_URLS: Apprise can't use %s", self._name(number))
        return wrong

    async def _tell(self, message: dict[str, Any] | None) -> None:
        """Send the message, if there is one; the check of the URLs ends in any case."""
        outcomes = await run(self.urls, message) if message else {}
        wrong = await self.checking if self.checking else set()
        if message is None:
            return
        stats = self.crawler.stats
        for number in range(len(self.urls)):
            if outcomes.get(number) == send.SENT:
                stats.inc_value("notify/sent")
                continue
            stats.inc_value("notify/failed")
            if number not in wrong:
                said = "NOTIFY_URLS: no message reached %s: `apprise -vv -b test URL` tells why"
                logger.warning(said, self._name(number))
        sent = stats.get_value("notify/sent", 0)
        logger.info("NOTIFY_URLS: a message reached %d of %d", sent, len(self.urls))

    def _name(self, number: int) -> str:
        scheme = re.match(r"[A-Za-z0-9]{1,20}://", self.urls[number])
        return f"URL {number + 1}" + (f" ({scheme[0]})" if scheme else "")


def urls_in(settings: BaseSettings) -> list[str]:
    """Return the URLs of NOTIFY_URLS, a list, or a text with white space or commas between them."""
    given = settings["NOTIFY_URLS"] or ""
    text = given if isinstance(given, str) else " ".join(map(str, given))
    return [url for one in _BETWEEN.split(text) if (url := one.strip(","))]


async def run(urls: list[str], message: dict[str, Any] | None) -> dict[int, str]:
    """Send a message, or check the URLs; return what became of each by its place among them.

    Those are left out of which nothing is known in time.
    """
    return await asyncio.to_thread(_run, json.dumps({"urls": urls, "message": message}).encode())


def _run(job: bytes) -> dict[int, str]:
    command = [sys.executable, "-m", send.__name__]
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}  # scrapyd adds an egg
    out, err, said = subprocess.PIPE, subprocess.DEVNULL, b""
    try:
        said = subprocess.run(
            command, input=job, stdout=out, stderr=err, env=paths, timeout=MOST_SECONDS
        ).stdout
    except subprocess.TimeoutExpired as error:
        said = error.stdout or b""
    except OSError as error:
        logger.warning("NOTIFY_URLS: %s does not run: %s", sys.executable, error.strerror)
    lines = (line.split() for line in said.decode().splitlines())
    return {int(number): outcome for number, outcome in lines}
