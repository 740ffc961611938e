"""BooksSpider: index page -> detail request -> Book."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from itemadapter import ItemAdapter
from scrapy import Request, Spider, signals
from scrapy.exceptions import UsageError
from scrapy.spidermiddlewares.httperror import HttpError
from w3lib.url import safe_url_string

from spa5 import api
from spa5.items import Book, InvalidBook, book_id, brief

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from scrapy.crawler import Crawler
    from scrapy.http import Response
    from scrapy.settings import BaseSettings
    from twisted.python.failure import Failure
    from typing_extensions import Self

REFRESH = ("changed", "missing", "all")
# A walk ends when so many index pages held the same books as others before them.
MOST_RECURRED = 50
# What an index page says of a book besides its id.
SUMMARY = ("name", "authors", "cover", "score")


class BooksSpider(Spider):
    """Asks for the catalogue's index pages, and for the detail of each book that they list.

    Arguments: `pages` (index pages at the most; all), `page_size` (books a page; 100), `refresh`
    (which stored books to fetch again: `changed`, `missing` or `all`; `changed`) and `ids`
    (comma-separated: just these books, no index). Settings: SITE_URL, CONCURRENT_REQUESTS,
    REDIS_URL, CRAWL_ID.
    """

    name = "books"

    def __init__(
        self,
        pages: str | None = None,
        page_size: str = "100",
        refresh: str = "changed",
        ids: str | None = None,
        **others: Any,
    ):
        # scrapyd adds arguments of its own, `_job` for one.
        if unknown := sorted(name for name in others if not name.startswith("_")):
            raise UsageError(
                f"no spider argument {unknown[0]!r}; there are pages, page_size, refresh and ids"
            )
        super().__init__(**others)
        self.pages = None if pages is None else _positive("pages", pages)
        self.page_size = _positive("page_size", page_size)
        if refresh not in REFRESH:
            raise UsageError(f"refresh={brief(refresh)}: use one of {', '.join(REFRESH)}")
        self.refresh = refresh
        self.ids = None if ids is None else _ids(ids)
        self.site = ""
        self.allowed_domains: list[str] = []
        self.answered = asyncio.Event()  # set by each answer
        self.reserve = 1  # requests: as many as may be in flight
        self.enqueued_before = 0  # requests, when the walk began
        self._start_walk()

    @classmethod
    def from_crawler(cls, crawler: Crawler, *args: Any, **kwargs: Any) -> Self:
        spider = super().from_crawler(crawler, *args, **kwargs)
        spider.site = str(crawler.settings["SITE_URL"]).rstrip("/")
        if "@" in spider.site:
            raise UsageError("SITE_URL: leave user and password out, logs would show them")
        parts = urlsplit(spider.site)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise UsageError(f"SITE_URL={brief(spider.site)}: use http(s)://host")
        spider.site = safe_url_string(spider.site)  # once, for all details
        spider.allowed_domains = [parts.hostname]
        spider.reserve = crawler.settings.getint("CONCURRENT_REQUESTS")
        for name in ("REFRESH_AFTER_DAYS", "MAX_SWEEPS", "MONGO_RETRY_SECONDS"):
            _check_number(name, crawler.settings[name])
        crawler.signals.connect(spider.item_dropped, signals.item_dropped)
        crawler.signals.connect(spider.request_dropped, signals.request_dropped)
        return spider

    @classmethod
    def update_settings(cls, settings: BaseSettings) -> None:
        """CONCURRENT_REQUESTS alone rules: the limit per domain follows at the same priority."""
        super().update_settings(settings)
        limit = _positive("CONCURRENT_REQUESTS", settings["CONCURRENT_REQUESTS"])
        priority = settings.getpriority("CONCURRENT_REQUESTS") or 0
        settings.set("CONCURRENT_REQUESTS_PER_DOMAIN", limit, priority)
        if settings["REDIS_URL"] or settings["CRAWL_ID"]:
            settings.set("SCHEDULER", "spa5.crew.scheduler.Scheduler", "spider")

    async def start(self) -> AsyncIterator[Request]:
        """Yield the index pages lazily, so that few requests wait but never none."""
        if self.ids is not None:
            for one in self.ids:
                yield self.detail_request(one, {})
            return
        self._start_walk()
        self.enqueued_before = self.crawler.stats.get_value("scheduler/enqueued", 0)
        while self.pages_asked != self.pages:
            if self.offset >= min(self.end, self.empty_from):
                if not self.pages_open:
                    return
            elif self._lacks_requests():
                yield self._next_page()
                continue
            self.answered.clear()
            await self.answered.wait()

    def _lacks_requests(self) -> bool:
        """Whether what waits, and what the pages asked for will add, is less than a reserve.

        A page adds as many requests as the pages before it did on average: none of them where
        all books are stored. Then pages fill the semaphore.
        """
        scheduler: Any = self.crawler.engine.scheduler
        enqueued = self.crawler.stats.get_value("scheduler/enqueued", 0)
        added = enqueued - self.enqueued_before - self.pages_asked
        answered = self.pages_asked - self.pages_open
        coming = self.pages_open * added / answered if answered else 0
        return bool(len(scheduler) + coming < 2 * self.reserve)

    def _start_walk(self) -> None:
        self.offset = 0  # of the next page to ask for
        self.step = self.page_size  # books a page; fewer where the site caps its pages
        self.end: float = 1  # how far the catalogue is known to go; the first page tells more
        self.empty_from = inf  # the lowest offset whose page was empty
        self.pages_seen: set[int] = set()  # hashes of their ids
        self.pages_recurred = 0  # as they may while the catalogue shifts; but not for ever
        self.pages_asked = 0
        self.pages_open = 0  # asked for and not yet answered
        self.shrunk = False  # books were removed meanwhile: others may have slipped through
        self.lost: list[str] = []  # ids of some of the books that could not be had

    def _next_page(self) -> Request:
        offset = self.offset
        self.offset += self.step
        return self.index_request(offset, self.step)

    def index_request(self, offset: int, limit: int) -> Request:
        self.pages_asked += 1
        self.pages_open += 1
        return Request(
            api.index_url(self.site, offset, limit),
            self.parse_index,
            errback=self.index_failed,
            dont_filter=True,  # a page is asked for again in each sweep
        )

    def detail_request(self, one: str, listed: dict[str, Any]) -> Request:
        """The request for a book's detail; `listed` is what the index page says of it."""
        return Request(
            api.detail_url(self.site, one),
            self.parse_detail,
            errback=self.detail_failed,
            # Behind the site it is digits only: Scrapy and aiohttp need not quote it each time.
            meta={"book_id": one, "listed": listed, "verbatim_url": True},
        )

    def parse_index(self, response: Response) -> list[Request]:
        """A request for each book that the page lists, and for what it was cut short of.

        A list, for the walk waits for this page whatever becomes of the requests.
        """
        try:
            return list(self._parse_index(response))
        finally:
            self._page_answered()

    def _parse_index(self, response: Response) -> Iterator[Request]:
        try:
            page = api.answer(response)
        except api.Flaw as flaw:
            self._index_lost(response.url, str(flaw))
            return
        listed = self._listed(response.url, page["results"])
        if more := self._turn_page(response.url, page, hash(tuple(listed))):
            yield more
        for one, summary in listed.items():
            yield self.detail_request(one, summary)

    def _listed(self, url: str, results: list[Any]) -> dict[str, dict[str, Any]]:
        """By id, what a page says of its books."""
        listed = {}
        self.count("books/listed", len(results))
        for result in results:
            try:
                one = book_id(result.get("id") if isinstance(result, dict) else None)
            except InvalidBook as error:
                self._invalid(url, error)
            else:
                listed[one] = {name: result.get(name) for name in SUMMARY}
        return listed

    def _turn_page(self, url: str, page: dict[str, Any], seen: int) -> Request | None:
        """Learn where the next pages are: the next offset follows from what this page held.

        The first page shows whether the site caps its pages; what a later page is short of is
        asked for again at once. A count that is unusable or less than what the pages hold is not
        believed: then each page leads to the next until one is empty.
        """
        offset, limit = api.index_position(url)
        held, count = len(page["results"]), api.site_count(page)
        after = offset + held
        if count is not None:
            self.shrunk |= count < self.crawler.stats.get_value("books/expected", 0)
            self.crawler.stats.set_value("books/expected", count)
        self.pages_recurred += seen in self.pages_seen
        if not held or self.pages_recurred > MOST_RECURRED:
            self.empty_from = min(offset, self.empty_from)
            return None
        self.pages_seen.add(seen)
        self.end = max(self.end, after + 1 if count is None or count < after else count)
        if held >= limit or after >= self.end:
            return None
        if offset == 0:
            self.offset = self.step = held
            return None
        return None if self.pages_asked == self.pages else self.index_request(after, limit - held)

    def parse_detail(self, response: Response) -> Iterator[Book]:
        """Yield the book that a detail holds, if it is the one that was asked for."""
        self.answered.set()
        errors: list[str] = []
        try:
            book = Book.from_api(api.answer(response), errors)
            asked = response.meta.get("book_id") or api.asked_id(response.url)
            if book.id != asked:
                raise InvalidBook(f"it answers with book {book.id}")
        except api.Flaw as flaw:
            self._detail_lost(response.url, str(flaw))
            return
        except InvalidBook as error:
            self._invalid(response.url, error)
            return
        if errors:
            self._field_errors(response.url, errors)
        yield book

    def index_failed(self, failure: Failure) -> None:
        self._page_answered()
        self._index_lost(_url(failure), _reason(failure))

    def detail_failed(self, failure: Failure) -> None:
        self.answered.set()
        if isinstance(failure.value, HttpError) and failure.value.response.status == 404:
            self.count("books/vanished")
            self.logger.info("%s is listed, but gone (404)", _url(failure))
        else:
            self._detail_lost(_url(failure), _reason(failure))

    def _page_answered(self) -> None:
        self.pages_open -= 1
        self.answered.set()

    def _index_lost(self, url: str, reason: str) -> None:
        self.count("books/index_failed")
        self.logger.error("%s failed: %s", url, reason)

    def _detail_lost(self, url: str, reason: str) -> None:
        self.count("books/failed")
        self._lose(api.asked_id(url))
        self.logger.error("%s failed: %s", url, reason)

    def _invalid(self, url: str, reason: InvalidBook) -> None:
        self.count("books/invalid")
        self._lose(api.asked_id(url))
        self.logger.warning("%s holds no usable book: %s", url, reason)

    def item_dropped(self, item: Any) -> None:
        self._lose(ItemAdapter(item).get("id"))

    def request_dropped(self, request: Request) -> None:
        """The duplicate filter drops books that are listed twice, rightly; and silently also
        those whose detail redirects to one that was asked for.
        """
        if "redirect_times" in request.meta:
            asked = api.detail_url(self.site, request.meta["book_id"])
            self._detail_lost(asked, f"it redirects to {request.url}, which was asked for")

    def _lose(self, one: str | None) -> None:
        if one and len(self.lost) < 20 and one not in self.lost:
            self.lost.append(one)

    def _field_errors(self, url: str, errors: list[str]) -> None:
        if self.crawler.stats.get_value("books/field_errors") is None:
            self.logger.warning(
                "%s: left out what can't be stored of %s; further ones are only counted, as "
                "books/field_errors",
                url,
                ", ".join(sorted(set(errors))),
            )
        self.count("books/field_errors", len(errors))

    def count(self, stat: str, by: int = 1) -> None:
        self.crawler.stats.inc_value(stat, by)


def _positive(name: str, value: Any) -> int:
    text = str(value)
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise UsageError(f"{name}={brief(value)}: use a whole number from 1 on")
    return int(text)


def _check_number(name: str, value: Any) -> None:
    try:
        usable = 0 <= float(value) < 1e9
    except (TypeError, ValueError):
        usable = False
    if not usable:
        raise UsageError(f"{name}={brief(value)}: use a number from 0 on")


def _ids(value: str) -> list[str]:
    """The ids of a comma-separated list, each once."""
    try:
        ids = [book_id(one.strip()) for one in str(value).split(",")]
    except InvalidBook as error:
        raise UsageError(f"ids={brief(value)}: {error}; use digits, separated by commas") from None
    return list(dict.fromkeys(ids))


def _url(failure: Failure) -> str:
    return str(failure.request.url)  # type: ignore[attr-defined]  # set by Scrapy's scraper


def _reason(failure: Failure) -> str:
    """Why a download failed, on one line."""
    error = failure.value
    if isinstance(error, HttpError):
        return f"status {error.response.status}"
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
