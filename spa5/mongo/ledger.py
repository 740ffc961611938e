"""Ledger: a document for each crawl, from its first second on."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

BEAT_SECONDS = 10.0
_ALIVE = timedelta(seconds=3 * BEAT_SECONDS)


def status(crawl: Mapping[str, Any], moment: datetime) -> str:
    """Return how a crawl ended: its reason, or `running` or `killed` where it has not."""
    if crawl.get("ended") is not None:
        return str(crawl.get("reason"))
    alive_at = crawl.get("alive_at")
    is_alive = isinstance(alive_at, datetime) and moment - alive_at < _ALIVE
    return "running" if is_alive else "killed"
