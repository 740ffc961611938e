"""Restore: puts back what a crawl replaced, or what all crawls since a moment did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import bson

from spa5.mongo.documents import is_field_name
from spa5.mongo.history import entries_of, versions
from spa5.mongo.plan import Content, overwrite
from spa5.mongo.store import batches
from spa5.mongo.writer import Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from datetime import datetime

    from spa5.catalogue.item import Key
    from spa5.mongo.history import History
    from spa5.mongo.note import Note
    from spa5.mongo.plan import Change, Moment
    from spa5.mongo.store import Store

_AT_ONCE = 1_000  # items
_MOST_TRIES = 5  # to write what something else writes at the same moment


class Selection(NamedTuple):
    """The changes to undo: those of a crawl, or those since a moment."""

    crawl: str | None
    since: datetime | None
    names: frozenset[str]  # of fields; empty: all
    keys: Sequence[Key] | None  # of items; None: all

    def queries(self) -> list[dict[str, Any]]:
        """Return the queries that find their entries in the history."""
        found: dict[str, Any] = {"until": {"$gte": self.since}}
        if self.crawl is not None:
            found = {"crawl": self.crawl}
        if self.names:
            found["$or"] = [{f"fields.{name}": {"$exists": True}} for name in sorted(self.names)]
        if self.keys is None:
            return [found]
        return [found | {"id": {"$in": keys}} for keys in batches(self.keys)]

    def takes(self, entry: Mapping[str, Any]) -> bool:
        """True if this entry of the history is of one of these changes."""
        if self.crawl is not None:
            return bool(entry.get("crawl") == self.crawl)
        return bool(entry["until"] >= self.since)

    def wants(self, name: str) -> bool:
        return name in self.names if self.names else is_field_name(name)


class Back(NamedTuple):
    """What there is to put back in an item."""

    key: Key
    item: Mapping[str, Any] | None  # as it was read; None: it is not stored any more
    fields: dict[str, dict[str, Any]]  # `now` and `then` by name; absent ones are left out
    left: list[str]  # names of the fields that something else has changed since
    problem: str = ""  # why it could not be put back

    def change(self, moment: Moment) -> Change:
        assert self.item is not None
        values = {name: one["then"] for name, one in self.fields.items() if "then" in one}
        content = Content(bson.encode(values), self.fields.keys() - values.keys(), {})
        return overwrite(self.key, dict(self.item), self.fields, content, moment)


def back(
    key: Key, item: Mapping[str, Any], entries: list[Mapping[str, Any]], selection: Selection
) -> Back:
    """Compare an item with what it was before the selected changes.

    `entries` are its real ones, the newest first. The value that a field had before the first
    selected one is to come back, unless one that is not selected has changed the field since.
    """
    found = Back(key, item, {}, [])
    for name in {name: None for entry in entries for name in entry["fields"]}:
        changed = [entry for entry in entries if name in entry["fields"]]
        selected = [index for index, entry in enumerate(changed) if selection.takes(entry)]
        if not selected or not selection.wants(name):
            continue
        before = changed[selected[-1]]
        then = {} if name in before.get("absent", ()) else {"then": before["fields"][name]}
        now = {"now": item[name]} if name in item else {}
        if bson.encode({"": [*now.values()]}) == bson.encode({"": [*then.values()]}):
            continue
        if len(selected) <= selected[-1]:  # others are among the newer ones
            found.left.append(name)
        else:
            found.fields[name] = now | then
    return found


class Restore:
    """Finds what selected changes replaced, and puts it back by changes that can be undone.

    Items are written under the guarantees of a crawl, see `History`. It may be interrupted: the
    same one, begun again, does what is left. Without a `history` nothing is written.
    """

    def __init__(
        self, store: Store, selection: Selection, note: Note, history: History | None = None
    ):
        self._store = store
        self.selection = selection
        self._history = history
        self._note = note
        self._writer = Writer(store, history)

    async def run(self) -> AsyncIterator[Back]:
        """Yield what there is to put back, item by item, once it is put back."""
        for keys in await self._keys():
            found = {one.key: one for one in await self._read(keys)}
            todo = [one for one in found.values() if one.fields]
            if todo and self._history:
                found |= await self._put_back(todo, keys, self._history)
            for one in found.values():
                if one.item is None or one.fields or one.left:
                    yield one
        await self._note.end()

    async def has_history(self) -> bool:
        """True if any change of any item was ever kept, and not removed for its age."""
        return bool(await self._store.persist(self._store.history.find_one, {}, {"_id": 1}))

    async def _put_back(
        self, todo: list[Back], keys: Mapping[Key, datetime], history: History
    ) -> dict[Key, Back]:
        if not self._note.has_begun:
            await history.open()
            await self._note.begin()
        done = await self._write(todo, keys)
        refused = sum(1 for one in done.values() if one.problem)
        changed = sum(1 for one in done.values() if one.fields) - refused
        await self._note.count(changed, refused)
        return done

    async def _write(self, todo: list[Back], keys: Mapping[Key, datetime]) -> dict[Key, Back]:
        """Write these; again where something else wrote an item meanwhile."""
        done: dict[Key, Back] = {}
        for _ in range(_MOST_TRIES):
            moment = self._store.moment()  # another one for each try, see `History`
            refused, met_all = await self._writer.put([one.change(moment) for one in todo])
            done |= {one.key: one._replace(problem=str(refused.get(one.key, ""))) for one in todo}
            if met_all:
                return done
            left = {one.key: keys[one.key] for one in todo if one.key not in refused}
            again = await self._read(left, unless_by=self._store.crawl())
            done |= {one.key: one for one in again}
            if not (todo := [one for one in again if one.fields]):
                return done
        lost = "something else writes it at the same time, over and over"
        return done | {one.key: one._replace(problem=lost) for one in todo}

    async def _read(self, keys: Mapping[Key, datetime], unless_by: str | None = None) -> list[Back]:
        """Compare these items with what they were, except those that this crawl has written."""
        items = await self._store.get(keys)
        # An entry is written before its item: what this finds has all its entries by now.
        later = {"until": {"$gte": min(keys.values())}}
        entries = await entries_of(self._store, keys, later)
        found = []
        for key, own in entries.items():
            if (item := items.get(key)) is None:
                found.append(Back(key, None, {}, []))
                continue
            real = versions(item, own)
            if unless_by is None or all(entry.get("crawl") != unless_by for entry in real):
                found.append(back(key, item, real, self.selection))
        return found

    async def _keys(self) -> list[dict[Key, datetime]]:
        """Return the keys of the changed items, some in each dict, with their first `until`."""
        found: list[tuple[Key, datetime]] = []
        for some in self.selection.queries():
            found += await self._store.persist(self._changed, some)
        return [dict(some) for some in batches(found, _AT_ONCE)]

    async def _changed(self, query: dict[str, Any]) -> list[tuple[Key, datetime]]:
        stages: list[dict[str, Any]] = [
            {"$match": query},
            {"$group": {"_id": "$id", "first": {"$min": "$until"}}},
            {"$sort": {"_id": 1}},
        ]
        found = self._store.history.aggregate(stages, allowDiskUse=True)
        kind = self._store.schema.kind.type
        return [(one["_id"], one["first"]) async for one in found if isinstance(one["_id"], kind)]
