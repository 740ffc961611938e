"""The site, asked through Scrapy's downloader and judged as a crawl judges it."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from OpenSSL import crypto
from scrapy import Request, signals
from scrapy.crawler import Crawler
from scrapy.exceptions import DownloadCancelledError, DownloadTimeoutError, IgnoreRequest
from scrapy.http.request import NO_CALLBACK
from scrapy.utils.misc import build_from_crawler, load_object

from spa5.catalogue.answers import Flaw
from spa5.catalogue.item import InvalidItem
from spa5.catalogue.text import Trouble, brief, one_line
from spa5.catalogue.walk import Page
from spa5.doctor.checks import CLOSING_SECONDS, Remark

if TYPE_CHECKING:
    from scrapy.http import Response

    from spa5.catalogue.spider import CatalogueSpider
    from spa5.doctor.checks import Checklist

_FEW_DAYS = 14
# A crawler that downloads, and does nothing else. It needs no reactor: asyncio's loop runs already.
_DOWNLOADS_ALONE: dict[str, Any] = {
    "TWISTED_REACTOR_ENABLED": False,
    "SCHEDULER": "scrapy.core.scheduler.Scheduler",
    "DOWNLOAD_DELAY": 0,
    "RETRY_ENABLED": False,
    "ITEM_PIPELINES": {},
    "EXTENSIONS": {},
    "EXTENSIONS_BASE": {},
    "SPIDER_MIDDLEWARES": {},
}
_NO_GATE = {"spa5.downloadermiddlewares.SiteGate": None}


async def site(spider: CatalogueSpider, checklist: Checklist) -> None:
    """Check the site with the project's own proxy, TLS, headers and middlewares."""
    settings = spider.crawler.settings.copy()
    settings.setdict(_DOWNLOADS_ALONE, priority="cmdline")
    settings.set("DOWNLOAD_TIMEOUT", checklist.seconds - CLOSING_SECONDS, priority="cmdline")
    settings["DOWNLOADER_MIDDLEWARES"].update(_NO_GATE, priority="cmdline")
    crawler = Crawler(type(spider), settings)
    visit = Visit(spider, crawler)

    async def begin() -> None:
        await checklist.follow(
            {"site": visit.api, "certificate": visit.certificate, "robots": visit.robots}
        )
        await crawler.engine.stop_async()  # before the spider asks for anything itself

    crawler.signals.connect(begin, signals.engine_started)
    await crawler.crawl_async()


