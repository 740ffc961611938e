"""Outage: a time in which the site, MongoDB or Redis is away."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


@dataclass
class Outage:
    """Says once that `name` is away and once that it is back, and counts the seconds as a stat.

    An outage is over when `name` has worked for `steady_seconds`: until then a new failure belongs
    to the same outage. Who waits asks `left` when to give up.
    """

    name: str
    stat: str  # what comes before `/outage_seconds`
    most_seconds: float
    count: Callable[[str, Any], None]
    steady_seconds: float = 0.0
    clock: Callable[[], float] = monotonic
    is_told: bool = field(default=False, init=False)
    _since: float | None = field(default=None, init=False)
    _works_since: float | None = field(default=None, init=False)

    @property
    def is_on(self) -> bool:
        return self._since is not None and self._works_since is None

    @property
    def seconds(self) -> float:
        """The time that it lasts, or has lasted if `name` works again."""
        end = self.clock() if self._works_since is None else self._works_since
        return 0.0 if self._since is None else end - self._since

    @property
    def left(self) -> float:
        return max(0.0, self.most_seconds - self.seconds)

    def begin(self) -> None:
        """Note a failure that may be an outage; nothing is said yet."""
        self._works_since = None
        if self._since is None:
            self._since = self.clock()

    def failed(self, line: str) -> None:
        """Note a failure. The first one is told to people: `line`, and how long this may take."""
        self.begin()
        if not self.is_told:
            self.is_told = True
            logger.warning("%s, %g s at the most", line, self.most_seconds)

    def worked(self) -> None:
        """Note a success, which may be the end."""
        if self.is_on:
            self._works_since = self.clock()
        began = self._works_since
        if began is not None and self.clock() - began >= self.steady_seconds:
            self.end()

    def end(self) -> None:
        """Say that an outage is over, if the last that was noted is a success."""
        if self._works_since is not None:
            logger.info("%s is back after %.1f s", self.name, self.seconds)
            self.give_up()

    def give_up(self) -> None:
        """Count an outage for which nobody waits any more."""
        self.count(f"{self.stat}/outage_seconds", self.seconds)
        self._since = self._works_since = None
        self.is_told = False
