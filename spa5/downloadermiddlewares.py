"""The way to the site and back: ApiOnly keeps requests on the site's API, SiteGate waits while the
site is away and tries again what failed, Decompression and Redirect leave its answers to SiteGate,
Authorization logs in where the site wants it.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from scrapy.downloadermiddlewares.httpcompression import HttpCompressionMiddleware
from scrapy.downloadermiddlewares.redirect import RedirectMiddleware
from scrapy.exceptions import IgnoreRequest, NotConfigured
from scrapy.http import JsonRequest, Request, Response
from scrapy.http.request import NO_CALLBACK

from spa5.catalogue.backoff import Backoff
from spa5.catalogue.gate import FIRST_ANSWER_SECONDS, Fault, Gate, Kind, Surroundings
from spa5.catalogue.login import LogIn, LogInRefused, Session, account_in
from spa5.catalogue.spider import catalogue_of
from spa5.catalogue.walk import Page

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from typing_extensions import Self

logger = logging.getLogger(__name__)

MOST_ROBOTS_BYTES = 512_000  # RFC 9309, 2.5: parsers must take that much
# In a request's meta.
_PROBE = "site_probe"  # it neither waits at the gate nor is judged there
_LOG_IN = "log_in"
_REFUSED = "token_refused"  # how often

MOST_REFUSED = 3  # times that a request is sent again with a new token


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
        if spider and not (_LOG_IN in request.meta or spider.answers.is_ours(request.url)):
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

    async def process_exception(
        self, request: Request, exception: Exception
    ) -> Request | Response | None:
        if isinstance(exception, LogInRefused) and not (self.closing or self.is_ending()):
            self._end(str(exception))
        return await super().process_exception(request, exception)

    def _succeeded(self, request: Request, response: Response) -> None:
        if request.url.endswith("/robots.txt") or _LOG_IN in request.meta:
            self.gate.streak.is_heard = True
        elif not response.flags:  # "cached" is one
            self.gate.streak.good(request.url)

    async def _failed(self, request: Request, fault: Fault) -> Request | None:
        if _LOG_IN in request.meta:
            self.gate.streak.is_heard |= fault.kind is Kind.ANSWER
            if fault.retry_after is not None:
                self._hold_back(fault.retry_after)
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
        logger.error("%s", text)
        self._end(text)

    def _end(self, text: str) -> None:
        """End the crawl; what is not stored is fetched by the next one."""
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


class Authorization:
    """Logs in before the first request of the API, which then all bear the token, see `LogIn`.

    A request that is answered with 401 is sent again with a new token. This middleware stands next
    to the network, and takes the token off again: no cache or queue may hold it. Settings:
    SITE_USER, SITE_PASSWORD.
    """

    def __init__(self, crawler: Crawler):
        log_in = getattr(crawler.spidercls, "log_in", None)
        if not isinstance(log_in, LogIn):
            raise NotConfigured
        self.crawler = crawler
        self.session = Session(log_in, account_in(crawler.settings, log_in))

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls(crawler)

    async def process_request(self, request: Request) -> None:
        spider = catalogue_of(self.crawler)
        if spider and spider.answers.is_api(request.url):
            post = partial(self._post, spider.site, request)
            request.headers["Authorization"] = await self.session.header(post)

    def process_response(self, request: Request, response: Response) -> Request | Response:
        header = request.headers.pop("Authorization", None)
        refused = request.meta.get(_REFUSED, 0)
        if not header or response.status != 401 or refused == MOST_REFUSED:
            return response
        self.session.forget(header[0].decode())
        return request.replace(dont_filter=True, meta=request.meta | {_REFUSED: refused + 1})

    def process_exception(self, request: Request, exception: Exception) -> None:
        request.headers.pop("Authorization", None)

    async def _post(self, site: str, request: Request, path: str, data: dict[str, Any]) -> Response:
        """Post to the site. It takes as long as the request that needs the token may take."""
        alone = ("dont_cache", "dont_obey_robotstxt", "dont_redirect", "dont_retry")
        meta = dict.fromkeys((_LOG_IN, _PROBE, *alone), True)
        meta["download_timeout"] = request.meta.get("download_timeout", 0)
        posted = JsonRequest(f"{site}{path}", data=data, callback=NO_CALLBACK, meta=meta)
        return await self.crawler.engine.download_async(posted)
