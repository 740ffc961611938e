"""A stored item, for people: its fields, its bookkeeping, and its versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spa5.catalogue.text import plain
from spa5.screen.output import folded, local, print_table
from spa5.screen.values import pairs, readable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from spa5.catalogue.item import Schema

_BOOKKEEPING = {
    "first_crawled_at": "first crawled",
    "crawled_at": "last crawled",
    "changed_at": "changed",
    "listed_at": "last seen",
    "delisted_at": "delisted",
    "crawl": "crawl",
}
_MOST_COLUMNS = 4  # of listed fields, in a table


def print_item(item: Mapping[str, Any], schema: Schema) -> None:
    """Print a stored document: a line for each field, long text folded beside the fields' names."""
    rows = list(_lines(item, schema))
    margin = max(len(name) for name, _ in rows) + 2
    for name, value in rows:
        first, *others = folded(value, margin)
        print(f"{plain(name):{margin}}{first}".rstrip())
        for line in others:
            print(f"{'':{margin}}{line}".rstrip())


def print_versions(steps: Sequence[Mapping[str, Any]]) -> None:
    """Print what was replaced in an item, the last change first."""
    print("\nHistory" if steps else "\nNo history: no change of it was recorded")
    for step in steps:
        begins = f"From {local(step['from'])} until" if step["from"] else "Until"
        print(plain(f"\n{begins} {local(step['until'])} (crawl {step['crawl']})"))
        print_table(pairs(step["fields"]))


def print_found(items: Sequence[Mapping[str, Any]], schema: Schema) -> None:
    """Print a line for each item: its key, its name, and what else an index page says of it."""
    title = [schema.title] if schema.title else []
    others = [name for name in schema.listed if name not in title and not _are_links(items, name)]
    names = (schema.key, *title, *others[:_MOST_COLUMNS])
    print_table([{name: readable(item.get(name)) for name in names} for item in items])


def _are_links(items: Sequence[Mapping[str, Any]], name: str) -> bool:
    return any(str(item.get(name)).startswith(("http:", "https:")) for item in items)


def _lines(item: Mapping[str, Any], schema: Schema) -> Iterator[tuple[str, str]]:
    """Yield names and values: the key, the fields in the schema's order, others, bookkeeping."""
    known = (schema.key, *schema.cleaners)
    taken = ("_id", *_BOOKKEEPING)
    for name in (*known, *(name for name in item if name not in known and name not in taken)):
        if name in item:
            yield name, readable(item[name])
    for name, words in _BOOKKEEPING.items():
        if item.get(name) is not None:
            yield words, local(item[name]) if name != "crawl" else str(item[name])
