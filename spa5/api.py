"""The site's API: its URLs, and what an answer must look like."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from scrapy.http import Response, TextResponse
from scrapy.spidermiddlewares.httperror import HttpError
from w3lib.encoding import http_content_type_encoding
from w3lib.url import url_query_parameter

from spa5.items import brief
from spa5.plain import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

_PATH = "/api/book/"
_ANSWERED = re.compile(r"/api/book(/[0-9]{1,20})?/?(\?[^#]*)?")
_DETAIL = re.compile(r".*/([0-9]{1,20})/?")
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_SSL = re.compile(r" ssl:(<[^>]*>|\S+)")  # in errors of aiohttp
# Python's codecs that are no charset of a text. A hostile site could make the first two take hours.
_NO_CHARSETS = {"idna", "punycode", "unicode-escape", "raw-unicode-escape"}


def index_url(site: str, offset: int, limit: int) -> str:
    """The index page of at most `limit` books from `offset` on."""
    return f"{site}{_PATH}?limit={limit}&offset={offset}"


def detail_url(site: str, book_id: str) -> str:
    """A book's detail; without the trailing slash the site answers with a redirect."""
    return f"{site}{_PATH}{book_id}/"


def is_api(site: str, url: str) -> bool:
    """Whether a URL is of the site's API."""
    return url.startswith(site) and bool(_ANSWERED.fullmatch(url, len(site)))


def is_ours(site: str, url: str) -> bool:
    """Whether a URL is one that a crawl of `site` may ask for: its API and its robots.txt."""
    return is_api(site, url) or url == f"{site}/robots.txt"


def index_position(url: str) -> tuple[int, int]:
    """The offset and the limit that an index page's URL asks for (0 and 18 where it doesn't)."""
    return _parameter(url, "offset", 0), _parameter(url, "limit", 18)


def asked_id(url: str) -> str | None:
    """The id in a detail's URL; None for other URLs."""
    match = _DETAIL.fullmatch(url)
    return match[1] if match else None


class Flaw(ValueError):
    """A response that is not the API's answer, though its status says so; the text says why."""


def answer(response: Response, listed: Mapping[str, Any] = _NOTHING) -> dict[str, Any]:
    """The JSON object of an index page (with a list as `results`) or of a detail; else `Flaw`.

    `listed` is the detail's own entry on the index page: what that has, the detail must have.
    The site answers with an HTML page and status 200 when its API hiccups.
    """
    try:
        data = _json_object(response)
        if (asked := asked_id(response.url)) is None:
            _check_index(response.url, data)
        elif str(data.get("id", asked)) == asked:  # another item is no hiccup, but not this one
            _check_detail(data, listed)
    except RecursionError:
        raise Flaw("nested too deeply") from None
    return data


def flaw(response: Response, listed: Mapping[str, Any] = _NOTHING) -> Flaw | None:
    """What makes a response with status 2xx or 404 worth asking for again, or None."""
    try:
        if response.status != 404:
            answer(response, listed)
        elif not is_gone(response):
            raise Flaw("status 404, but not the API's own")
    except Flaw as flaw:
        return flaw
    return None


def is_gone(response: Response) -> bool:
    """True if the API itself says that it has no such book: 404 with an object without an id.

    An HTML page with status 404 comes from a server in front of the API, and says nothing.
    """
    try:
        return response.status == 404 and "id" not in _json_object(response)
    except (Flaw, RecursionError):
        return False


def reason(error: BaseException | None) -> str:
    """Why a request failed, on one line."""
    if not isinstance(error, HttpError):
        return one_line(_SSL.sub("", f"{type(error).__name__}: {error}"))
    response = error.response
    if where := response.headers.get(b"Location"):
        return one_line(f"status {response.status}, to {where.decode('latin-1')}")
    whose = ", but not the API's own" if response.status == 404 and not is_gone(response) else ""
    return f"status {response.status}{whose}"


def _json_object(response: Response) -> dict[str, Any]:
    content_type = response.headers.get(b"Content-Type") or b""
    try:
        charset = _charset(content_type)
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
    if not isinstance(data, dict):
        raise Flaw("JSON, but not an object")
    return data


@lru_cache(maxsize=64)
def _charset(content_type: bytes) -> str:
    """The Python codec of a declared charset; UTF-8, which is JSON's own, where there is none."""
    charset = http_content_type_encoding(content_type.decode("latin-1"))
    if charset is None and b"charset" in content_type.lower():
        raise ValueError
    if charset in _NO_CHARSETS:
        raise ValueError
    return charset or "utf-8"


def _labels(response: Response) -> str:
    """What the response's headers say of its body, for a line of the log."""
    content_type = response.headers.get(b"Content-Type") or b"no type"
    labels = [content_type, *response.headers.getlist(b"Content-Encoding")]
    return one_line(b", ".join(labels).decode("latin-1"), 40)


def _check_index(url: str, data: dict[str, Any]) -> None:
    results = data.get("results")
    if not isinstance(results, list):
        raise Flaw("an index page without results")
    limit = _parameter(url, "limit", 0)
    if limit and len(results) > limit:
        raise Flaw(f"an index page of {len(results)} entries, where {limit} were asked for")


def _check_detail(data: dict[str, Any], listed: Mapping[str, Any]) -> None:
    if "id" not in data:
        raise Flaw("a book without an id")
    if listed.items() <= data.items():  # nearly always
        return
    for name, value in listed.items():
        if not _is_empty(value) and _is_empty(data.get(name)):
            raise Flaw(f"a book without {brief(name)}, which the index page has")


def _is_empty(value: Any) -> bool:
    """True for null, blank text, an empty object, and a list that holds nothing else."""
    return all(map(_is_blank, value)) if isinstance(value, list) else _is_blank(value)


def _is_blank(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or value == {} or value == []


def one_line(text: str, most: int = 200) -> str:
    """Text from outside for a line of the log, which no control character of it may shape."""
    line = plain(" ".join(text.split())[: most + 1])
    return line if len(line) <= most else line[: most - 1] + "…"


def site_count(data: dict[str, Any]) -> int | None:
    """The catalogue's size as an index page tells it; None where that is unusable."""
    count = data.get("count")
    return count if type(count) is int and count >= 0 else None


def _parameter(url: str, name: str, default: int) -> int:
    value = url_query_parameter(url, name) or ""
    return int(value) if value.isascii() and value.isdigit() else default
