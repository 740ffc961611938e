"""The measurements as a Markdown table."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

HEAD = """\
| row | what | median | spread | ratio | target | met |
|---|---|---|---|---|---|---|"""


@dataclass
class Line:
    """One line: the values of all rounds in `unit`, and what is demanded of them.

    With `project`, the values of the project that these are compared with, the ratio is that of
    the medians, project : this, and the target is the ratio's; else it is the median's.
    """

    row: int
    what: str
    unit: str
    values: list[float]
    project: list[float] | None = None
    at_most: float | None = None
    at_least: float | None = None

    def __str__(self) -> str:
        low, high = _number(min(self.values)), _number(max(self.values))
        cells = (
            str(self.row),
            self.what,
            f"{_number(median(self.values))} {self.unit}",
            f"{low}–{high}",
            "" if self.ratio is None else f"{self.ratio:.2f}",
            self._target,
            self._met,
        )
        return f"| {' | '.join(cells)} |"

    @property
    def ratio(self) -> float | None:
        return None if self.project is None else median(self.project) / median(self.values)

    @property
    def _target(self) -> str:
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return "" if self.at_least is None else f"≥ {self.at_least:g}"

    @property
    def _met(self) -> str:
        judged = median(self.values) if self.ratio is None else self.ratio
        if self.at_most is not None:
            return "yes" if judged <= self.at_most else "**no**"
        if self.at_least is not None:
            return "yes" if judged >= self.at_least else "**no**"
        return ""


def markdown(lines: Iterable[Line]) -> str:
    return "\n".join([HEAD, *map(str, lines)])


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
