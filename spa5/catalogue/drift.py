"""Drift: keeps a site that changed for everybody from emptying a field of all that is stored."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from spa5.catalogue.listing import DRIFT
from spa5.catalogue.text import Trouble

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from spa5.catalogue.item import Key

MOST_EMPTIED = 20  # documents that may lose one field before the share is known
LEAST_UPDATES = 20  # before a share means something


class Drifted(Trouble):
    """The site would empty a field of too many items."""


class Drift:
    """Judges updates of stored documents by the fields that they would empty.

    When among at least 20 updates more than `share` empty the same field, that is drift: `admit`
    raises, from then on for every update. Before, 20 documents may lose a field; further ones are
    held back until a sweep has shown that their share is low. `count` adds one to the documents
    that lost a field in all workers of a crawl, and returns how many they are.
    """

    def __init__(self, share: float, count: Callable[[str], Awaitable[int]], *, accepted: bool):
        self._share = share
        self._accepted = accepted
        self._count = count
        self._updates = 0
        self._would: Counter[str] = Counter()  # updates that would empty the field
        self._spent: set[str] = set()  # fields that no further document may lose yet
        self._trusted: set[str] = set()
        self.found: Drifted | None = None

    async def admit(self, item_id: Key, emptied: Iterable[str]) -> str | None:
        """Count an update. Return the field because of which it is held back, None: write it."""
        if self._accepted:
            return None
        if self.found:
            raise self.found
        self._updates += 1
        emptied = list(emptied)
        self._would.update(emptied)
        for field in emptied:
            if self._updates >= LEAST_UPDATES and not self._is_rare(field):
                self.found = Drifted(self._line(field, item_id))
                raise self.found
        for field in emptied:
            if not await self._may_lose(field):
                return field
        return None

    async def _may_lose(self, field: str) -> bool:
        if field in self._trusted:
            return True
        if field not in self._spent and await self._count(field) > MOST_EMPTIED:
            self._spent.add(field)
        return field not in self._spent

    def end_sweep(self) -> None:
        """Trust what the updates of a whole sweep have shown to be rare."""
        self._trusted.update(filter(self._is_rare, self._would))

    def _is_rare(self, field: str) -> bool:
        return self._would[field] <= self._share * self._updates

    def _line(self, field: str, item_id: Key) -> str:
        return (
            f"{DRIFT}{self._would[field]} of {self._updates} updates would empty {field!r} "
            f"(for example that of {item_id}). Nothing more is written. If the site is right, "
            f"crawl again with -a accept=drift"
        )
