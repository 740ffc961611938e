"""The way to the site and back: ApiOnly keeps requests on the site's API, SiteGate waits while the
site is away and tries again what failed, Decompression and Redirect leave its answers to SiteGate.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from scrapy.downloadermiddlewares.httpcompression import HttpCompressionMiddleware
from scrapy.downloadermiddlewares.redirect import RedirectMiddleware
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Request, Response
from scrapy.http.request import NO_CALLBACK

from spa5.catalogue.backoff import Backoff
from spa5.catalogue.gate import FIRST_ANSWER_SECONDS, Fault, Gate, Kind, Surroundings
from spa5.catalogue.spider import catalogue_of
from spa5.catalogue.walk import Page

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from typing_extensions import Self

logger = logging.getLogger(__name__)

MOST_ROBOTS_BYTES = 512_000  # RFC 9309, 2.5: parsers must take that much
_PROBE = "site_probe"  # in a request's meta


class ApiOnly:
    """Refuses what leaves the API of SITE_URL, above all redirects.

    Unlike Scrapy's OffsiteMiddleware, whose place it takes, it looks at scheme, port and path too,
    and lets the request's errback know.
    """

    def __init__(self, crawler: Crawler):
        self.crawler = crawler

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls(crawler)

    def process_request(self, request: Request) -> None:
        spider = catalogue_of(self.crawler)  # others, the shell's for one, may ask for anything
        if spider and not spider.answers.is_ours(request.url):
            self.crawler.stats.inc_value("offsite/filtered")
            raise IgnoreRequest(f"it leads away from the site's API, to {request.url:.100}")
        if request.url.endswith("/robots.txt"):
            request.meta["download_maxsize"] = MOST_ROBOTS_BYTES


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


class Decompression(HttpCompressionMiddleware):
    """Decompresses as Scrapy does. A body that is not what its label says stays as it is.

    What Scrapy's raises would pass Backoff by; so the body is judged, and asked for again.
    """

    def process_response(  # type: ignore[override]  # without the deprecated `spider`
        self, request: Request, response: Response
    ) -> Request | Response:
        try:
            return super().process_response(request, response)
        except IgnoreRequest:  # it is too large
            raise
        except Exception as error:  # each library has its own
            logger.debug("%s can't be decompressed: %r", request.url, error)
            return response


class Redirect(RedirectMiddleware):
    """Follows redirects within the site's API, as Scrapy does; others are answers, and judged.

    It does not warn of a RefererMiddleware that is off on purpose.
    """

    def process_response(  # type: ignore[override]  # without the deprecated `spider`
        self, request: Request, response: Response
    ) -> Request | Response:
        result = super().process_response(request, response)
        spider = catalogue_of(self.crawler)
        if isinstance(result, Request) and spider:
            return result if spider.answers.is_ours(result.url) else response
        return result

    def _engine_started(self) -> None:
        pass