class Visit:
    """The checks of one site, through a crawler that is running."""

    def __init__(self, spider: CatalogueSpider, crawler: Crawler):
        self.spider = spider
        self.crawler = crawler
        self.settings = crawler.settings
        self.shown: Any = None  # the site's certificate in DER

    async def api(self) -> str:
        """Return the catalogue's size. An index page and the item that it lists must be usable."""
        spider, schema = self.spider, self.spider.schema
        request = spider.index_request(Page(0, 1))
        try:
            index = spider.answers.index(await self._answer(request), request.meta)
            if index.unusable:
                raise InvalidItem(index.unusable[0])
            if not index.listed:
                raise Remark(f"{spider.site} answers, but lists no {schema.noun}")
            key, entry = next(iter(index.listed.items()))
            request = spider.detail_request(key, entry)
            data = spider.answers.detail(await self._answer(request), request.meta)
            found = schema.key_of(spider.item_class.from_api(data))
        except Flaw as flaw:
            said = f"{request.url} is no answer of the API, {flaw}"
            raise Trouble(f"{said}: check SITE_URL, or try later") from None
        except InvalidItem as error:
            raise Trouble(f"{request.url} holds no usable {schema.noun}: {error}") from None
        if found != key:
            raise Trouble(f"{request.url} answers with {schema.noun} {found}: is SITE_URL right?")
        size = "without a usable count of" if index.count is None else f"with {index.count}"
        return f"{spider.site} answers, {size} {schema.nouns}"

    async def certificate(self) -> str | None:
        """Return until when it is valid. Where it is refused, the site could not be asked."""
        if urlsplit(self.spider.site).scheme != "https":
            return None
        if not self.settings.getbool("DOWNLOAD_VERIFY_CERTIFICATES"):
            raise Remark("DOWNLOAD_VERIFY_CERTIFICATES is off: anybody may answer for the site")
        end = crypto.load_certificate(crypto.FILETYPE_ASN1, self.shown).get_notAfter() or b""
        ends = datetime.strptime(end.decode(), "%Y%m%d%H%M%S%z")
        days = (ends - datetime.now(timezone.utc)).days
        valid = f"verified, valid until {ends:%Y-%m-%d}"
        if days < _FEW_DAYS:
            raise Remark(f"{valid}: whoever runs the site has {days} days to renew it")
        return f"{valid}, {days} days"

    async def robots(self) -> str:
        url = urlsplit(self.spider.site)._replace(path="/robots.txt").geturl()
        if not self.settings.getbool("ROBOTSTXT_OBEY") or not self.spider.answers.is_ours(url):
            return "not asked for"
        try:
            response = await self._ask(Request(url, NO_CALLBACK))
        except Trouble as trouble:
            raise Remark(f"{trouble}. A crawl goes on without") from None
        parser = load_object(self.settings["ROBOTSTXT_PARSER"])
        rules = build_from_crawler(parser, self.crawler, response.body)
        agent = self.settings["ROBOTSTXT_USER_AGENT"] or self.settings["USER_AGENT"]
        if not rules.allowed(self.spider.index_url(Page(0, 1)), agent):
            raise Trouble(f"{url} forbids the API to {agent!r}: ask whoever runs the site")
        if response.status != 200:
            return f"there is none (status {response.status}): everything is allowed"
        if response.body.lstrip().startswith(b"<"):
            raise Remark("/robots.txt is an HTML page: everything is allowed")
        return "the API is allowed"

    async def _answer(self, request: Request) -> Response:
        """Return a response with status 200."""
        response = await self._ask(request)
        self.shown = response.certificate
        if 300 <= response.status < 400:
            where = brief((response.headers.get("Location") or b"").decode("latin-1"))
            raise Trouble(f"{request.url} redirects to {where}: set SITE_URL to where the API is")
        if response.status != 200:
            said = f"answers with status {response.status}"
            raise Trouble(f"{request.url} {said}: check SITE_URL, or try later")
        return response

    async def _ask(self, request: Request) -> Response:
        request.meta.update(dont_obey_robotstxt=True, dont_cache=True)
        try:
            return await self.crawler.engine.download_async(request)
        except Exception as error:
            raise Trouble(_explained(error, request)) from None


def _explained(error: Exception, request: Request) -> str:
    """Return what went wrong and what to do. Scrapy has the errors of its handler as cause."""
    if isinstance(error, (DownloadCancelledError, IgnoreRequest)):
        return f"{request.url} can't be used: {one_line(error)}"
    if isinstance(error, DownloadTimeoutError):
        why = f"no answer within {request.meta['download_timeout']:g} s"
    else:
        cause: BaseException = error
        while cause.__cause__:
            cause = cause.__cause__
        if refused := getattr(cause, "verify_message", None):
            return (
                f"{request.url}: its certificate is refused ({refused}): check SITE_URL and the "
                f"clock; SSL_CERT_FILE may name a CA of your own"
            )
        why = _reason(cause)
    way = "proxy" if request.meta.get("proxy") else "network"
    return f"{request.url} can't be reached ({why}): check SITE_URL and the {way}"


def _reason(cause: BaseException) -> str:
    if isinstance(cause, OSError) and cause.errno:  # below zero: of the name's resolution
        return os.strerror(cause.errno) if cause.errno > 0 else str(cause.strerror)
    return one_line(str(cause) or type(cause).__name__, 100)
