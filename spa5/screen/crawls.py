"""Crawls: what the ledger says of them, in the words in which people read it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from spa5.mongo.status import status
from spa5.screen.output import local, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Mapping

_COUNTS = ("listed", "new", "changed", "delisted", "failed")
_RESTORED = "restored"


def show(crawls: list[dict[str, Any]], moment: datetime, *, as_json: bool) -> None:
    """Print the documents whole, or a table without the columns of which nothing is known."""
    if as_json:
        print_json(crawl | {"status": status(crawl, moment)} for crawl in crawls)
        return
    rows = [row(crawl, moment) for crawl in crawls]
    known = {name for one in rows for name in one if one[name] is not None}
    print_table([{name: one[name] for name in one if name in known} for one in rows])


def row(crawl: Mapping[str, Any], moment: datetime) -> dict[str, Any]:
    """Return a line of the table of crawls; None for what is not known."""
    began = crawl.get("began")
    counts = crawl.get("counts") or crawl  # earlier versions noted `listed` alone
    ended = status(crawl, moment)
    until = moment if ended == "running" else crawl.get("ended") or crawl.get("alive_at")
    return {
        "crawl": str(crawl.get("_id", "")),
        "when": local(began or crawl.get("ended")),
        "took": _span(began, until),
        "ended": ended,
        **{name: counts.get(name) for name in _COUNTS},
    }


def sentence(crawl: Mapping[str, Any], moment: datetime) -> str:
    """Return the line of the table for those who have no columns: readers of a message."""
    known = {name: value for name, value in row(crawl, moment).items() if value}
    words = [known.get("when"), known.get("ended"), known.get("took") and f"after {known['took']}"]
    counts = ", ".join(f"{known[name]} {name}" for name in _COUNTS if name in known)
    said = " ".join(filter(None, words)) + (f": {counts}" if counts else "")
    return said + (f" ({known['crawl']})" if "crawl" in known else "")


def is_complete(crawl: Mapping[str, Any], moment: datetime) -> bool | None:
    """True if a crawl ended and was complete; None where it still runs, or is a restore."""
    how = status(crawl, moment)
    if how == "running" or crawl.get("reason") == _RESTORED:  # which it says from its begin on
        return None
    return how == "finished" and not crawl.get("exit_code")


def stands(crawl: Mapping[str, Any], moment: datetime) -> bool | None:
    """True if the catalogue stands complete by what this crawl says, None if it says nothing."""
    complete = is_complete(crawl, moment)
    return None if complete and not crawl.get("whole", True) else complete


def _span(began: Any, until: Any) -> str | None:
    """Return a time for people, in its two largest units."""
    if not isinstance(began, datetime) or not isinstance(until, datetime):
        return None
    minutes, seconds = divmod(max(0, int((until - began).total_seconds())), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"
