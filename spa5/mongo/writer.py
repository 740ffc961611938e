"""Writer: compares a batch of items with what is stored, and writes it in one bulk write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pymongo import UpdateOne
from pymongo.errors import AutoReconnect, BulkWriteError, OperationFailure

from spa5.catalogue.fields import now
from spa5.catalogue.text import one_line
from spa5.mongo.documents import HeldBack, Rejected, plan
from spa5.mongo.errors import PASSING, lacks_index

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from datetime import datetime
    from typing import TypeAlias

    from bson import ObjectId

    from spa5.catalogue.item import Key
    from spa5.mongo.documents import Document, Outcome, Plan, Update
    from spa5.mongo.store import Store

    Results: TypeAlias = dict[ObjectId, Outcome | Rejected | HeldBack]

_DUPLICATE_KEY = 11000
_TOO_DEEP = 15
_MOST_TRIES = 5  # to write what something else deletes or inserts at the same moment


class Written(NamedTuple):
    """The result of a bulk write, by the position of its updates."""

    upserted: set[int]
    matched: int
    refused: dict[int, Rejected]

    def met_all(self, updates: Sequence[Update]) -> bool:
        """True if each update has met the document that it was meant for, or was refused."""
        upserts = {index for index, update in enumerate(updates) if update.upsert}
        done = self.matched + len(self.upserted) + len(self.refused)
        return done == len(updates) and upserts <= self.upserted | self.refused.keys()


class Writer:
    """Stores batches of items. A bad one fails alone.

    `admit` judges each update of a stored item by the fields that it would empty, see `Drift`.
    """

    def __init__(
        self,
        store: Store,
        admit: Callable[[Key, Iterable[str]], Awaitable[str | None]] | None = None,
    ):
        self._store = store
        self._admit = admit
        self._expects_new = True

    async def write(self, documents: list[Document]) -> Sequence[Outcome | Exception]:
        """Store a batch; return for each, in order, what it was or why it is `Rejected`.

        While all items are new, one round trip inserts them. The others are compared with what
        is stored, in a query before the write. Of two with one key the first goes first.
        """
        moment = now()
        results: Results = {}
        if self._expects_new:
            results = await self._insert(documents, moment)
        while left := {one.key: one for one in reversed(documents) if one.oid not in results}:
            results |= await self._update([*reversed(left.values())], moment)
        self._expects_new = all(results[document.oid] == "inserted" for document in documents)
        return [results[document.oid] for document in documents]

    async def _insert(self, documents: list[Document], moment: datetime) -> Results:
        """Insert the new ones; return nothing for those that are stored already."""
        updates = [document.as_new(moment) for document in documents]
        written = await self._store.persist(self._bulk_write, updates)
        results: Results = {documents[index].oid: "inserted" for index in written.upserted}
        return results | {documents[index].oid: why for index, why in written.refused.items()}

    async def _update(self, documents: list[Document], moment: datetime) -> Results:
        """Query, compare and write; again where a document was deleted or inserted meanwhile."""
        results: Results = {}
        for _ in range(_MOST_TRIES):
            stored = await self._store.get([document.key for document in documents])
            plans = [plan(document, stored.get(document.key), moment) for document in documents]
            if not results:
                results |= await self._hold_back(plans, stored)
                plans = [one for one in plans if one.document.oid not in results]
                documents = [one.document for one in plans]
            if not plans:
                return results
            updates = [one.update for one in plans]
            written = await self._store.persist(self._bulk_write, updates)
            # The query tells the outcomes: a write that was repeated may find its own work.
            for index, (document, outcome, _) in enumerate(plans):
                if outcome != "unchanged" or results.get(document.oid) != "changed":
                    results[document.oid] = written.refused.get(index, outcome)
            if written.met_all(updates):
                return results
        return results | await self._lost(documents)

    async def _hold_back(self, plans: list[Plan], stored: dict[Key, dict[str, Any]]) -> Results:
        """Ask `admit` about each document that is stored already; return those held back."""
        results: Results = {}
        for document, outcome, _ in plans:
            if self._admit is None or outcome == "inserted":
                continue
            emptied = document.emptied(stored[document.key]) if outcome == "changed" else []
            if field := await self._admit(document.key, emptied):
                results[document.oid] = HeldBack(f"it would empty {field!r}, as others would")
        return results

    async def _lost(self, documents: list[Document]) -> Results:
        """Reject those that MongoDB does not hold, however often it acknowledges them."""
        held = await self._store.held(document.key for document in documents)
        lost = Rejected("MongoDB acknowledges it and does not hold it: something deletes items")
        return {document.oid: lost for document in documents if document.key not in held}

    async def _bulk_write(self, updates: Sequence[Update]) -> Written:
        """Write, each update on the unique index: without it MongoDB refuses them all."""
        key, index = self._store.schema.key, self._store.index
        operations = [
            UpdateOne({key: one}, change, upsert, hint=index) for one, change, upsert in updates
        ]
        try:
            result = await self._store.items.bulk_write(operations, ordered=False)
        except BulkWriteError as error:
            return _written(error.details, key)
        except OperationFailure as error:
            if error.code != _TOO_DEEP:
                raise
            return await self._write_one_by_one(updates)
        return _written(result.bulk_api_result, key)

    async def _write_one_by_one(self, updates: Sequence[Update]) -> Written:
        """Find the one item for which MongoDB refused the message with all of them."""
        if len(updates) == 1:
            return Written(set(), 0, {0: Rejected("it is nested too deeply for MongoDB")})
        each = [await self._bulk_write([update]) for update in updates]
        upserted = {index for index, one in enumerate(each) if one.upserted}
        refused = {index: one.refused[0] for index, one in enumerate(each) if one.refused}
        return Written(upserted, sum(one.matched for one in each), refused)


def _written(details: Mapping[str, Any], key: str) -> Written:
    """Return what a bulk write did; raise an error that concerns all of it.

    Two crawls that insert a new item at the same moment may collide on its key. That is no
    refusal: the update of the slower one has not met its document.
    """
    errors = details["writeErrors"]
    for one in errors:
        if lacks_index(one["code"], one["errmsg"]):
            raise OperationFailure(one["errmsg"], one["code"])
    passing = [one for one in errors if one["code"] in PASSING]
    for one in (*details["writeConcernErrors"], *passing):
        raise AutoReconnect(one["errmsg"])
    refused = {
        one["index"]: Rejected(one_line(one.get("errmsg")))
        for one in errors
        if one["code"] != _DUPLICATE_KEY or one.get("keyPattern") not in ({key: 1}, {"_id": 1})
    }
    upserted = {one["index"] for one in details["upserted"]}
    return Written(upserted, details["nMatched"], refused)
