"""What commands print of stored data: a table for people, JSON for programs."""

from __future__ import annotations

import json
import math
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from spa5.catalogue.text import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import Console

_UNLIMITED = 100_000  # columns: what reads a pipe folds lines itself


def print_json(rows: Iterable[Mapping[str, Any]]) -> None:
    """Print one JSON object a line. Dates are ISO 8601 in UTC."""
    for row in rows:
        print(json.dumps(as_json(row), ensure_ascii=False, allow_nan=False), flush=True)


def print_table(rows: list[Mapping[str, Any]]) -> None:
    """Print the rows, whose names are the columns'. None is shown as nothing.

    Where a terminal is too narrow for a table each row is a block of lines.
    """
    if not rows:
        return
    from rich.table import Table  # takes 70 ms

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in rows[0]:
        is_number = all(isinstance(row[name], (int, float, type(None))) for row in rows)
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    console = _console()
    if console.measure(table).minimum <= console.width:
        console.print(table)
    else:
        _print_blocks(console, rows)


def local(moment: datetime | None) -> str:
    """Return a date for people, in the time of this machine."""
    if not isinstance(moment, datetime):  # another program's
        return "" if moment is None else plain(str(moment))
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"


def folded(text: str, margin: int) -> list[str]:
    """Return the lines of a text, folded to what the terminal has beside a margin."""
    from rich.text import Text

    screen = _console()
    lines = Text(plain(text.replace("\r\n", "\n"))).wrap(screen, max(10, screen.width - margin))
    return [line.plain.rstrip() for line in lines] or [""]


def as_json(value: Any) -> Any:
    """Return what JSON can hold of a stored value."""
    if isinstance(value, dict):
        return {str(name): as_json(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(one) for one in value]
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, int, float)):
        return _spellable(value) if isinstance(value, str) else value
    return str(value)


def _print_blocks(console: Console, rows: list[Mapping[str, Any]]) -> None:
    for number, row in enumerate(rows):
        if number:
            console.print()
        for name, value in row.items():
            if text := _cell(value):
                console.print(f"{name}: {text}", markup=False, highlight=False)


def _console() -> Console:
    from rich.console import Console

    width = None if sys.stdout.isatty() else _UNLIMITED
    return Console(width=width, highlight=False, markup=False, emoji=False)


def _cell(value: Any) -> str:
    return "" if value is None else plain(str(value))


def _spellable(text: str) -> str:
    """The site can send halves of characters, which no encoding spells."""
    return text.encode("utf-8", "backslashreplace").decode()
