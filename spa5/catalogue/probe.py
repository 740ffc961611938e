"""Probe: asks an API a few questions, and finds out how its catalogue is laid out."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from spa5.catalogue.item import CODE, DIGITS, INTEGER, KeyKind
from spa5.catalogue.layout import Layout, is_field_name
from spa5.catalogue.walk import Page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from typing import TypeAlias

    from scrapy.http import Response

    from spa5.catalogue.layout import Object, Way

    Ask: TypeAlias = Callable[[str, bool], Awaitable[Response]]  # URL, and: follow redirects?

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


class Unclear(ValueError):
    """The API can't be asked, or its answer can't be made out; the text says why."""


class Probe:
    """Looks at the index behind a URL, and at a detail or two, in few requests."""

    def __init__(self, ask: Ask, url: str):
        self._ask = ask
        self._left = MOST_REQUESTS
        self.layout = Layout.at(url)

    async def look(self) -> Layout:
        try:
            await self._find_entries()
            await self._find_paging()
            await self._find_detail()
        except Unclear as error:
            self.layout.trouble = str(error)
        except RecursionError:
            self.layout.trouble = f"{_shown(self.layout.url)} is nested too deeply"
        return self.layout

    async def _find_entries(self) -> None:
        """Ask for the first page; find its entries and the count."""
        data, url = await self._object(self._index_url(Layout.paging, Page(0, _SIZE)), follow=True)
        self.layout.site, self.layout.path = Layout.at(url).site, Layout.at(url).path
        members = list(_members(data))
        lists = [(way, value) for way, value in members if _is_list_of_objects(value)]
        if not lists:
            raise Unclear(f"{_shown(url)} lists no objects")
        self.layout.entries, entries = lists[0]
        self.layout.listed = entries
        counts = [
            (value == len(entries), way)  # that may be the page's own
            for way, value in members
            if type(value) is int and value >= len(entries) and _COUNT_NAME.match(way[-1])
        ]
        self.layout.count = min(counts, key=lambda one: one[0], default=(True, ()))[1]

    async def _find_paging(self) -> None:
        """Ask for the second page in the common ways, until it differs from the first one."""
        first = self.layout.listed
        if len(first) < _SIZE:  # there is no second one to tell by
            return
        fixed = ""
        for paging in _BY_LIMIT if len(first) == _SIZE else _BY_NUMBER:
            entries = await self._second(paging)
            if entries is None or any(entry in first[:_SIZE] for entry in entries):
                continue
            self.layout.listed = first + [entry for entry in entries if entry not in first]
            self.layout.paging = paging
            if len(entries) <= _SIZE:
                return
            fixed = "page={page.number}"  # the site chooses how many entries a page has
        if not fixed:
            raise Unclear(f"{_shown(self.layout.url)} is paged in an unknown way")
        self.layout.paging = fixed

    async def _second(self, paging: str) -> list[Object] | None:
        """The entries of the second page; None where there is no such page."""
        try:
            data, _ = await self._object(self._index_url(paging, Page(_SIZE, _SIZE)))
            for name in self.layout.entries:
                data = data[name]
        except (Unclear, KeyError, TypeError):
            return None
        return data if data == [] or _is_list_of_objects(data) else None

    async def _find_detail(self) -> None:
        """Find the key, and where the detail of an entry is."""
        layout = self.layout
        base = layout.path.rstrip("/") and "{self.path}" + "/" * (not layout.path.endswith("/"))
        ways = [f"{base}{{key}}/", f"{base}{{key}}"]
        for name, kind in _keys(layout.listed):
            for way in ways if layout.path.endswith("/") else reversed(ways):
                layout.key, layout.kind, layout.detail = name, kind, way
                if await self._add_detail(layout.listed[0]):
                    if len(layout.listed) > 1 and self._left:
                        await self._add_detail(layout.listed[-1])
                    return
        raise Unclear(f"no detail is found below {_shown(layout.url)}")

    async def _add_detail(self, entry: Object) -> bool:
        """Ask for the detail of an entry; keep it, and return True, if the answer is one."""
        key = entry[self.layout.key]
        path = self.layout.detail.format(self=self.layout, key=key)
        try:
            data, _ = await self._object(f"{self.layout.site}{path}")
        except Unclear:
            return False
        if is_detail := bool(data.get(self.layout.key) == key):
            self.layout.details.append((entry, data))
        return is_detail

    def _index_url(self, paging: str, page: Page) -> str:
        layout = self.layout
        return f"{layout.site}{layout.path}?{layout.query}{paging.format(page=page)}"

    async def _object(self, url: str, *, follow: bool = False) -> tuple[Any, str]:
        """The JSON object at a URL, and the URL at which it was in the end."""
        if not self._left:
            raise Unclear(f"{MOST_REQUESTS} requests do not tell how {_shown(url)} is laid out")
        self._left -= 1
        response = await self._ask(url, follow)
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
    """What stands in an object and in the objects within it, the outermost first."""
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
