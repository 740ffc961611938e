"""What changed, for people: how many items in which way, and the first of them in tables."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from spa5.catalogue.fields import now
from spa5.catalogue.text import plain
from spa5.mongo.status import status
from spa5.screen.output import local, print_table
from spa5.screen.values import pairs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from spa5.mongo.changes import Span

_WORDS = {"new": "new", "changed": "changed", "delisted": "delisted", "back": "back again"}


async def print_changes(
    found: AsyncIterator[dict[str, Any]], span: Span, field: str | None, most: int
) -> None:
    """Print how many changes there are, and at most `most` of each kind."""
    counts: Counter[str] = Counter()
    rows: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    async for change in found:
        counts[change["change"]] += 1
        if counts[change["change"]] <= most:
            rows[change["change"]] += _rows(change, dated=span.crawl is None)
    print(plain(f"{_title(span)}: {_said(counts, field)}"))
    for kind, words in _WORDS.items():
        if rows[kind]:
            print(f"\n{words.capitalize()}")
            print_table(rows[kind])
        if counts[kind] > most:
            print(f"… and {counts[kind] - most:,} more: --limit {counts[kind]} shows them all")


def _said(counts: Counter[str], field: str | None) -> str:
    if not counts:
        return f"no {field} changed" if field else "nothing changed"
    if field:
        return f"{counts['changed']:,} changed in {field}"
    return ", ".join(f"{counts[kind]:,} {words}" for kind, words in _WORDS.items())


def _rows(change: Mapping[str, Any], *, dated: bool) -> list[Mapping[str, Any]]:
    item = {"id": str(change["id"]), "name": change.get("name")}
    if dated:
        item["when"] = local(change["at"])
    if "fields" not in change:
        return [item]
    return [{**item, **row} for row in pairs(change["fields"])]


def _title(span: Span) -> str:
    if span.crawl is None:
        return f"Since {local(span.moments['$gte'])}"
    when = ", ".join(filter(None, (local(span.crawl.get("began")), status(span.crawl, now()))))
    return f"Crawl {span.crawl['_id']} ({when})"
