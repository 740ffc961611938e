"""History: the values that changes replaced."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import bson
from bson.raw_bson import RawBSONDocument
from pymongo import IndexModel, ReplaceOne
from pymongo.errors import OperationFailure

from spa5.catalogue.fields import now
from spa5.mongo.bulk import write_bulk
from spa5.mongo.documents import MOST_BYTES, Rejected
from spa5.mongo.status import status
from spa5.mongo.store import batches

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from scrapy.settings import BaseSettings
    from typing_extensions import Self

    from spa5.catalogue.item import Key
    from spa5.mongo.store import Store

_OTHER_OPTIONS = 85  # of an index that exists
_DAY_SECONDS = 86_400
_MOST_SECONDS = 2**31 - 1  # that MongoDB takes


class History:
    """Keeps what changes of items replace, in the collection `NAME_history`.

    An entry is written before its item: whatever is killed between the two, nothing is lost. The
    item is then written on the condition that nothing has written it since it was read. An entry
    whose write did not happen leads to no version. Its writer removes it. What killed crawls left
    is found when the next one begins, which fetches those items again, and removes their entries
    once it has written the items: from then on a writer that only slept has to read them anew, and
    has another `until`.

    `keep_days`: older entries go; None: they stay.
    """

    def __init__(self, store: Store, keep_days: float | None):
        self._store = store
        self._keep_days = keep_days
        self.unsettled: dict[
            Key, list[Mapping[str, Any]]
        ] = {}  # the entries that killed crawls left

    @classmethod
    def from_settings(cls, store: Store, settings: BaseSettings) -> Self:
        days = settings["HISTORY_KEEP_DAYS"]
        return cls(store, None if days is None else float(days))

    async def open(self) -> None:
        """Make the indexes, and look for what killed crawls left."""
        await self._store.persist(self._make_indexes)
        await self._store.persist(self._find_unsettled)

    async def write(self, entries: Sequence[Mapping[str, Any]]) -> dict[Key, Rejected]:
        """Keep these entries; return those that can't be kept, by key."""
        encoded = [RawBSONDocument(bson.encode(entry)) for entry in entries]
        refused: dict[Key, Rejected] = {}
        operations: list[ReplaceOne[Any]] = []
        keys: list[Key] = []
        for entry, one in zip(entries, encoded, strict=True):
            if len(one.raw) > MOST_BYTES:
                refused[entry["id"]] = Rejected("it has more than MongoDB's 16 MB")
            else:
                operations.append(ReplaceOne({"_id": entry["_id"]}, one, upsert=True))
                keys.append(entry["id"])
        if operations:
            history = self._store.history
            written = await self._store.persist(write_bulk, history, operations, "_id")
            refused |= {keys[index]: why for index, why in written.refused.items()}
        return refused

    async def settle(self, doubtful: Iterable[Mapping[str, Any]], written: Iterable[Key]) -> None:
        """Remove those entries that lead to no version, and what was left of `written` items."""
        entries: list[Mapping[str, Any]] = [*doubtful]
        settled = self.unsettled.keys() & written if self.unsettled else ()
        for key in settled:
            entries += self.unsettled[key]
        if not entries:
            return
        unreal = [one["_id"] for one in await self.unreal({one["id"] for one in entries})]
        mine = [one["_id"] for one in entries if one["_id"] in unreal]
        if mine:
            history = self._store.history
            await self._store.persist(lambda: history.delete_many({"_id": {"$in": mine}}))
        for key in settled:
            del self.unsettled[key]

    async def unreal(self, keys: Iterable[Key]) -> list[Mapping[str, Any]]:
        """Return the entries of these items that lead to no version, without their values."""
        keys = [*keys]
        names = (self._store.schema.key, "changed_at", "first_crawled_at")
        stored = await self._store.get(keys, dict.fromkeys(names, 1))
        entries = await entries_of(self._store, keys, without={"fields": 0, "absent": 0})
        left: list[Mapping[str, Any]] = []
        for key in stored:
            real = versions(stored[key], entries[key])
            begins = stored[key].get("first_crawled_at")
            later = (one for one in entries[key] if not _is_before(one, begins))
            left += [one for one in later if one not in real]
        return left

    async def _make_indexes(self) -> None:
        indexes = [IndexModel("id"), IndexModel("crawl")]
        if self._keep_days is None:
            indexes.append(IndexModel("until"))
        else:
            seconds = min(int(self._keep_days * _DAY_SECONDS), _MOST_SECONDS)
            indexes.append(IndexModel("until", expireAfterSeconds=seconds))
        try:
            await self._store.history.create_indexes(indexes)
        except OperationFailure as error:
            if error.code != _OTHER_OPTIONS:
                raise
            await self._store.history.drop_index("until_1")
            await self._store.history.create_indexes(indexes)

    async def _find_unsettled(self) -> None:
        crawls = self._store.crawls
        query = {"collection": self._store.items.name, "settled": {"$ne": True}}
        going = {one["_id"]: one async for one in crawls.find(query)}
        if not going:
            return
        self.unsettled = {}
        for entry in await self._left_by([*going]):
            self.unsettled.setdefault(entry["id"], []).append(entry)
        left = {one["crawl"] for entries in self.unsettled.values() for one in entries}
        moment = now()
        over = (key for key, one in going.items() if status(one, moment) != "running")
        settled = {"_id": {"$in": [key for key in over if key not in left]}}
        await crawls.update_many(settled, {"$set": {"settled": True}})

    async def _left_by(self, crawls: list[Any]) -> list[Mapping[str, Any]]:
        """Return the entries of these crawls that lead to no version."""
        schema, items = self._store.schema, self._store.items
        lookup = {"from": items.name, "localField": "id", "foreignField": schema.key, "as": "item"}
        leads = {"$ne": ["$until", {"$first": "$item.changed_at"}]}
        stages: list[dict[str, Any]] = [
            {"$match": {"crawl": {"$in": crawls}}},
            {"$project": {"id": 1, "until": 1}},
            {"$lookup": lookup},
            {"$match": {"$expr": leads}},
            {"$group": {"_id": "$id"}},
        ]
        found = [one["_id"] async for one in self._store.history.aggregate(stages)]
        left: list[Mapping[str, Any]] = []
        for keys in batches(found):
            left += await self.unreal(keys)
        return [one for one in left if one["crawl"] in crawls]


