"""What a crawl must reach: the site, MongoDB, Redis. Asked as a crawl asks; changes nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from datetime import datetime, timezone
from functools import partial
from ssl import cert_time_to_seconds
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from scrapy.http import TextResponse
from scrapy.utils.misc import build_from_crawler, load_object

from spa5.catalogue.answers import Flaw
from spa5.catalogue.item import InvalidItem
from spa5.catalogue.text import Trouble, brief
from spa5.catalogue.walk import Page
from spa5.crew.server import ping, shared
from spa5.doctor.machine import Remark
from spa5.downloadermiddlewares import MOST_ROBOTS_BYTES
from spa5.mongo import mongod
from spa5.mongo.directory import data_dir
from spa5.mongo.server import EmbeddedServer
from spa5.mongo.store import Store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from typing import TypeAlias

    from spa5.catalogue.spider import CatalogueSpider
    from spa5.doctor.machine import Check, Follow

    Ask: TypeAlias = Callable[[str, int], Awaitable[TextResponse]]  # URL, bytes at the most

_ANSWER_SECONDS = 4
_FEW_DAYS = 14
_LEAST_MEGABYTES = 50
_JOURNAL_MEGABYTES = 300  # which MongoDB makes in a new directory


async def site(spider: CatalogueSpider, follow: Follow) -> None:
    async with aiohttp.ClientSession(
        headers=spider.settings.getdict("DEFAULT_REQUEST_HEADERS") | {"User-Agent": _agent(spider)},
        connector=aiohttp.TCPConnector(ssl=_verifies(spider)),
        timeout=aiohttp.ClientTimeout(total=_ANSWER_SECONDS),
    ) as session:
        ask = partial(_ask, session, _proxy(spider.site))
        await follow(
            {
                "site": partial(_api, spider, ask),
                "certificate": partial(_certificate, spider),
                "robots": partial(_robots, spider, ask),
            }
        )


async def _api(spider: CatalogueSpider, ask: Ask) -> str:
    """The catalogue's size; an index page and the item that it lists were as expected."""
    most_bytes = spider.settings.getint("DOWNLOAD_MAXSIZE")
    noun, key_of = spider.schema.noun, spider.schema.key_of
    page = Page(0, 1)
    url = spider.index_url(page)
    response = _checked(await ask(url, most_bytes))
    try:
        index = spider.answers.index(response, {"page": page})
        if not index.keys:
            raise Remark(f"{spider.site} answers, but lists no {noun}")
        listed = index.keys[0]
        if listed is None:
            raise InvalidItem(index.unusable[0])
        url = spider.detail_url(listed)
        response = _checked(await ask(url, most_bytes))
        found = key_of(spider.item_class.from_api(spider.answers.detail(response, {})))
    except Flaw as flaw:
        raise Trouble(
            f"{url} is no answer of the API, {flaw}: check SITE_URL, or try later"
        ) from None
    except InvalidItem as error:
        raise Trouble(f"{url} holds no usable {noun}: {error}") from None
    if found != listed:
        raise Trouble(f"{url} answers with {noun} {found}: is SITE_URL right?")
    nouns = spider.schema.nouns
    items = f"a usable count of {nouns}" if index.count is None else f"{index.count} {nouns}"
    return f"{spider.site} answers, {'without' if index.count is None else 'with'} {items}"


def _checked(response: TextResponse) -> TextResponse:
    url = response.url
    if 300 <= response.status < 400:
        where = brief((response.headers.get("Location") or b"").decode("latin-1"))
        raise Trouble(f"{url} redirects to {where}: set SITE_URL to where the API is")
    if response.status != 200:
        raise Trouble(f"{url} answers with status {response.status}: check SITE_URL, or try later")
    return response


async def _certificate(spider: CatalogueSpider) -> str | None:
    """Until when it is valid. Where it is refused the site could not be asked."""
    parts = urlsplit(spider.site)
    if parts.scheme != "https":
        return None
    if not _verifies(spider):
        raise Remark("DOWNLOAD_VERIFY_CERTIFICATES is off: anybody may answer for the site")
    if _proxy(spider.site):
        return "verified, through a proxy"
    _, writer = await asyncio.open_connection(parts.hostname, parts.port or 443, ssl=True)
    ends = cert_time_to_seconds(writer.get_extra_info("peercert")["notAfter"])
    writer.transport.abort()
    days = int(ends - time.time()) // 86400
    valid = f"verified, valid until {datetime.fromtimestamp(ends, timezone.utc):%Y-%m-%d}"
    if days < _FEW_DAYS:
        raise Remark(f"{valid}: whoever runs the site has {days} days to renew it")
    return f"{valid}, {days} days"


async def _robots(spider: CatalogueSpider, ask: Ask) -> str:
    root = urlsplit(spider.site)._replace(path="").geturl()
    url = f"{root}/robots.txt"
    if not spider.settings.getbool("ROBOTSTXT_OBEY") or not spider.answers.is_ours(url):
        return "not asked for"
    try:
        response = await ask(url, MOST_ROBOTS_BYTES)
    except Trouble as trouble:
        raise Remark(f"{trouble}. A crawl goes on without") from None
    kind = load_object(spider.settings["ROBOTSTXT_PARSER"])
    rules = build_from_crawler(kind, spider.crawler, response.body)
    agent = spider.settings["ROBOTSTXT_USER_AGENT"] or _agent(spider)
    if not rules.allowed(spider.index_url(Page(0, 1)), agent):
        raise Trouble(f"{url} forbids the API to {agent!r}: ask whoever runs the site")
    if response.status != 200:
        return f"there is none (status {response.status}): everything is allowed"
    if response.body.lstrip().startswith(b"<"):
        raise Remark("/robots.txt is an HTML page: everything is allowed")
    return "the API is allowed"


