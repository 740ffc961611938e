"""Plan: how a document is written over what is stored, and what that replaces."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import bson
from bson.raw_bson import RawBSONDocument

from spa5.catalogue.item import DATES
from spa5.mongo.documents import joined

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spa5.catalogue.item import Key
    from spa5.mongo.documents import Document

Outcome = Literal["inserted", "changed", "unchanged"]

_TIMES = [name for name in DATES if name != "delisted_at"]
_MILLISECOND = timedelta(milliseconds=1)


class Moment(NamedTuple):
    """When a batch is written, and by which crawl."""

    time: datetime
    crawl: str  # the `_id` of its document in `crawls`
    is_listed: bool  # False for items that were asked for by hand

    def as_new(self) -> bytes:
        """The bookkeeping of items that are new, encoded."""
        return bson.encode({**dict.fromkeys(_TIMES, self.time), "crawl": self.crawl})

    def after(self, changed_at: Any) -> datetime:
        """When a new version begins: after the stored one, also if a clock is wrong."""
        if not isinstance(changed_at, datetime) or changed_at < self.time:
            return self.time
        try:
            return changed_at + _MILLISECOND
        except OverflowError:  # another program's
            return self.time


class Update(NamedTuple):
    """One update, which inserts an item as new or changes the stored one."""

    key: Key
    change: dict[str, Any]
    upsert: bool
    condition: dict[str, Any]  # what the stored one must be like, besides its key


class Content(NamedTuple):
    """What an update writes into a stored item."""

    fields: bytes  # a BSON document
    absent: Iterable[str]  # names of fields that it takes away
    times: dict[str, Any]  # the bookkeeping that moves, besides `changed_at`


class Change(NamedTuple):
    """An update, and what it replaces."""

    update: Update
    replaced: dict[str, Any] | None  # what goes to the history


class Plan(NamedTuple):
    """What writes a document, and the outcome as which it counts."""

    document: Document
    outcome: Outcome
    change: Change


def plan(document: Document, stored: dict[str, Any] | None, moment: Moment) -> Plan:
    """Plan a write, given what is stored under the document's key.

    What is stored already is not written again: then only its times move. A document that is
    stored under its own `_id` was inserted by a try whose answer was lost.
    """
    if stored is None:
        return Plan(document, "inserted", Change(as_new(document, moment.as_new()), None))
    times = _moved(stored, moment)
    is_own = stored["_id"] == document.oid
    if document.equals(stored):
        moved: dict[str, Any] = {"$set": RawBSONDocument(bson.encode(times))}
        update = Update(document.key, moved, upsert=False, condition={})
        return Plan(document, "inserted" if is_own else "unchanged", Change(update, None))
    names = document.differing(stored)
    content = Content(document.content, document.absent, times)
    change = overwrite(document.key, stored, names, content, moment)
    return Plan(document, "inserted" if is_own else "changed", change)


def overwrite(
    key: Key, stored: dict[str, Any], names: Iterable[str], content: Content, moment: Moment
) -> Change:
    """Plan to write `content` over what is stored, where the fields of these names differ."""
    until = moment.after(stored.get("changed_at"))
    times = bson.encode({**content.times, "changed_at": until})
    change = {"$set": joined(content.fields, times), "$unset": dict.fromkeys(content.absent, "")}
    update = Update(key, change, upsert=False, condition=_as_it_was(stored))
    return Change(update, _replaced(key, stored, names, until, moment.crawl))


def _moved(stored: dict[str, Any], moment: Moment) -> dict[str, Any]:
    """Return the bookkeeping that moves though the content is the same."""
    moved: dict[str, Any] = {"crawled_at": moment.time}
    if moment.is_listed:
        moved |= {"listed_at": moment.time, "crawl": moment.crawl}
    for name in ("changed_at", "first_crawled_at"):
        if not isinstance(stored.get(name), datetime):
            moved[name] = moment.time
    return moved


def as_new(document: Document, bookkeeping: bytes) -> Update:
    """Return the update that inserts this document, and leaves a stored one as it is.

    `bookkeeping` is what `Moment.as_new` returns.
    """
    own_id = bson.encode({"_id": document.oid})
    content = joined(own_id, document.content, document.unread, bookkeeping)
    return Update(document.key, {"$setOnInsert": content}, upsert=True, condition={})


def _as_it_was(stored: dict[str, Any]) -> dict[str, Any]:
    """The condition that nothing has written the item since it was read."""
    return {name: {"$eq": stored.get(name)} for name in ("changed_at", "crawled_at")}


def _replaced(
    key: Key, stored: dict[str, Any], names: Iterable[str], until: datetime, crawl: str
) -> dict[str, Any]:
    """Return the history's entry for the version that ends, see README, "What changed"."""
    entry: dict[str, Any] = {"_id": {"id": key, "until": until}, "id": key}
    entry["fields"] = {name: stored.get(name) for name in names}
    if absent := [name for name in entry["fields"] if name not in stored]:
        entry["absent"] = absent
    begins = stored.get("changed_at")
    entry["from"] = begins if isinstance(begins, datetime) else None
    return entry | {"until": until, "crawl": crawl}
