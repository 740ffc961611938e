"""SiteGate: the middleware that waits while the site as a whole is away."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from scrapy import Request
from scrapy.http.request import NO_CALLBACK

from spa5.catalogue.gate import FIRST_ANSWER_SECONDS, Fault, Gate, Kind, Surroundings
from spa5.catalogue.spider import catalogue_of
from spa5.catalogue.walk import Page
from spa5.downloadermiddlewares import Backoff

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from scrapy.http import Response

logger = logging.getLogger(__name__)

_PROBE = "site_probe"  # in a request's meta


class SiteGate(Backoff):
    """Backoff that waits while the site as a whole is away, at most SITE_RETRY_SECONDS.

    What failed because of that is sent again, and costs no retry. A site that stays away ends the
    crawl as `site_unavailable`.
    """

    def __init__(self, crawler: Crawler):
        super().__init__(crawler)
        self.closing: asyncio.Task[None] | None = None
        spider = catalogue_of(crawler)
        crawl = Surroundings(
            site=spider.site if spider else "",
            first_url=spider.index_url(Page(0, 1)) if spider else "",
            probe=self._probe,
            rest=self.rest,
            is_ending=self.is_ending,
            give_up=self._give_up,
            count=crawler.stats.inc_value,
        )
        self.gate = Gate(crawl, crawler.settings.getfloat("SITE_RETRY_SECONDS"))

    async def process_request(self, request: Request) -> None:
        await super().process_request(request)
        if _PROBE not in request.meta:
            await self.gate.enter()
            if not self.gate.streak.is_heard:
                seconds = request.meta.get("download_timeout", FIRST_ANSWER_SECONDS)
                request.meta["download_timeout"] = min(seconds, FIRST_ANSWER_SECONDS)

    def _succeeded(self, request: Request, response: Response) -> None:
        if request.url.endswith("/robots.txt"):
            self.gate.streak.is_heard = True
        elif not response.flags:  # "cached" is one
            self.gate.streak.good(request.url)

    async def _failed(self, request: Request, fault: Fault) -> Request | None:
        if _PROBE in request.meta:
            return None
        if await self.gate.failed(request.url, fault):
            again = request.replace(dont_filter=True)
            again.meta.pop("download_timeout", None)  # the first answer's
            return again
        return await super()._failed(request, fault)

    async def _probe(self, url: str, seconds: float) -> Fault | None:
        timeout = round(min(seconds, self.crawler.settings.getfloat("DOWNLOAD_TIMEOUT")), 1)
        meta = {_PROBE: True, "dont_cache": True, "download_timeout": timeout}
        request = Request(url, NO_CALLBACK, meta=meta | {"dont_obey_robotstxt": True})
        try:
            response = await self.crawler.engine.download_async(request)
        except Exception as error:
            return Fault(Kind.CONNECTION, error)
        return self._judge(request, response)

    def _give_up(self, text: str) -> None:
        """End the crawl; what is not stored is fetched by the next one."""
        logger.error("%s", text)
        self.crawler.stats.set_value("site/unavailable", text)  # also when it ends anyway
        closing = self.crawler.engine.close_spider_async(reason="site_unavailable")
        self.closing = asyncio.ensure_future(closing)
