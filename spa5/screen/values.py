"""Stored values as people read them."""

from __future__ import annotations

from datetime import datetime
from itertools import takewhile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ABSENT = object()  # the value of a field that an item lacks
_MOST_SHOWN = 160  # characters of a value


def shown(*values: Any) -> list[str]:
    """The values for people, long ones from shortly before they differ; "" for an absent one."""
    texts = [
        "" if one is ABSENT else one.isoformat() if isinstance(one, datetime) else repr(one)
        for one in values
    ]
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False)))
    start = max(0, alike - 20) if max(map(len, texts)) > _MOST_SHOWN else 0
    return [_cut(text, start) for text in texts]


def pairs(
    fields: Mapping[str, Mapping[str, Any]],
    names: tuple[str, str] = ("before", "after"),
    columns: tuple[str, str] = ("before", "after"),
) -> list[Mapping[str, Any]]:
    """Return a row for each field: its name, and its two values of these names, see `shown`."""
    rows: list[Mapping[str, Any]] = []
    for field, values in fields.items():
        texts = shown(*(values.get(name, ABSENT) for name in names))
        rows.append({"field": field, **dict(zip(columns, texts, strict=True))})
    return rows


def readable(value: Any) -> str:
    """Return a stored value as text. Objects in a list have a line each."""
    if isinstance(value, list):
        has_objects = any(isinstance(one, dict) for one in value)
        return ("\n" if has_objects else ", ").join(map(readable, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}: {readable(one)}" for name, one in value.items())
    if isinstance(value, datetime):
        return value.isoformat()
    return "" if value is None else str(value)


def _cut(text: str, start: int) -> str:
    end = start + _MOST_SHOWN
    return "…" * bool(start) + text[start:end] + "…" * (len(text) > end)