async def _ask(
    session: aiohttp.ClientSession, proxy: str | None, url: str, most_bytes: int
) -> TextResponse:
    """A response; like a crawl's, it is not read on for ever."""
    try:
        async with session.get(url, proxy=proxy, allow_redirects=False) as response:
            body = b""
            async for chunk in response.content.iter_chunked(2**16):
                body += chunk
                if len(body) > most_bytes:
                    raise Trouble(f"{url} sends more than {most_bytes} bytes")
            return TextResponse(url, response.status, dict(response.headers), body)
    except aiohttp.ClientConnectorCertificateError as error:
        refused: Any = error.certificate_error
        raise Trouble(
            f"{url}: its certificate is refused ({refused.verify_message}): check "
            f"SITE_URL and the clock; SSL_CERT_FILE may name a CA of your own"
        ) from None
    except (aiohttp.ClientError, asyncio.TimeoutError) as error:
        way = "proxy" if proxy else "network"
        raise Trouble(
            f"{url} can't be reached ({_reason(error)}): check SITE_URL and the {way}"
        ) from None


def _reason(error: Exception) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return f"no answer within {_ANSWER_SECONDS} s"
    if isinstance(error, aiohttp.InvalidURL):  # it quotes the proxy's, with the password
        return "not a valid URL"
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno)
    if isinstance(error, OSError) and error.strerror:  # of the name's resolution
        return error.strerror
    return brief(str(error) or type(error).__name__, 100)


def _agent(spider: CatalogueSpider) -> str:
    return str(spider.settings["USER_AGENT"])


def _verifies(spider: CatalogueSpider) -> bool:
    return spider.settings.getbool("DOWNLOAD_VERIFY_CERTIFICATES")


def _proxy(site: str) -> str | None:
    """The environment's, as Scrapy's HttpProxyMiddleware chooses it."""
    parts = urlsplit(site)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


async def mongodb(spider: CatalogueSpider, follow: Follow) -> None:
    """An embedded server is started only where there are items already: nothing is left behind."""
    store = Store(spider.settings, spider.name, spider.schema, lambda *_: None)
    stored = {"MongoDB": _open, "writes": _writes, "index": _index}
    checks: dict[str, Check] = {name: partial(check, store) for name, check in stored.items()}
    try:
        if await store.connection.uses_embedded():
            checks = _embedded(data_dir(spider.settings), checks)
        await follow(checks)
    finally:
        await store.close()


def _embedded(directory: Path, checks: dict[str, Check]) -> dict[str, Check]:
    own: dict[str, Check] = {
        "mongod": _binary,
        "disk": partial(asyncio.to_thread, _disk, directory),
    }
    if not _is_used(directory):
        return own | {"MongoDB": partial(_coming, directory)}
    return own | {"server": partial(_orphan, directory)} | checks


async def _binary() -> str:
    return f"{await asyncio.to_thread(mongod.version)}, {mongod.find_binary()}"


def _disk(directory: Path) -> str:
    place = next(one for one in (directory, *directory.parents) if one.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise Trouble(f"{directory}: {place} can't be written, choose another MONGO_DATA_DIR")
    free = shutil.disk_usage(place).free >> 20
    least = _LEAST_MEGABYTES + (0 if _is_used(directory) else _JOURNAL_MEGABYTES)
    if free < least:
        raise Trouble(
            f"{free} MB free for {directory}, {least} MB are needed: make room, or choose "
            f"another MONGO_DATA_DIR"
        )
    return f"{free} MB free for {directory}"


def _is_used(directory: Path) -> bool:
    return (directory / "WiredTiger").exists()


async def _orphan(directory: Path) -> None:
    """A crawl that was killed leaves its server."""
    if pid := EmbeddedServer(directory).orphan():
        raise Remark(
            f"process {pid} serves {directory}, but no crawl uses it: the next crawl ends it, and "
            f"so does `kill {pid}`"
        )


async def _coming(directory: Path) -> str:
    return "the embedded one; the first crawl makes its directory"


async def _open(store: Store) -> str:
    await store.open(read_only=True)
    return f"{store.connection.version} at {store.connection.place}"


async def _writes(store: Store) -> str:
    concern, replicated = await store.try_write()
    said = f"w={concern['w']}, j={str(concern['j']).lower()}"
    if replicated and concern["w"] == 1:
        raise Remark(f"{said}: a failover can take stored items back; leave w out of MONGO_URI")
    return f"acknowledged with {said}"


async def _index(store: Store) -> str:
    if await store.has_unique_index():
        return f"unique on {store.schema.key}"
    return "not yet: the first crawl makes it, and no copies stand in its way"


async def redis(spider: CatalogueSpider, follow: Follow) -> None:
    await follow({"Redis": partial(_redis, spider)})


async def _redis(spider: CatalogueSpider) -> str | None:
    if not (spider.settings["REDIS_URL"] or spider.settings["CRAWL_ID"]):
        return None
    url, crawl_id = shared(spider.settings)
    return f"answers at {await ping(url)}; CRAWL_ID={crawl_id}"


GROUPS = {"site": site, "MongoDB": mongodb, "Redis": redis}
