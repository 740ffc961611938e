"""Backoff: tries again what failed, ever more slowly."""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import TYPE_CHECKING

from scrapy.downloadermiddlewares.retry import get_retry_request
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Request, Response
from scrapy.spidermiddlewares.httperror import HttpError
from scrapy.utils.misc import load_object
from scrapy.utils.response import response_status_message

from spa5.catalogue.answers import reason
from spa5.catalogue.gate import FIRST_PAUSE_SECONDS, MOST_PAUSE_SECONDS, Fault, Kind
from spa5.catalogue.spider import catalogue_of
from spa5.engine import is_ending

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from typing_extensions import Self

logger = logging.getLogger(__name__)

MOST_RETRY_AFTER_SECONDS = 120.0


class Backoff:
    """Takes the place of RetryMiddleware, which tries again at once and trusts every 200.

    Passing failures (RETRY_HTTP_CODES, RETRY_EXCEPTIONS, and what is no answer of the API) are
    tried RETRY_TIMES more, after pauses that double, with jitter. The pause keeps its place among
    CONCURRENT_REQUESTS, so that a struggling site is asked less. `Retry-After` holds back all.
    RETRY_ENABLED, and `dont_retry` and `max_retry_times` in a request's meta, work as in Scrapy.
    """

    def __init__(self, crawler: Crawler):
        settings = crawler.settings
        self.crawler = crawler
        self.is_enabled = settings.getbool("RETRY_ENABLED")
        self.codes = {int(code) for code in settings.getlist("RETRY_HTTP_CODES")}
        self.exceptions = tuple(map(load_object, settings.getlist("RETRY_EXCEPTIONS")))
        self.resume_at = 0.0  # on the monotonic clock

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls(crawler)

    async def process_request(self, request: Request) -> None:
        while (pause := self.resume_at - monotonic()) > 0 and not self.is_ending():
            await self.rest(pause)

    async def process_response(self, request: Request, response: Response) -> Request | Response:
        fault = self._judge(request, response)
        if fault is None:
            self._succeeded(request, response)
            return response
        request.meta["dont_cache"] = True  # HTTPCACHE_ENABLED would give the same answer again
        return await self._failed(request, fault) or response

    async def process_exception(
        self, request: Request, exception: Exception
    ) -> Request | Response | None:
        if isinstance(exception, self.exceptions):
            fault = Fault(Kind.CONNECTION, exception)
            if again := await self._failed(request, fault):
                return again
        if request.url.endswith("/robots.txt") and not isinstance(exception, IgnoreRequest):
            why = reason(exception)
            logger.warning("No robots.txt could be had (%s): going on without", why)
            return Response(request.url, status=404)
        return None

    def is_ending(self) -> bool:
        """True if the crawl is being stopped, of which no signal tells."""
        return is_ending(self.crawler)

    async def rest(self, seconds: float) -> None:
        """Sleep, but not on when the crawl is being stopped."""
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0 and not self.is_ending():  # noqa: ASYNC110
            await asyncio.sleep(min(left, 0.5))

    def _judge(self, request: Request, response: Response) -> Fault | None:
        """Return what is wrong with a response, or None."""
        status = response.status
        if status in self.codes or status >= 500 or status in (408, 429):
            after = retry_after(response)
            return Fault(Kind.ANSWER, HttpError(response), status in self.codes, after)
        spider = catalogue_of(self.crawler)
        if spider is None or not spider.answers.is_api(response.url):
            return None
        if 200 <= status < 300 or status == 404:
            flaw = spider.answers.flaw(response, request.meta)
            return Fault(Kind.ANSWER, flaw) if flaw else None
        if status >= 400:
            return Fault(Kind.REFUSAL, HttpError(response), is_passing=False)
        if b"Location" in response.headers:
            return Fault(Kind.MOVED, HttpError(response), is_passing=False)
        return None

    def _succeeded(self, request: Request, response: Response) -> None:
        pass

    async def _failed(self, request: Request, fault: Fault) -> Request | None:
        """The request to send after a pause, which this spends; None after the last try."""
        if not (self.is_enabled and fault.is_passing) or request.meta.get("dont_retry"):
            return None
        assert self.crawler.spider
        why: str | Exception = fault.error
        if isinstance(why, HttpError):
            why = response_status_message(why.response.status)
        again = get_retry_request(request, spider=self.crawler.spider, reason=why)
        if again is None:
            return None
        if fault.retry_after is not None:
            self._hold_back(fault.retry_after)
        else:
            times = again.meta["retry_times"] - 1
            pause = min(FIRST_PAUSE_SECONDS * 2**times, MOST_PAUSE_SECONDS)
            await self.rest(pause * random.uniform(0.5, 1))
        return again

    def _hold_back(self, seconds: float) -> None:
        if seconds > self.resume_at - monotonic() + 1:
            logger.warning("The site asks for a pause: nothing is sent for %.0f s", seconds)
        self.resume_at = max(self.resume_at, monotonic() + seconds)


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
