"""History: the values that changes replaced."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def versions(changed_at: Any, entries: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return an item's replaced versions, newest first, given all its entries.

    `changed_at` is the stored item's. An entry is written before the item is: one that does not
    lead from a version to the next one was left by a write that never happened, and is left out.
    """
    real = []
    begins = changed_at
    for entry in sorted(entries, key=lambda one: one["until"], reverse=True):
        if isinstance(begins, datetime) and entry["until"] <= begins:
            real.append(entry)
            begins = entry["from"]
    return real
