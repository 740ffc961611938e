"""What a restore puts back, for people and for programs."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spa5.catalogue.text import plain
from spa5.screen.output import print_json, print_table
from spa5.screen.values import pairs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from spa5.catalogue.item import Key, Schema
    from spa5.mongo.restore import Back

_MOST_NAMED = 20  # items that are gone, or that could not be put back


@dataclass
class Tally:
    """Counts what is put back, or could be; `most` items are kept for a table."""

    schema: Schema
    most: int
    is_done: bool  # False: it could be
    items: int = 0
    refused: int = 0
    fields: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    gone: list[Key] = field(default_factory=list)
    rows: list[Mapping[str, Any]] = field(default_factory=list)

    def add(self, one: Back) -> None:
        """Count this one; say at once why it could not be put back."""
        self.left.update(one.left)
        if one.item is None:
            self.gone.append(one.key)
        elif one.problem:
            self.refused += 1
            if self.refused <= _MOST_NAMED:
                said = f"{self.schema.noun} {one.key} could not be put back: {one.problem}\n"
                sys.stderr.write(plain(said))
        elif one.fields:
            self.items += 1
            self.fields.update(one.fields.keys())
            if self.items <= self.most:
                self.rows += self._rows(one, one.item)

    def counted(self, number: int) -> str:
        return f"{number:,} {self.schema.noun if number == 1 else self.schema.nouns}"

    def _rows(self, one: Back, item: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        columns = ("before", "after") if self.is_done else ("now", "then")
        title = self.schema.title
        names = {"id": str(one.key), "name": item.get(title) if title else None}
        return [{**names, **row} for row in pairs(one.fields, ("now", "then"), columns)]


async def print_json_of(found: AsyncIterator[Back], schema: Schema, crawl: str | None) -> int:
    """Print an object for each item; return how many could not be put back.

    `crawl`: the restore's id, if it is done.
    """
    refused = 0
    ignored = (BrokenPipeError,) if crawl else ()  # it goes on though nobody reads this
    async for one in found:
        own: dict[str, Any] = {"id": one.key}
        if one.item is None:
            own["missing"] = True
        elif schema.title and schema.title in one.item:
            own["name"] = one.item[schema.title]
        more = {"fields": one.fields, "left": one.left, "problem": one.problem}
        own |= {name: value for name, value in more.items() if value}
        refused += bool(one.problem)
        own |= {"crawl": crawl} if crawl and one.fields else {}
        with suppress(*ignored):
            print_json([own])
    return refused


def print_tally(tally: Tally, title: str, why_nothing: str) -> None:
    """Print how many items there are, the first of them in a table, and what is left as it is."""
    if tally.items:
        what = "put back" if tally.is_done else "to put back"
        print(plain(f"{title}: {tally.counted(tally.items)} {what} ({_names(tally.fields)})\n"))
        print_table(tally.rows)
    else:
        print(plain(f"{title}: there is nothing to put back{why_nothing}"))
    if tally.items > tally.most:
        how = "" if tally.is_done else f": --limit {tally.items} shows them all"
        print(f"… and {tally.items - tally.most:,} more{how}")
    _print_rest(tally)


def _print_rest(tally: Tally) -> None:
    if tally.left:
        said = f"Changed again since, and left as it is: {_names(tally.left)}"
        print(plain(said))
    if tally.gone:
        more = ", …" * (len(tally.gone) > _MOST_NAMED)
        keys = ", ".join(map(str, tally.gone[:_MOST_NAMED]))
        print(plain(f"Not stored any more: {keys}{more}"))
    if tally.refused:
        print(f"{tally.counted(tally.refused)} could not be put back")


def _names(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common())
