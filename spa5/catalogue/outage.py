"""Outage: a time in which the site, MongoDB or Redis is away."""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


class Outage:
    """Says once that `name` is away and once that it is back, and counts the seconds as a stat.

    An outage is over when `name` has worked for `steady_seconds`: until then a new failure belongs
    to the same outage. Who waits asks `left` when to give up.
    """

    def __init__(
        self,
        name: str,
        stat: str,  # it begins the stat's name
        most_seconds: float,
        count: Callable[[str, Any], None],
        *,
        steady_seconds: float = 0.0,
        clock: Callable[[], float] = monotonic,
    ):
        self.most_seconds = most_seconds
        self.steady_seconds = steady_seconds
        self.is_told = False
        self._name = name
        self._stat = f"{stat}/outage_seconds"
        self._count = count
        self._clock = clock
        self._since: float | None = None
        self._works_since: float | None = None

    @property
    def is_on(self) -> bool:
        return self._since is not None and self._works_since is None

    @property
    def left(self) -> float:
        """How many seconds of the limit are left."""
        return max(0.0, self.most_seconds - self._seconds(self._clock()))

    def begin(self) -> None:
        """Note a failure that may be an outage; nothing is said yet."""
        self._works_since = None
        if self._since is None:
            self._since = self._clock()

    def failed(self, line: str) -> None:
        """Note a failure. The first one is told to people: `line`, and how long this may take."""
        self.begin()
        if not self.is_told:
            self.is_told = True
            logger.warning("%s, %g s at the most", line, self.most_seconds)

    def worked(self) -> None:
        """Note a success, which may be the end."""
        if self.is_on:
            self._works_since = self._clock()
        began = self._works_since
        if began is not None and self._clock() - began >= self.steady_seconds:
            self.end()

    def end(self) -> None:
        """Say that an outage is over, if the last that was noted is a success."""
        if self._works_since is not None:
            logger.info("%s is back after %.1f s", self._name, self._seconds(self._works_since))
            self._forget(self._works_since)

    def give_up(self) -> None:
        """Count an outage that nobody waits for any longer."""
        self._forget(self._clock())

    def _forget(self, end: float) -> None:
        self._count(self._stat, self._seconds(end))
        self._since = self._works_since = None
        self.is_told = False

    def _seconds(self, end: float) -> float:
        return 0.0 if self._since is None else end - self._since