def history_of(store: Store, settings: BaseSettings) -> History | None:
    """The history of a store; None where HISTORY_ENABLED is off."""
    if not settings.getbool("HISTORY_ENABLED"):
        return None
    return History.from_settings(store, settings)


async def entries_of(
    store: Store,
    keys: Iterable[Key],
    query: Mapping[str, Any] | None = None,
    *,
    without: dict[str, int] | None = None,
) -> dict[Key, list[dict[str, Any]]]:
    """Return the entries of these items, by key; of all that are there, or those of a query."""
    entries: dict[Key, list[dict[str, Any]]] = {key: [] for key in keys}
    asked = {"id": {"$in": [*entries]}, **(query or {})}
    for entry in await store.persist(lambda: store.history.find(asked, without).to_list(None)):
        entries[entry["id"]].append(entry)
    return entries


def _is_before(entry: Mapping[str, Any], begins: Any) -> bool:
    """True if an entry is of an item that somebody deleted before this one came."""
    return isinstance(begins, datetime) and entry["from"] is not None and entry["from"] < begins


def versions(
    item: Mapping[str, Any], entries: Iterable[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Return a stored item's replaced versions, newest first, given all its entries.

    An entry that does not lead from a version to the next one is left out, see `History`. So is
    what the history has of an item under the same key that somebody deleted. Where entries are
    missing, for another program wrote `changed_at`, those before them are still found.
    """
    real: list[Mapping[str, Any]] = []
    first, begins = item.get("first_crawled_at"), item.get("changed_at")
    for entry in sorted(entries, key=lambda one: one["until"], reverse=True):
        if not isinstance(begins, datetime) or entry["until"] > begins:
            continue
        if entry["until"] == begins or not _is_before(entry, first):
            real.append(entry)
            begins = entry["from"]
    return real
