"""Span: the crawl, or the moment, that a person names as `--crawl` or `--since`."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from scrapy.exceptions import UsageError

from spa5.catalogue.fields import now, to_milliseconds
from spa5.catalogue.text import Trouble, brief, spellable

if TYPE_CHECKING:
    from spa5.mongo.store import Store

_AGO = re.compile("([0-9]{1,5})([dh])")
_UNITS = {"d": "days", "h": "hours"}
_MOST_NAMED = 5  # crawls, where it is not clear which one is meant


def parse_since(text: str) -> datetime:
    """Return the moment that `7d`, `12h`, a date, or a date with a time stand for, in UTC.

    Dates are in the time of this machine, unless they have an offset. `UsageError` for other words.
    """
    try:
        if ago := _AGO.fullmatch(text):
            since = now() - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        else:  # Python 3.10 does not read the "Z"
            since = datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc)
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"--since {brief(text)}: use 7d, 12h, a date as 2026-11-20, or 2026-11-20T18:30"
        ) from None
    if since > now():
        raise UsageError(f"--since {brief(text)} lies in the future: use a moment that has passed")
    return to_milliseconds(since)


async def find_crawl(store: Store, spider_name: str, text: str | None) -> dict[str, Any]:
    """Return the document of the crawl whose id is, or begins with, `text`; None: the last ended.

    `UsageError` where none or several begin so; `Trouble` where there was no crawl yet. A restore
    is found by its id, too, though it is no crawl.
    """
    own = {"spider": spider_name, "collection": store.items.name, "_id": {"$type": "string"}}
    if text is None:
        last = own | {"ended": {"$ne": None}, "reason": {"$ne": "restored"}}
        if found := await _newest(store, last, "ended", 1):
            return found[0]
        where = store.connection.place
        raise Trouble(
            f"no crawl into {where} was recorded to its end yet: type scrapy crawl {spider_name}"
        )
    begin_so = own | {"_id": {"$regex": f"^{re.escape(spellable(text))}"}}
    found = await _newest(store, own | {"_id": spellable(text)}) or await _newest(store, begin_so)
    if len(found) == 1:
        return found[0]
    said = f"several crawls begin with {brief(text)}" if found else f"no crawl {brief(text)}"
    ids = ", ".join(crawl["_id"] for crawl in found or await _newest(store, own))
    raise UsageError(f"--crawl: {said}; there are {ids or 'none yet'}")


async def _newest(
    store: Store, query: dict[str, Any], by: str = "_id", most: int = _MOST_NAMED
) -> list[dict[str, Any]]:
    """Return the crawls that a query finds, the last one first; their ids begin with a date."""
    with store.connection.explained():
        return list(await store.crawls.find(query, sort=[(by, -1)]).to_list(most))
