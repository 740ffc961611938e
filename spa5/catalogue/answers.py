"""Answers: which URLs are the API's, and what an answer of it must look like."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from scrapy.http import Response, TextResponse
from scrapy.spidermiddlewares.httperror import HttpError
from w3lib.encoding import http_content_type_encoding

from spa5.catalogue.fields import is_empty
from spa5.catalogue.item import InvalidItem, schema_of
from spa5.catalogue.text import brief, one_line
from spa5.catalogue.walk import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from spa5.catalogue.item import Key
    from spa5.catalogue.spider import CatalogueSpider

_SSL = re.compile(r" ssl:(<[^>]*>|\S+)")  # in errors of aiohttp
# Python's codecs that are no charset of a text. A hostile site could make the first two take hours.
_NO_CHARSETS = {"idna", "punycode", "unicode-escape", "raw-unicode-escape"}
_MARK = "987654321012345678"  # stands for a key in a URL
_END = r"/?(\?[^#]*)?"  # of a URL


class Flaw(ValueError):
    """A response that is not the API's answer, though its status says so; the text says why."""


@dataclass(frozen=True)
class IndexPage:
    """An index page as the site answered it."""

    keys: list[Key | None]  # of its entries in their order; None for one without a usable key
    listed: dict[Key, dict[str, Any]]  # by key, what the page says of an item
    unusable: list[str]  # why, for each entry without a usable key
    count: int | None  # the catalogue's size as the page tells it; None where that is unusable


class Answers:
    """Judges the responses of one site, whose URLs and shapes the spider knows.

    A request's meta tells what was asked for: `page` for an index page, `key` and `listed` (what
    the index page says of it) for a detail.
    """

    def __init__(self, spider: CatalogueSpider):
        self._spider = spider
        self._schema = schema_of(spider.item_class)
        index = urlsplit(spider.index_url(Page(0, 1)))
        # Sites that have the page's number in the path differ in digits.
        path = re.sub("[0-9]+", "[0-9]+", re.escape(index.path.rstrip("/")))
        self._index = re.compile(re.escape(f"{index.scheme}://{index.netloc}") + path + _END)
        before, _, after = spider.detail_url(self._schema.kind.type(_MARK)).partition(_MARK)
        self._detail = re.compile(
            f"{re.escape(before)}({self._schema.kind.pattern}){re.escape(after.rstrip('/'))}{_END}"
        )
        self._robots = f"{spider.site}/robots.txt"

    def is_api(self, url: str) -> bool:
        """True if a URL is of the site's API: an index page or a detail."""
        return bool(self._detail.fullmatch(url) or self._index.fullmatch(url))

    def is_ours(self, url: str) -> bool:
        """True if a crawl may ask for a URL: the site's API and its robots.txt."""
        return self.is_api(url) or url == self._robots

    def asked(self, url: str) -> Key | None:
        """The key in a detail's URL; None for other URLs."""
        match = self._detail.fullmatch(url)
        return self._schema.kind.clean(match[1]) if match else None

    def index(self, response: Response, meta: Mapping[str, Any]) -> IndexPage:
        """An index page; `Flaw` if it is none, or holds more entries than were asked for."""
        data = _json_object(response)
        entries = _of_user(self._spider.entries, data)
        if not isinstance(entries, list):
            raise Flaw("an index page without entries")
        if (page := meta.get("page")) and len(entries) > page.limit:
            raise Flaw(
                f"an index page of {len(entries)} entries, where {page.limit} were asked for"
            )
        count = _of_user(self._spider.count, data)
        index = IndexPage([], {}, [], count if type(count) is int and count >= 0 else None)
        for entry in entries:
            self._enter(index, entry)
        return index

    def _enter(self, index: IndexPage, entry: Any) -> None:
        named = entry.get(self._schema.key) if isinstance(entry, dict) else None
        try:
            key = self._schema.kind.clean(named)
        except InvalidItem as error:
            index.keys.append(None)
            index.unusable.append(str(error))
        else:
            index.keys.append(key)
            index.listed[key] = {name: entry.get(name) for name in self._schema.listed}

    def detail(self, response: Response, meta: Mapping[str, Any]) -> dict[str, Any]:
        """A detail, which must have what its entry on the index page has; `Flaw` if it is none."""
        data, schema = _json_object(response), self._schema
        if schema.key not in data:
            raise Flaw(f"{schema.noun} without {schema.key}")
        asked = meta.get("key") or self.asked(response.url)
        try:
            is_asked = schema.kind.clean(data[schema.key]) == asked
        except InvalidItem:
            is_asked = False
        if is_asked:  # another item is no hiccup: the spider says what is wrong
            _check_listed(data, meta.get("listed") or {})
        return data

    def flaw(self, response: Response, meta: Mapping[str, Any]) -> Flaw | None:
        """Return why a response with status 2xx or 404 should be asked for again, or None.

        The sites answer with an HTML page and status 200 when their API hiccups.
        """
        try:
            if response.status == 404:
                if not self.is_gone(response):
                    raise Flaw("status 404, but not the API's own")
            elif "key" in meta or self.asked(response.url) is not None:
                self.detail(response, meta)
            else:
                self.index(response, meta)
        except Flaw as flaw:
            return flaw
        return None

    def is_gone(self, response: Response) -> bool:
        """True if the API itself says that it has no such item: 404, and an object without a key.

        An HTML page with status 404 comes from a server in front of the API, and says nothing.
        """
        try:
            return response.status == 404 and self._schema.key not in _json_object(response)
        except Flaw:
            return False

    def reason(self, error: BaseException | None) -> str:
        """Return in one line why a request failed."""
        foreign = isinstance(error, HttpError) and error.response.status == 404
        if foreign and not self.is_gone(error.response):  # type: ignore[union-attr]
            return "status 404, but not the API's own"
        return reason(error)


