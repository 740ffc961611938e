"""Outcomes: what became of what the spider asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from itemadapter import ItemAdapter
from scrapy import signals
from scrapy.exceptions import IgnoreRequest
from scrapy.spidermiddlewares.httperror import HttpError

from spa5.catalogue.gate import SiteAway
from spa5.catalogue.listing import DONE, FAILED, FORBIDDEN, GONE, INVALID, REJECTED, Listing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scrapy import Request
    from scrapy.crawler import Crawler
    from twisted.python.failure import Failure

    from spa5.catalogue.answers import IndexPage
    from spa5.catalogue.item import Key
    from spa5.catalogue.spider import CatalogueSpider
    from spa5.catalogue.walk import Page
    from spa5.crew.crew import Crew


# Scrapy's reasons for a limit or a signal that the user set start or read like this.
_DONE = ("finished", "shutdown", "closespider_")


class Outcomes:
    """Counts and logs what failed, and notes in `listing` what became of each listed item.

    In a shared crawl the leader has the listing: `crew` tells it.
    """

    def __init__(self, crawler: Crawler, spider: CatalogueSpider):
        self._crawler = crawler
        self._spider = spider
        self._logger = spider.logger
        self.crew: Crew | None = None
        self.forget()
        crawler.signals.connect(self.item_scraped, signals.item_scraped)
        crawler.signals.connect(self.item_dropped, signals.item_dropped)

    def forget(self) -> None:
        """Begin with an empty listing."""
        self.listing = Listing(is_number=self._spider.schema.kind.type is int)

    def begin_sweep(self, sweep: int) -> None:
        """Count from 0 what each sweep meets anew."""
        self.listing.begin_sweep()
        self._crawler.stats.set_value("catalogue/sweeps", sweep)
        for name in ("listed", "invalid"):
            self._crawler.stats.set_value(f"catalogue/{name}", 0)

    def settle(self, key: Any, outcome: str, reason: str = "") -> None:
        """Note what became of a listed item, see `Listing`."""
        if self.crew:
            self.crew.tell(key, outcome, reason)
        else:
            self.hear(key, outcome, reason)

    def hear(self, key: Any, outcome: str, reason: str) -> None:
        """Note what became of an item, in this worker or in another one that shares the crawl."""
        self.listing.settle(key, outcome, reason)

    def item_scraped(self, item: Any) -> None:
        self.settle(self._key_of(item), DONE)

    def item_dropped(self, item: Any, exception: BaseException) -> None:
        outcome = getattr(exception, "outcome", REJECTED)
        self.settle(self._key_of(item), outcome, str(exception))

    def index_failed(self, failure: Failure) -> None:
        self._spider.demand.answered()
        request, error = _request(failure), failure.value
        page, spider = request.meta["page"], self._spider
        if request.meta["walk"] is not spider.walk:  # another one asked for it
            return
        if isinstance(error, SiteAway):
            spider.walk.lose(page)
        else:
            reason, hopeless = spider.answers.reason(error), _is_forbidden(error)
            self.page_lost(page, request.url, reason, hopeless=hopeless)

    def detail_failed(self, failure: Failure) -> None:
        self._spider.demand.answered()
        request, error = _request(failure), failure.value
        key, answers = request.meta["key"], self._spider.answers
        if isinstance(error, SiteAway):
            return  # the crawl ends, and the gate has said why
        if isinstance(error, HttpError) and answers.is_gone(error.response):
            self._crawler.stats.inc_value("catalogue/vanished")
            self._logger.info("%s is listed, but gone (404)", request.url)
            self.settle(key, GONE)
        else:
            outcome = FORBIDDEN if _is_forbidden(error) else FAILED
            self.detail_lost(key, request.url, answers.reason(error), outcome)

    def listed(self, url: str, index: IndexPage) -> None:
        """Count what an index page lists, and name the entries that are not usable."""
        self._crawler.stats.inc_value("catalogue/listed", len(index.keys))
        if (expected := self._spider.walk.count) is not None:
            self._crawler.stats.set_value("catalogue/expected", expected)
        for reason in index.unusable:
            self._crawler.stats.inc_value("catalogue/invalid")
            noun = self._spider.schema.noun
            self._logger.warning("%s lists no usable %s: %s", url, noun, reason)

    def page_lost(self, page: Page, url: str, reason: str, *, hopeless: bool = False) -> None:
        self._crawler.stats.inc_value("catalogue/index_failed")
        self._logger.error("%s failed: %s", url, reason)
        self._spider.walk.lose(page, hopeless=hopeless)

    def detail_lost(self, key: Key | None, url: str, reason: str, outcome: str = FAILED) -> None:
        self._crawler.stats.inc_value("catalogue/failed")
        self._logger.error("%s failed: %s", url, reason)
        self.settle(key, outcome, reason)

    def detail_invalid(self, key: Key | None, url: str, reason: str) -> None:
        self._crawler.stats.inc_value("catalogue/invalid")
        self._logger.warning("%s holds no usable %s: %s", url, self._spider.schema.noun, reason)
        self.settle(key, INVALID, reason)

    def not_marked(self, key: Key, reason: str) -> None:
        """Note that MongoDB does not let a stored item be marked as listed: it alone is lost."""
        self._crawler.stats.inc_value("mongo/rejected")
        noun = self._spider.schema.noun
        self._logger.warning("MongoDB refuses to mark %s %s as listed: %s", noun, key, reason)
        self.settle(key, REJECTED, reason)

    def field_errors(self, url: str, errors: list[str]) -> None:
        """Count the fields that could not be read, and name the first ones."""
        if self._crawler.stats.get_value("catalogue/field_errors") is None:
            self._logger.warning(
                "%s: left out what can't be stored of %s; further ones are only counted, as "
                "catalogue/field_errors",
                url,
                ", ".join(sorted(set(errors))),
            )
        self._crawler.stats.inc_value("catalogue/field_errors", len(errors))

    def _key_of(self, item: Any) -> Any:
        return ItemAdapter(item).get(self._spider.schema.key)


def exit_code(reason: object, stats: Mapping[str, Any]) -> int:
    """0 if a crawl that ended like this did what was asked, 1 if not."""
    is_done = str(reason).startswith(_DONE)
    return 0 if is_done and not any(name.endswith("/unavailable") for name in stats) else 1


def _request(failure: Failure) -> Request:
    request: Request = failure.request  # type: ignore[attr-defined]  # set by Scrapy's scraper
    return request


def _is_forbidden(error: BaseException | None) -> bool:
    """True if robots.txt forbids the URL, as it will the next time."""
    return isinstance(error, IgnoreRequest) and "robots.txt" in str(error)
