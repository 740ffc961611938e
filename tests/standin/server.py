"""Site: answers requests by rule, unless it is told otherwise, and counts them."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

from tests.standin.control import Control
from tests.standin.faults import HTML, SHELL, Faults, Hold, Override, dump, reply
from tests.standin.stats import Stats

if TYPE_CHECKING:
    from aiohttp import web

    from tests.standin.catalogue import Catalogue, Entry, Key
    from tests.standin.login import Door

MOST_PAGES, MOST_DETAILS = 2_000, 10_000  # answers held as bytes


class Site:
    """One site: its catalogue, its API, and what it was told to do otherwise."""

    TRUTH = object()  # the setting `count` when nothing takes the place of the true one

    def __init__(self, catalogue: Catalogue, latency: float = 0, cap: int | None = None) -> None:
        self.catalogue = catalogue
        self.stats = Stats()
        self.settings: dict[str, Any] = {"latency": latency, "cap": cap, "count": self.TRUTH}
        self.settings |= {"insert_every": 0, "insert_most": None}
        # Keys that are listed twice; pages (by offset) that are empty; neighbours change places for
        # each request; fields under another name, and fields that are null, of every item.
        self.settings |= {"repeat": [], "empty": [], "swap": False, "rename": {}, "blank": []}
        self.vanished: set[Key] = set()
        self.overrides: dict[str, Override] = {}
        self.faults = Faults(share=0)
        self.hold: Hold | None = None
        self.door: Door | None = None
        self._control = Control(self)
        self._random = Random(1)
        self._grown = 0
        self._pages: dict[tuple[int, int], bytes] = {}
        self._details: dict[Key, bytes] = {}

    def prerender(self) -> None:
        self._details = {key: dump(self.catalogue.detail(key)) for key in self.catalogue.ids}

    def forget_pages(self) -> None:
        self._pages.clear()

    def forget_details(self, keys: list[Key] | None = None) -> None:
        """Make these anew when they are asked for; None: all."""
        for key in list(self._details) if keys is None else keys:
            self._details.pop(key, None)

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Decide on the answer when the request arrives; an API answer may be late or a fault."""
        target = request.raw_path
        if target.startswith("/_site/"):
            return await self._control.answer(request)
        is_api = target.startswith(("/api/", self.catalogue.path))
        while is_api and (hold := self.hold):
            await hold.let_in(sum(self.stats.details.values()))
            if hold is self.hold:
                break
        closed = await self.door.answer(request, self.stats.door) if self.door else None
        answer = closed or self._truth(target)
        if override := self._take_override(target):
            answer = override.response()
        if not is_api:
            return answer
        kind = None if override else self.faults.pick(target)
        self.stats.arrive(request.headers.get("User-Agent", ""))
        try:
            if self.hold:
                await self.hold.wait(target, self.stats.peak)
            if latency := self.settings["latency"]:
                await asyncio.sleep(latency)
            if kind:
                self.stats.faults[kind] += 1
                answer = await self.faults.fail(kind, request)
            return answer
        finally:
            self.stats.leave(answer.status)

    def _truth(self, target: str) -> web.Response:
        if not (found := self.catalogue.find(target)):
            self.stats.other += 1
            return reply(SHELL, kind=HTML)
        key, query, right = found
        if target != right:
            return reply(b"", 301, HTML, {"Location": right})
        return self._index(query) if key is None else self._detail(key)

    def _take_override(self, target: str) -> Override | None:
        key = target if target in self.overrides else target.partition("?")[0]
        override = self.overrides.get(key)
        if override and override.times is not None:
            override.times -= 1
            if override.times < 1:
                del self.overrides[key]
        return override

    def _detail(self, asked: str) -> web.Response:
        self.stats.details[asked] += 1
        key = self.catalogue.key_in(asked)
        if key is None or key not in self.catalogue or key in self.vanished:
            return reply(b'{"detail": "Not found."}', 404)
        body = self._details.get(key)
        if body is None:
            body = dump(self._dress(self.catalogue.detail(key)))
            if len(self._details) < MOST_DETAILS:
                self._details[key] = body
        return reply(body)

    def _index(self, query: dict[str, list[str]]) -> web.Response:
        window = self.catalogue.window(query, self.settings["cap"])
        self.stats.index_offsets.append(window[0])
        body = self._pages.get(window)
        if body is None:
            body = self._page(*window)
            if len(self._pages) < MOST_PAGES and not self.settings["swap"]:
                self._pages[window] = body
        self._grow()
        return reply(body)

    def _page(self, offset: int, limit: int) -> bytes:
        listed = self._order()
        keys = [] if offset in self.settings["empty"] else listed[offset : offset + limit]
        count = self.settings["count"]
        count = len(listed) if count is self.TRUTH else count
        entries = [self._dress(self.catalogue.summary(key)) for key in keys]
        return dump(self.catalogue.page(entries, count))

    def _order(self) -> list[Key]:
        repeated = self.settings["repeat"]
        listed = [key for key in self.catalogue.ids for _ in range(1 + repeated.count(key))]
        if self.settings["swap"]:
            for left in range(0, len(listed) - 1, 2):
                if self._random.random() < 0.5:
                    listed[left : left + 2] = listed[left + 1], listed[left]
        return listed

    def _dress(self, item: Entry) -> Entry:
        names, blank = self.settings["rename"], self.settings["blank"]
        if not (names or blank):
            return item
        dressed = {names.get(name, name): value for name, value in item.items()}
        return dressed | dict.fromkeys(set(blank) & dressed.keys())

    def _grow(self) -> None:
        """Put an item at the top after every n-th index request."""
        every, most = self.settings["insert_every"], self.settings["insert_most"]
        due = every and len(self.stats.index_offsets) % every == 0
        if due and (most is None or self._grown < most):
            self._grown += 1
            self.catalogue.insert(1)
            self._pages.clear()
