"""BooksSpider: index page -> detail request -> Book."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from itemadapter import ItemAdapter
from scrapy import Request, Spider, signals
from scrapy.exceptions import IgnoreRequest, UsageError
from scrapy.spidermiddlewares.httperror import HttpError
from w3lib.url import safe_url_string

from spa5 import api, listing
from spa5.arguments import book_ids, check_settings, positive
from spa5.items import LISTED, Book, InvalidBook, book_id, brief
from spa5.listing import Listing
from spa5.sitegate import SiteAway
from spa5.walk import Page, Walk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from scrapy.crawler import Crawler
    from scrapy.http import Response
    from scrapy.settings import BaseSettings
    from twisted.python.failure import Failure
    from typing_extensions import Self

    from spa5.crew import Crew

REFRESH = ("changed", "missing", "all")


class BooksSpider(Spider):
    """Asks for the catalogue's index pages, and for the detail of each book that they list.

    Arguments: `pages` (index pages at the most; all), `page_size` (books a page; 100), `refresh`
    (which stored books to fetch again: `changed`, `missing` or `all`; `changed`), `ids` (just these
    books, no index: comma-separated, or `@FILE` with one a line) and `accept` (`drift`: what the
    site sends is right). Settings: SITE_URL, CONCURRENT_REQUESTS, REDIS_URL, CRAWL_ID.
    """

    name = "books"
    item_class = Book  # for the header of a feed that gets none

    def __init__(
        self,
        pages: str | None = None,
        page_size: str = "100",
        refresh: str = "changed",
        ids: str | None = None,
        accept: str | None = None,
        **others: Any,
    ):
        # scrapyd adds arguments of its own, `_job` for one.
        if unknown := sorted(name for name in others if not name.startswith("_")):
            raise UsageError(
                f"no spider argument {unknown[0]!r}; there are pages, page_size, refresh, ids and "
                f"accept"
            )
        super().__init__(**others)
        self.pages = None if pages is None else positive("pages", pages)
        self.page_size = positive("page_size", page_size)
        if refresh not in REFRESH:
            raise UsageError(f"refresh={brief(refresh)}: use one of {', '.join(REFRESH)}")
        self.refresh = refresh
        self.ids = None if ids is None else book_ids(ids)
        if accept not in (None, "drift"):
            raise UsageError(f"accept={brief(accept)}: there is only accept=drift")
        self.accepts_drift = accept == "drift"
        self.site = ""
        self.allowed_domains: list[str] = []
        self.answered = asyncio.Event()  # set by each answer
        self.reserve = 1  # requests: as many as may be in flight
        self.enqueued_before = 0  # requests, when the walk began
        self.crew: Crew | None = None  # the workers that share this crawl
        self.listing = Listing()
        self.walk = Walk(self.page_size, self.pages)

    @classmethod
    def from_crawler(cls, crawler: Crawler, *args: Any, **kwargs: Any) -> Self:
        check_settings(crawler.settings)
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
        crawler.signals.connect(spider.item_scraped, signals.item_scraped)
        crawler.signals.connect(spider.item_dropped, signals.item_dropped)
        return spider

    @classmethod
    def update_settings(cls, settings: BaseSettings) -> None:
        """CONCURRENT_REQUESTS alone rules: the limit per domain follows at the same priority."""
        super().update_settings(settings)
        limit = positive("CONCURRENT_REQUESTS", settings["CONCURRENT_REQUESTS"])
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
        walk = self.walk
        self.enqueued_before = self.crawler.stats.get_value("scheduler/enqueued", 0)
        while not walk.is_abandoned and (walk.open or not walk.is_over):
            if not self._lacks_requests() or not (page := walk.next_page()):
                self.answered.clear()
                await self.answered.wait()
            else:
                yield self.index_request(page)

    @property
    def is_whole(self) -> bool:
        """True if the crawl is of the whole catalogue."""
        return self.ids is None and self.pages is None

    def begin_walk(self, sweep: int) -> None:
        """Begin anew. What the sweeps before left unresolved is asked for again.

        Each sweep asks for pages of another size: a site whose order is not stable lists other
        entries at their ends.
        """
        self.listing.begin_sweep()
        more = 0 if self.pages is not None or self.walk.lost_pages else sweep - 1
        self.walk = Walk(self.page_size + more, self.pages)

    def _lacks_requests(self) -> bool:
        """Whether what waits, and what the pages asked for will add, is less than a reserve.

        A page adds as many requests as the pages before it did on average: none of them where
        all books are stored. Then pages fill the semaphore.
        """
        scheduler: Any = self.crawler.engine.scheduler
        enqueued = self.crawler.stats.get_value("scheduler/enqueued", 0)
        added = enqueued - self.enqueued_before - self.walk.asked
        answered = self.walk.asked - self.walk.open
        coming = self.walk.open * added / answered if answered else 0
        return bool(len(scheduler) + coming < 2 * self.reserve)

    def index_request(self, page: Page) -> Request:
        return Request(
            api.index_url(self.site, page.offset, page.limit),
            self.parse_index,
            errback=self.index_failed,
            meta={"page": page, "walk": self.walk},
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
        self.answered.set()
        page = self._page(response)
        if page is None:
            return []
        try:
            data = api.answer(response)
            ids, listed = self._entries(response.url, data["results"])
        except api.Flaw as flaw:
            self._index_lost(page, response.url, str(flaw))
            return []
        except BaseException:
            self.walk.lose(page)
            raise
        self.count("books/listed", len(ids))
        rest = self.walk.answered(page, ids, api.site_count(data))
        if self.walk.count is not None:
            self.crawler.stats.set_value("books/expected", self.walk.count)
        more = [self.index_request(rest)] if rest else []
        return more + [self.detail_request(one, summary) for one, summary in listed.items()]

    def _page(self, response: Response) -> Page | None:
        """The page that was asked for; None where another walk than this asked for it."""
        if "page" not in response.meta:  # in the shell
            self.walk.open += 1
            return Page(*api.index_position(response.url))
        return self._page_of(response.meta)

    def _page_of(self, meta: dict[str, Any]) -> Page | None:
        page: Page = meta["page"]
        return page if meta["walk"] is self.walk else None

    def _entries(
        self, url: str, results: list[Any]
    ) -> tuple[list[str | None], dict[str, dict[str, Any]]]:
        """The ids in their order, None for unusable ones; and, by id, what the page says of it."""
        ids: list[str | None] = []
        listed = {}
        for result in results:
            try:
                one = book_id(result.get("id") if isinstance(result, dict) else None)
            except InvalidBook as error:
                self.count("books/invalid")
                self.logger.warning("%s lists no usable book: %s", url, error)
                ids.append(None)
            else:
                listed[one] = {name: result.get(name) for name in LISTED}
                ids.append(one)
        return ids, listed

    def parse_detail(self, response: Response) -> Iterator[Book]:
        """Yield the book that a detail holds, if it is the one that was asked for."""
        self.answered.set()
        errors: list[str] = []
        asked = response.meta.get("book_id") or api.asked_id(response.url)
        try:
            data = api.answer(response, response.meta.get("listed") or {})
            book = Book.from_api(data, errors)
            if book.id != asked:
                raise InvalidBook(f"it answers with book {book.id}")
        except api.Flaw as flaw:
            self._detail_lost(asked, response.url, str(flaw))
            return
        except InvalidBook as error:
            self.count("books/invalid")
            self.logger.warning("%s holds no usable book: %s", response.url, error)
            self.settle(asked, listing.INVALID, str(error))
            return
        if errors:
            self._field_errors(response.url, errors)
        yield book

    def index_failed(self, failure: Failure) -> None:
        self.answered.set()
        page = self._page_of(_request(failure).meta)
        if page and isinstance(failure.value, SiteAway):
            self.walk.lose(page)
        elif page:
            reason, hopeless = api.reason(failure.value), _is_forbidden(failure)
            self._index_lost(page, _request(failure).url, reason, hopeless=hopeless)

    def detail_failed(self, failure: Failure) -> None:
        self.answered.set()
        request = _request(failure)
        one = request.meta["book_id"]
        if isinstance(failure.value, SiteAway):
            return  # the crawl ends, and the gate has said why
        if isinstance(failure.value, HttpError) and api.is_gone(failure.value.response):
            self.count("books/vanished")
            self.logger.info("%s is listed, but gone (404)", request.url)
            self.settle(one, listing.GONE)
        else:
            outcome = listing.FORBIDDEN if _is_forbidden(failure) else listing.FAILED
            self._detail_lost(one, request.url, api.reason(failure.value), outcome)

    def settle(self, one: Any, outcome: str, reason: str = "") -> None:
        """Note what became of a listed id, see `Listing`."""
        if self.crew:
            self.crew.tell(str(one), outcome, reason)
        else:
            self.hear(str(one), outcome, reason)

    def hear(self, one: str, outcome: str, reason: str) -> None:
        """Note what became of an id, in this worker or in another one that shares the crawl."""
        self.listing.settle(one, outcome, reason)

    def item_scraped(self, item: Any) -> None:
        one = item.id if isinstance(item, Book) else ItemAdapter(item).get("id")
        self.settle(one, listing.DONE)

    def item_dropped(self, item: Any, exception: BaseException) -> None:
        outcome = getattr(exception, "outcome", listing.REJECTED)
        self.settle(ItemAdapter(item).get("id"), outcome, str(exception))

    def _index_lost(self, page: Page, url: str, reason: str, *, hopeless: bool = False) -> None:
        self.count("books/index_failed")
        self.logger.error("%s failed: %s", url, reason)
        self.walk.lose(page, hopeless=hopeless)

    def _detail_lost(
        self, one: str | None, url: str, reason: str, outcome: str = listing.FAILED
    ) -> None:
        self.count("books/failed")
        self.logger.error("%s failed: %s", url, reason)
        self.settle(one, outcome, reason)

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


def _request(failure: Failure) -> Request:
    request: Request = failure.request  # type: ignore[attr-defined]  # set by Scrapy's scraper
    return request


def _is_forbidden(failure: Failure) -> bool:
    """True if robots.txt forbids the URL, as it will the next time."""
    return isinstance(failure.value, IgnoreRequest) and "robots.txt" in str(failure.value)
