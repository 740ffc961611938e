"""Probe: asks an API a few questions, and finds out how its catalogue is laid out."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from scrapy import Request, Spider
from scrapy.exceptions import UsageError
from scrapy.http.request import NO_CALLBACK

from spa5.catalogue.answers import reason
from spa5.catalogue.item import CODE, DIGITS, INTEGER, KeyKind
from spa5.catalogue.layout import Layout, is_field_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from spa5.catalogue.layout import Object, Way

MOST_REQUESTS = 6
_SIZE = 3  # entries a page
_BY_LIMIT = (
    Layout.paging,
    "page={page.number}&limit={page.limit}",
    "limit={page.limit}&skip={page.offset}",
)
_BY_NUMBER = (
    "page={page.number}&per_page={page.limit}",
    "page={page.number}&page_size={page.limit}",
)
_KEY_NAMES = ("id", "sku", "code", "slug", "uuid", "isbn")
_MEMBER_NAME = re.compile("[A-Za-z0-9_@.:-]{1,30}")
_COUNT_NAME = re.compile("(?!.*page).*(count|total|found)", re.IGNORECASE)


class Unclear(UsageError):
    """The API can't be asked, or its answer can't be made out; the text says why."""


class Probe(Spider):
    """Looks at the index behind `url`, and at a detail or two, in few requests.

    It makes them through Scrapy's downloader, as the settings say, and yields nothing: `layout` is
    what it found, None where it was interrupted.
    """

    name = "probe"
    url: str
    layout: Layout | None = None

    async def start(self) -> AsyncIterator[Request]:
        self._left = MOST_REQUESTS
        layout = Layout.at(self.url)
        try:
            await self._find_entries(layout)
            await self._find_paging(layout)
            await self._find_detail(layout)
        except UsageError as error:
            layout.trouble = layout.trouble or str(error)
        except RecursionError:
            layout.trouble = f"{_shown(self.url)} is nested too deeply"
        self.layout = layout
        return
        yield Request(self.url)  # Scrapy expects a generator

    async def _find_entries(self, layout: Layout) -> None:
        """Ask for the first page; find its entries and the count."""
        data, url = await self._object(layout.index_url(0, _SIZE))
        layout.site, layout.path = Layout.at(url).site, Layout.at(url).path
        members = list(_members(data))
        lists = [(way, value) for way, value in members if _is_list_of_objects(value)]
        if not lists:
            raise Unclear(f"{_shown(url)} lists no objects")
        layout.entries, entries = lists[0]
        layout.listed = entries
        counts = [
            (value == len(entries), way)  # that may be the page's own
            for way, value in members
            if type(value) is int and value >= len(entries) and _COUNT_NAME.match(way[-1])
        ]
        layout.count = min(counts, key=lambda one: one[0], default=(True, ()))[1]

    async def _find_paging(self, layout: Layout) -> None:
        """Ask for the second page in the common ways, until it differs from the first one."""
        first = layout.listed
        if len(first) < _SIZE:  # there is no second one to tell by
            return
        fixed = ""
        for paging in _BY_LIMIT if len(first) == _SIZE else _BY_NUMBER:
            layout.paging = paging
            entries = await self._second(layout)
            if entries is None or any(entry in first[:_SIZE] for entry in entries):
                continue
            layout.listed = first + [entry for entry in entries if entry not in first]
            if len(entries) <= _SIZE:
                return
            fixed = "page={page.number}"  # the site chooses how many entries a page has
        layout.paging = fixed or Layout.paging
        layout.trouble = "" if fixed else f"{_shown(layout.url)} is paged in an unknown way"

    async def _second(self, layout: Layout) -> list[Object] | None:
        """The entries of the second page; None where there is no such page."""
        try:
            data, _ = await self._object(layout.index_url(_SIZE, _SIZE))
            for name in layout.entries:
                data = data[name]
        except (Unclear, KeyError, TypeError):
            return None
        return data if data == [] or _is_list_of_objects(data) else None

    async def _find_detail(self, layout: Layout) -> None:
        """Find the key, and where the detail of an entry is."""
        base = layout.path.rstrip("/") and "{self.path}" + "/" * (not layout.path.endswith("/"))
        ways = [f"{base}{{key}}/", f"{base}{{key}}"]
        for name, kind in _keys(layout.listed):
            for way in ways if layout.path.endswith("/") else reversed(ways):
                layout.key, layout.kind, layout.detail = name, kind, way
                if await self._add_detail(layout, layout.listed[0]):
                    if len(layout.listed) > 1 and self._left:
                        await self._add_detail(layout, layout.listed[-1])
                    return
        raise Unclear(f"no detail is found below {_shown(layout.url)}")

    async def _add_detail(self, layout: Layout, entry: Object) -> bool:
        """Ask for the detail of an entry; keep it, and return True, if the answer is one."""
        key = entry[layout.key]
        path = layout.detail.format(self=layout, key=key)
        try:
            data, _ = await self._object(f"{layout.site}{path}", dont_redirect=True)
        except Unclear:
            return False
        if is_detail := bool(data.get(layout.key) == key):
            layout.details.append((entry, data))
        return is_detail

    async def _object(self, url: str, **meta: bool) -> tuple[Any, str]:
        """The JSON object at a URL, and the URL at which it was in the end."""
        if not self._left:
            raise Unclear("that would be too many requests")
        self._left -= 1
        try:
            request = Request(url, NO_CALLBACK, meta=meta)
            response = await self.crawler.engine.download_async(request)
        except Exception as error:
            raise Unclear(f"{_shown(url)} can't be asked ({reason(error)})") from None
        if response.status != 200:
            raise Unclear(f"{_shown(url)} answers with status {response.status}")
        try:
            data = json.loads(response.body)
        except ValueError:
            raise Unclear(f"{_shown(url)} is not JSON") from None
        if not isinstance(data, dict):
            raise Unclear(f"{_shown(url)} is JSON, but not an object")
        return data, response.url


def _shown(url: str) -> str:
    """A URL for people, without its query, which may hold a secret."""
    return url.partition("?")[0]


def _members(data: Object) -> Iterator[tuple[Way, Any]]:
    """Yield the members of an object and of the objects within it, the outermost first."""
    level: list[tuple[Way, Any]] = [((), data)]
    for _ in range(3):
        level = [
            ((*way, name), value)
            for way, outer in level
            if isinstance(outer, dict)
            for name, value in outer.items()
            if _MEMBER_NAME.fullmatch(name)
        ]
        yield from level


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _keys(entries: list[Object]) -> Iterator[tuple[str, KeyKind]]:
    """The names under which each entry has a key of its own, the likeliest first."""
    names = [*_KEY_NAMES, *(name for name in entries[0] if name.endswith("id")), *entries[0]]
    for name in dict.fromkeys(filter(is_field_name, names)):
        keys = [entry.get(name) for entry in entries]
        for kind in (INTEGER, DIGITS, CODE):
            if all(type(key) is kind.type and re.fullmatch(kind.pattern, str(key)) for key in keys):
                if len(set(keys)) == len(keys):
                    yield name, kind
                break
