"""ApiOnly keeps requests on the site's API; Backoff tries again, ever more slowly; Redirect
follows without a referrer.
"""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import TYPE_CHECKING

from scrapy.downloadermiddlewares.redirect import RedirectMiddleware
from scrapy.downloadermiddlewares.retry import RetryMiddleware, get_retry_request
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response

from spa5 import api

if TYPE_CHECKING:
    from scrapy import Request
    from scrapy.crawler import Crawler
    from typing_extensions import Self

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.25
MOST_PAUSE_SECONDS = 30.0
MOST_RETRY_AFTER_SECONDS = 120.0
MOST_ROBOTS_BYTES = 512_000  # RFC 9309, 2.5: parsers must take that much


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
        site = getattr(self.crawler.spider, "site", None)  # other spiders, the shell's: anything
        if site and not api.is_ours(site, request.url):
            self.crawler.stats.inc_value("offsite/filtered")
            raise IgnoreRequest(f"it leads away from the site's API, to {request.url:.100}")
        if request.url.endswith("/robots.txt"):
            request.meta["download_maxsize"] = MOST_ROBOTS_BYTES


class Backoff(RetryMiddleware):
    """Takes the place of RetryMiddleware, which tries again at once and trusts every 200.

    Passing failures (5xx, 408, 429, RETRY_EXCEPTIONS, and what is no answer of the API) are tried
    RETRY_TIMES more, after pauses that double, with jitter. The pause keeps its place among
    CONCURRENT_REQUESTS, so that a struggling site is asked less. `Retry-After` holds back all.
    """

    crawler: Crawler
    resume_at = 0.0  # on the monotonic clock

    async def process_request(self, request: Request) -> None:
        while (pause := self.resume_at - monotonic()) > 0 and self.crawler.engine.running:
            await self._sleep(pause)

    async def process_response(  # type: ignore[override]  # Scrapy awaits it
        self, request: Request, response: Response
    ) -> Request | Response:
        if reason := self._passing(request, response):
            return await self._again(request, reason, retry_after(response)) or response
        return response

    async def process_exception(  # type: ignore[override]
        self, request: Request, exception: Exception
    ) -> Request | Response | None:
        if isinstance(exception, self.exceptions_to_retry) and (
            again := await self._again(request, exception)
        ):
            return again
        if request.url.endswith("/robots.txt") and not isinstance(exception, IgnoreRequest):
            reason = api.reason(exception)
            logger.warning("No robots.txt could be had (%s): going on without", reason)
            return Response(request.url, status=404)
        return None

    def _passing(self, request: Request, response: Response) -> str | Exception | None:
        """What is wrong with a response that may be right the next time."""
        status = response.status
        if status >= 500 or status in (408, 429):
            return f"status {status}"
        site = getattr(self.crawler.spider, "site", None)
        if (200 <= status < 300 or status == 404) and site and api.is_api(site, response.url):
            return api.flaw(response, request.meta.get("listed") or {})
        return None

    async def _again(
        self, request: Request, reason: str | Exception, after: float | None = None
    ) -> Request | None:
        """The request to send after a pause, which this spends; None after the last try."""
        assert self.crawler.spider
        again = get_retry_request(
            request,
            spider=self.crawler.spider,
            reason=reason,
            max_retry_times=self.max_retry_times,
        )
        if again is None:
            return None
        if after is not None:
            self._hold_back(after)
        else:
            times = again.meta["retry_times"] - 1
            pause = min(FIRST_PAUSE_SECONDS * 2**times, MOST_PAUSE_SECONDS)
            await self._sleep(pause * random.uniform(0.5, 1))
        return again

    def _hold_back(self, seconds: float) -> None:
        if seconds > self.resume_at - monotonic() + 1:
            logger.warning("The site asks for a pause: nothing is sent for %.0f s", seconds)
        self.resume_at = max(self.resume_at, monotonic() + seconds)

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but not on when the crawl is being stopped: no signal tells of that."""
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0 and self.crawler.engine.running:  # noqa: ASYNC110
            await asyncio.sleep(min(left, 0.5))


class Redirect(RedirectMiddleware):
    """Scrapy's own, but that it does not warn of a RefererMiddleware that is off on purpose."""

    def _engine_started(self) -> None:
        pass


def retry_after(response: Response) -> float | None:
    """`Retry-After` in seconds, given so or as a date (RFC 9110, 10.2.3), at most two minutes."""
    value = (response.headers.get(b"Retry-After") or b"").decode("latin-1").strip()
    try:
        if value.isascii() and value.isdigit():
            seconds = float(value[:10])
        else:
            date = parsedate_to_datetime(value)
            date = date.replace(tzinfo=date.tzinfo or timezone.utc)
            seconds = (date - datetime.now(timezone.utc)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), MOST_RETRY_AFTER_SECONDS)
