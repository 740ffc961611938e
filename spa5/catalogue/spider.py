"""CatalogueSpider: index page -> detail request -> item. A site is a subclass of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from scrapy import Request, Spider

from spa5.catalogue.answers import Answers, Flaw
from spa5.catalogue.arguments import Arguments, check_settings, positive, site_root
from spa5.catalogue.demand import Demand
from spa5.catalogue.item import InvalidItem, schema_of
from spa5.catalogue.login import LogIn, account_in
from spa5.catalogue.outcomes import Outcomes
from spa5.catalogue.text import plain
from spa5.catalogue.walk import Page, Walk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from scrapy.crawler import Crawler
    from scrapy.http import Response
    from scrapy.settings import BaseSettings
    from typing_extensions import Self

    from spa5.catalogue.item import Item, Key


class CatalogueSpider(Spider):
    """Asks for a catalogue's index pages, and for the detail of each item that they list.

    A subclass names itself, its `site`, its `path` and its `item_class`. Where its API differs, it
    overrides `index_url`, `detail_url`, `entries` or `count`. A site with accounts has a `log_in`.

    Arguments: `pages` (index pages at the most; all), `page_size` (entries a page; 100), `refresh`
    (which stored items to fetch again: `changed`, `missing` or `all`; `changed`), `ids` (just these
    items, no index: comma-separated, or `@FILE` with one a line) and `accept` (`drift`: what the
    site sends is right). Settings: SITE_URL, CONCURRENT_REQUESTS, REDIS_URL, CRAWL_ID.
    """

    site: str  # the site's root; SITE_URL takes its place
    path: str  # the API's below it, between slashes
    item_class: ClassVar[type[Item]]
    log_in: ClassVar[LogIn | None] = None  # how the site is logged in to, where it wants that

    def index_url(self, page: Page) -> str:
        """The URL of the index page with at most `page.limit` entries from `page.offset` on.

        An API that counts pages takes `page.number`.
        """
        return f"{self.site}{self.path}?limit={page.limit}&offset={page.offset}"

    def detail_url(self, key: Key) -> str:
        """The URL of an item's detail, as the site has it without a redirect."""
        return f"{self.site}{self.path}{key}/"

    def entries(self, data: Any) -> Any:
        """The list of entries on an index page, given its JSON object."""
        return data["results"]

    def count(self, data: Any) -> Any:
        """The number of entries in the catalogue, as an index page tells it."""
        return data["count"]

    def __init__(self, name: str | None = None, **given: Any):
        super().__init__(name, **{key: given[key] for key in given if key.startswith("_")})
        self.given = {key: plain(str(given[key])[:200]) for key in given if not key.startswith("_")}
        self.schema = schema_of(self.item_class)
        self.arguments = Arguments.parse(given, self.schema.kind)
        self.allowed_domains: list[str] = []
        self.walk = Walk(self.arguments.page_size, self.arguments.pages)

    @classmethod
    def from_crawler(cls, crawler: Crawler, *args: Any, **kwargs: Any) -> Self:
        check_settings(crawler.settings)
        if cls.log_in:
            account_in(crawler.settings, cls.log_in)
        spider = super().from_crawler(crawler, *args, **kwargs)
        spider.site = site_root(crawler.settings["SITE_URL"] or cls.site)
        spider.allowed_domains = [urlsplit(spider.site).hostname or ""]
        spider.answers = Answers(spider)
        spider.demand = Demand(crawler)
        spider.outcomes = Outcomes(crawler, spider)
        return spider

    answers: Answers
    demand: Demand
    outcomes: Outcomes

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
        if self.arguments.ids is not None:
            for key in self.arguments.ids:
                yield self.detail_request(key, {})
            return
        async for page in self.demand.pages(self.walk):
            yield self.index_request(page)

    def begin_walk(self, sweep: int) -> None:
        """Begin anew. What the sweeps before left unresolved is asked for again.

        Each sweep asks for pages of another size: a site whose order is not stable lists other
        entries at their ends.
        """
        self.outcomes.begin_sweep(sweep)
        size, pages = self.arguments.page_size, self.arguments.pages
        more = 0 if pages is not None or self.walk.lost_pages else sweep - 1
        self.walk = Walk(size + more, pages)

    def index_request(self, page: Page) -> Request:
        meta, failed = {"page": page, "walk": self.walk}, self.outcomes.index_failed
        return Request(self.index_url(page), self.parse_index, errback=failed, meta=meta)

    def detail_request(self, key: Key, listed: dict[str, Any]) -> Request:
        """The request for an item's detail; `listed` is what the index page says of it."""
        # A key needs no quoting, which Scrapy and aiohttp would do each time.
        meta = {"key": key, "listed": listed, "verbatim_url": True}
        failed = self.outcomes.detail_failed
        return Request(self.detail_url(key), self.parse_detail, errback=failed, meta=meta)

    def parse_index(self, response: Response) -> list[Request]:
        """A request for each item that the page lists, and for what it was cut short of.

        A list, for the walk waits for this page whatever becomes of the requests.
        """
        self.demand.answered()
        walk, page = self.walk, response.meta.get("page") or Page(0, self.walk.step)
        if response.meta.get("walk", walk) is not walk:  # another one asked for it
            return []
        try:
            index = self.answers.index(response, response.meta)
        except Flaw as flaw:
            self.outcomes.page_lost(page, response.url, str(flaw))
            return []
        except BaseException:
            walk.lose(page)
            raise
        rest = walk.answered(page, index.keys, index.count)
        self.outcomes.listed(response.url, index)
        more = self._rest_request(rest, response.url) if rest else []
        return more + [self.detail_request(key, entry) for key, entry in index.listed.items()]

    def _rest_request(self, rest: Page, url: str) -> list[Request]:
        """The request for what a page was cut short of, where the API can be asked for that."""
        try:
            return [self.index_request(rest)]
        except ValueError as error:
            self.outcomes.page_lost(rest, url, f"it holds too few entries, and there is {error}")
            return []

    def parse_detail(self, response: Response) -> Iterator[Item]:
        """Yield the item that a detail holds, if it is the one that was asked for."""
        self.demand.answered()
        errors: list[str] = []
        asked = response.meta.get("key") or self.answers.asked(response.url)
        try:
            data = self.answers.detail(response, response.meta)
            item = self.item_class.from_api(data, errors)
            if self.schema.key_of(item) != asked:
                raise InvalidItem(f"it answers with {self.schema.noun} {self.schema.key_of(item)}")
        except Flaw as flaw:
            self.outcomes.detail_lost(asked, response.url, str(flaw))
        except InvalidItem as error:
            self.outcomes.detail_invalid(asked, response.url, str(error))
        else:
            if errors:
                self.outcomes.field_errors(response.url, errors)
            yield item


def catalogue_of(crawler: Crawler) -> CatalogueSpider | None:
    """A crawler's spider; None where it is another one, such as the shell's."""
    return crawler.spider if isinstance(crawler.spider, CatalogueSpider) else None
