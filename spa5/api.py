"""The site's API: its URLs, and what an answer must look like."""

from __future__ import annotations

import re
from typing import Any

from scrapy.http import Response, TextResponse
from w3lib.url import url_query_parameter

_PATH = "/api/book/"
_ANSWERED = re.compile(r"/api/book(/[0-9]{1,20})?/?(\?[^#]*)?")
_DETAIL = re.compile(r".*/([0-9]{1,20})/?")


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
    """A response with status 200 that is not the API's answer; the text says why."""


def answer(response: Response) -> dict[str, Any]:
    """The JSON object of an index page (with a list as `results`) or of a detail; else `Flaw`.

    The site answers with an HTML page and status 200 when its API hiccups.
    """
    try:
        data = response.json() if isinstance(response, TextResponse) else None
    except (ValueError, RecursionError):
        data = None
    if data is None:
        content_type = (response.headers.get(b"Content-Type") or b"no type").decode("latin-1")
        raise Flaw(f"not JSON ({content_type[:40]})")
    if not isinstance(data, dict):
        raise Flaw("JSON, but not an object")
    if asked_id(response.url) is None and not isinstance(data.get("results"), list):
        raise Flaw("an index page without results")
    return data


def flaw(response: Response) -> str | None:
    """What makes a response with status 200 worth asking for again, or None."""
    try:
        data = answer(response)
    except Flaw as flaw:
        return str(flaw)
    return "a book without an id" if asked_id(response.url) and "id" not in data else None


def site_count(data: dict[str, Any]) -> int | None:
    """The catalogue's size as an index page tells it; None where that is unusable."""
    count = data.get("count")
    return count if type(count) is int and count >= 0 else None


def _parameter(url: str, name: str, default: int) -> int:
    value = url_query_parameter(url, name) or ""
    return int(value) if value.isascii() and value.isdigit() else default