def reason(error: BaseException | None) -> str:
    """Return in one line why a request failed."""
    if not isinstance(error, HttpError):
        return one_line(_SSL.sub("", f"{type(error).__name__}: {error}"))
    response = error.response
    if where := response.headers.get(b"Location"):
        return one_line(f"status {response.status}, to {where.decode('latin-1')}")
    return f"status {response.status}"


def _of_user(hook: Callable[[Any], Any], data: Any) -> Any:
    """Return what a spider's hook finds; None if the answer has another shape."""
    try:
        return hook(data)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None


def _json_object(response: Response) -> dict[str, Any]:
    try:
        charset = _charset(response.headers.get(b"Content-Type") or b"")
        if not isinstance(response, TextResponse):
            raise ValueError
        if charset == "utf-8":
            response.body.decode()  # json() would guess what is not valid
            data = response.json()  # which is kept: the spider need not decode it again
        else:
            data = json.loads(response.body.decode(charset))
    except UnicodeDecodeError:
        raise Flaw(f"not valid {charset}") from None
    except (ValueError, LookupError):
        raise Flaw(f"not JSON ({_labels(response)})") from None
    except RecursionError:
        raise Flaw("nested too deeply") from None
    if not isinstance(data, dict):
        raise Flaw("JSON, but not an object")
    return data


@lru_cache(maxsize=64)
def _charset(content_type: bytes) -> str:
    """The Python codec of a declared charset; UTF-8, which is JSON's own, where there is none."""
    charset = http_content_type_encoding(content_type.decode("latin-1"))
    if charset in _NO_CHARSETS or (charset is None and b"charset" in content_type.lower()):
        raise ValueError
    return charset or "utf-8"


def _labels(response: Response) -> str:
    """Return what the headers say about the body, for a line of the log."""
    content_type = response.headers.get(b"Content-Type") or b"no type"
    labels = [content_type, *response.headers.getlist(b"Content-Encoding")]
    return one_line(b", ".join(labels).decode("latin-1"), 40)


def _check_listed(data: dict[str, Any], listed: Mapping[str, Any]) -> None:
    if listed.items() <= data.items():  # nearly always
        return
    try:
        for name, value in listed.items():
            if not is_empty(value) and is_empty(data.get(name)):
                raise Flaw(f"a detail without {brief(name)}, which the index page has")
    except RecursionError:
        raise Flaw("nested too deeply") from None
