"""The products of a shop that only the tests know: pages by number, keys of letters and dashes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.standin.catalogue import Catalogue, number
from tests.standin.texts import text, within_blanks

if TYPE_CHECKING:
    from random import Random

    from tests.standin.catalogue import Entry, Key

KINDS = ("lamp", "desk", "Chair", "shelf", "RUG")
COLOURS = ("oak", "walnut", "Black", "off-white")


class Products(Catalogue):
    key = "sku"
    path = "/products"
    slash = ""
    page_size = 20

    def make_keys(self, items: int, rng: Random) -> list[str]:
        """One of them is of digits alone, and yet text."""
        keys = [f"{rng.choice(KINDS)}-{rng.choice(COLOURS)}-{n:04}" for n in range(1, items)]
        return ["100200", *keys]

    def new_key(self, number: int) -> str:
        return f"new-{number}"

    def make_entry(self, key: Key, rng: Random) -> Entry:
        title = f"{rng.choice(COLOURS)}  {rng.choice(KINDS)}"
        return {"sku": key, "title": within_blanks(rng, title), "price": rng.randrange(500) + 0.5}

    def make_rest(self, key: Key, rng: Random) -> Entry:
        return {
            "description": text(rng, 8),
            "stock": rng.randrange(100) if rng.random() < 0.9 else None,
            "tags": rng.sample(COLOURS, rng.randrange(4)),
            "offers": [
                {"shop": within_blanks(rng, "Ида & co"), "price": f"{rng.randrange(500)}.25"}
                for _ in range(rng.randrange(3))
            ],
            "added": f"2026-0{rng.randrange(1, 10)}-11T08:00:00+02:00",
        }

    def visible_edit(self, edits: int) -> Entry:
        return {"price": 1000 + edits}

    def hidden_edit(self, edits: int) -> Entry:
        return {"description": f"Edition {edits}"}

    def window(self, query: dict[str, list[str]], cap: int | None) -> tuple[int, int]:
        size = number(query, "per_page", least=1, default=self.page_size)
        size = min(size, cap or size)
        return (number(query, "page", least=1, default=1) - 1) * size, size

    def page(self, entries: list[Entry], count: Any) -> Entry:
        return {"data": {"items": entries, "total": count}}

    def page_path(self, offset: int, limit: int) -> str:
        return f"{self.path}?page={offset // limit + 1}&per_page={limit}"
