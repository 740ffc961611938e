"""Catalogue: what the sites' catalogues share."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TypeAlias

    Key: TypeAlias = int | str
    Entry: TypeAlias = dict[str, Any]


class Catalogue(ABC):
    """Items made by rule from (seed, key); only the keys are held, in the site's order.

    A subclass makes the items of one site, and says how its API is addressed.
    """

    key: ClassVar[str] = "id"
    path: ClassVar[str]  # of the index, without a slash at its end
    slash: ClassVar[str] = "/"  # at the end of each path
    page_size: ClassVar[int]  # entries, where none are asked for

    def __init__(self, items: int, seed: int = 1) -> None:
        self.seed = seed
        self.ids: list[Any] = list(self.make_keys(items, Random(f"{seed}:ids")))
        self.inserted = 0
        self._known = set(self.ids)
        self._edits: Counter[Key] = Counter()
        self._hidden_edits: Counter[Key] = Counter()
        self._route = re.compile(rf"{self.path}(?:/([^/]+))?(/?)")

    # What a subclass says of its items.

    @abstractmethod
    def make_keys(self, items: int, rng: Random) -> Sequence[Key]:
        """The keys of so many items, in the site's order."""

    @abstractmethod
    def new_key(self, number: int) -> Key:
        """The key of the first, second, … item that is inserted."""

    @abstractmethod
    def make_entry(self, key: Key, rng: Random) -> Entry:
        """What an index page lists."""

    @abstractmethod
    def make_rest(self, key: Key, rng: Random) -> Entry:
        """What the detail has in addition."""

    @abstractmethod
    def visible_edit(self, edits: int) -> Entry:
        """The values, on index page and detail, of an item that was edited so often."""

    @abstractmethod
    def hidden_edit(self, edits: int) -> Entry:
        """The same for the detail alone."""

    # What a subclass may say of its API.

    def key_in(self, text: str) -> Key | None:
        """The key that a detail's path names."""
        return text

    def window(self, query: dict[str, list[str]], cap: int | None) -> tuple[int, int]:
        """The offset and the limit that an index page's query asks for."""
        limit = number(query, "limit", least=1, default=self.page_size)
        return number(query, "offset", least=0, default=0), min(limit, cap or limit)

    def page(self, entries: list[Entry], count: Any) -> Entry:
        """The answer to a request for an index page."""
        return {"count": count, "results": entries}

    def page_path(self, offset: int, limit: int) -> str:
        """The path and query with which a crawl asks for an index page."""
        return f"{self.path}{self.slash}?limit={limit}&offset={offset}"

    # What is the same for all.

    def __contains__(self, key: object) -> bool:
        return key in self._known

    def detail_path(self, key: Key) -> str:
        return f"{self.path}/{key}{self.slash}"

    def find(self, target: str) -> tuple[str | None, dict[str, list[str]], str] | None:
        """A path's key (None: the index), query, and right address; None where it is another's."""
        path, _, query = target.partition("?")
        if not (route := self._route.fullmatch(path)):
            return None
        right = path[: len(path) - len(route[2])] + self.slash
        return route[1], parse_qs(query), target.replace(path, right, 1)

    def summary(self, key: Key, rng: Random | None = None) -> Entry:
        """The item as an index page lists it; known or not, a key always gives the same one."""
        entry = self.make_entry(key, rng or self._random(key))
        edits = self._edits[key]
        return entry | self.visible_edit(edits) if edits else entry

    def detail(self, key: Key) -> Entry:
        """The item's own page: the summary's fields and the rest."""
        rng = self._random(key)
        item = self.summary(key, rng) | self.make_rest(key, rng)
        edits = self._edits[key] + self._hidden_edits[key]
        return item | self.hidden_edit(edits) if edits else item

    def insert(self, items: int) -> None:
        """Put new items at the top."""
        for _ in range(items):
            self.inserted += 1
            self.ids.insert(0, self.new_key(self.inserted))
            self._known.add(self.ids[0])

    def remove(self, keys: Iterable[Key]) -> None:
        self._known.difference_update(keys)
        self.ids = [key for key in self.ids if key in self._known]

    def edit(self, keys: Iterable[Key]) -> None:
        """Change them so that it shows on the index page and on the item's own."""
        self._edits.update(keys)

    def edit_hidden(self, keys: Iterable[Key]) -> None:
        """Change them so that no index page shows it."""
        self._hidden_edits.update(keys)

    def edit_back(self, keys: Iterable[Key]) -> None:
        """Take back their last hidden edits."""
        self._hidden_edits.subtract(keys)

    def _random(self, key: Key) -> Random:
        return Random(f"{self.seed}:{key}")


def number(query: dict[str, list[str]], name: str, least: int, default: int) -> int:
    """A number of a query, where it is a usable one."""
    try:
        found = int(query[name][0])
    except (KeyError, ValueError):
        return default
    return found if found >= least else default
