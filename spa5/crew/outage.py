"""Outage: the time during which Redis does not do what a worker asks."""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Any

from spa5.catalogue.text import brief

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

MOST_SECONDS = 300.0
# Redis must have worked for so long before a failure counts as a new outage.
_STEADY_SECONDS = 5.0


class Outage:
    """Tells once that Redis is away, and once that it is back, also where it comes and goes."""

    def __init__(self, place: str, count: Callable[[str, Any], None]):
        self._place = place
        self._count = count  # of stats
        self.most_seconds = MOST_SECONDS
        self._since: float | None = None
        self._over: float | None = None  # since when Redis has worked again

    @property
    def is_on(self) -> bool:
        return self._since is not None and self._over is None

    @property
    def is_too_long(self) -> bool:
        return self._since is not None and monotonic() - self._since > self.most_seconds

    def failed(self, error: Exception) -> None:
        self._over = None
        if self._since is None:
            self._since = monotonic()
            logger.warning(
                "Redis at %s is away (%s): this worker waits for it, %g s at the most",
                self._place,
                brief(str(error).partition(" script: ")[0], 200),
                self.most_seconds,
            )

    def worked(self) -> None:
        if self._since is None:
            return
        self._over = self._over or monotonic()
        if monotonic() - self._over > _STEADY_SECONDS:
            self.end()

    def end(self) -> None:
        """Say that an outage is over, if one is."""
        if self._since is not None and self._over is not None:
            seconds = self._over - self._since
            self._since = self._over = None
            self._count("redis/outage_seconds", seconds)
            logger.info("Redis is back after %.1f s", seconds)
