"""What commands print of stored data: a table for people, JSON for programs."""

from __future__ import annotations

import json
import math
import re
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from spa5.catalogue.text import UNSAFE, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import Console
    from rich.table import Table

_UNLIMITED = 100_000  # columns: what reads a pipe folds lines itself
_LEAST = 24  # columns, to which a text of a table may be folded; shorter ones stay as they are
_GAP = "  "
_TRAILING = re.compile(" +$", re.MULTILINE)


def print_json(rows: Iterable[Mapping[str, Any]]) -> None:
    """Print one JSON object a line. Dates are ISO 8601 in UTC.

    What a terminal would act upon is spelled as `\\u009b`, which programs read as what it was.
    """
    for row in rows:
        text = json.dumps(as_json(row), ensure_ascii=False, allow_nan=False)
        print(UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text), flush=True)


def print_table(rows: list[Mapping[str, Any]]) -> None:
    """Print the rows, whose names are the columns'. None is shown as nothing.

    Where a terminal is too narrow for a table, each row is a few lines of names and values.
    """
    if not rows:
        return
    console = _console()
    columns = {name: [_cell(row[name]) for row in rows] for name in rows[0]}
    widths = [min(_LEAST, max(map(_width, (name, *cells)))) for name, cells in columns.items()]
    with console.capture() as captured:  # rich would end the process where a pipe is closed
        if sum(widths) + len(_GAP) * (len(widths) - 1) <= console.width:
            console.print(_table(columns, rows))
        else:
            for row in zip(*columns.values(), strict=True):
                console.print(
                    *_lines(dict(zip(columns, row, strict=True)), console.width), sep="\n"
                )
    sys.stdout.write(_TRAILING.sub("", captured.get()))


def local(moment: datetime | None) -> str:
    """Return a date for people, in the time of this machine."""
    if not isinstance(moment, datetime):  # another program's
        return "" if moment is None else plain(str(moment))
    try:
        return f"{moment.astimezone():%Y-%m-%d %H:%M}"
    except OverflowError:  # at the beginning or the end of all years
        return moment.isoformat()


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
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def _table(columns: dict[str, list[str]], rows: list[Mapping[str, Any]]) -> Table:
    """Return a table, which folds its widest columns where it does not fit."""
    from rich.table import Table  # takes 70 ms

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        is_number = all(isinstance(one[name], (int, float, type(None))) for one in rows)
        justify: Any = "right" if is_number else "left"
        table.add_column(name, justify=justify, overflow="fold")
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table


def _lines(row: dict[str, str], width: int) -> list[str]:
    """Return names and values, as many in a line as it can hold."""
    lines = [""]
    for part in (f"{name}: {cell}" for name, cell in row.items() if cell):
        if not lines[-1]:
            lines[-1] = part
        elif _width(lines[-1] + _GAP + part) <= width:
            lines[-1] += _GAP + part
        else:
            lines.append(_GAP + part)
    return lines


def _console() -> Console:
    from rich.console import Console

    width = None if sys.stdout.isatty() else _UNLIMITED
    return Console(width=width, highlight=False, markup=False, emoji=False)


def _cell(value: Any) -> str:
    return "" if value is None else " ".join(plain(str(value)).split())


def _width(text: str) -> int:
    """The columns that a text takes on a terminal, where a Chinese character takes two."""
    from rich.cells import cell_len

    return cell_len(text)
