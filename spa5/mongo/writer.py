"""Writer: compares a batch of items with what is stored, and writes it in one bulk write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pymongo import UpdateOne

from spa5.mongo.bulk import write_bulk
from spa5.mongo.documents import HeldBack, Rejected
from spa5.mongo.plan import as_new, plan

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from typing import TypeAlias

    from bson import ObjectId

    from spa5.catalogue.item import Key
    from spa5.mongo.bulk import Written
    from spa5.mongo.documents import Document
    from spa5.mongo.history import History
    from spa5.mongo.plan import Outcome, Plan, Update
    from spa5.mongo.store import Store

    Results: TypeAlias = dict[ObjectId, Outcome | Rejected | HeldBack]

_MOST_TRIES = 5  # to write what something else writes, deletes or inserts at the same moment


class Writer:
    """Stores batches of items, and what they replace in the history. A bad one fails alone.

    `admit` judges each update of a stored item by the fields that it would empty, see `Drift`.
    """

    def __init__(
        self,
        store: Store,
        history: History | None = None,
        admit: Callable[[Key, Iterable[str]], Awaitable[str | None]] | None = None,
    ):
        self._store = store
        self._history = history
        self._admit = admit
        self._expects_new = True

    async def write(self, documents: list[Document]) -> Sequence[Outcome | Exception]:
        """Store a batch; return for each, in order, what it was or why it is `Rejected`.

        While all items are new, one round trip inserts them. The others are compared with what
        is stored, in a query before the write. Of two with one key the first goes first.
        """
        results: Results = {}
        if self._expects_new:
            results = await self._insert(documents)
        while left := {one.key: one for one in reversed(documents) if one.oid not in results}:
            results |= await self._update([*reversed(left.values())])
        self._expects_new = all(results[document.oid] == "inserted" for document in documents)
        return [results[document.oid] for document in documents]

    async def _insert(self, documents: list[Document]) -> Results:
        """Insert the new ones; return nothing for those that are stored already."""
        bookkeeping = self._store.moment().as_new()
        updates = [as_new(document, bookkeeping) for document in documents]
        written = await self._store.persist(self._write, updates)
        results: Results = {documents[index].oid: "inserted" for index in written.upserted}
        return results | {documents[index].oid: why for index, why in written.refused.items()}

    async def _update(self, documents: list[Document]) -> Results:
        """Query, compare and write; again where something else wrote a document meanwhile."""
        results: Results = {}
        for _ in range(_MOST_TRIES):
            stored = await self._store.get([document.key for document in documents])
            moment = self._store.moment()  # another one for each try, see `History`
            plans = [plan(document, stored.get(document.key), moment) for document in documents]
            if not results:
                results |= await self._hold_back(plans, stored)
            results |= await self._keep_replaced(_left(plans, results))
            plans = _left(plans, results)
            documents = [one.document for one in plans]
            if not plans:
                return results
            written = await self._store.persist(self._write, [one.update for one in plans])
            # The query tells the outcomes: a write that was repeated may find its own work.
            for index, (document, outcome, *_) in enumerate(plans):
                if outcome != "unchanged" or results.get(document.oid) != "changed":
                    results[document.oid] = written.refused.get(index, outcome)
            if await self._has_met_all(plans, written):
                return results
        return results | await self._lost(documents)

    async def _hold_back(self, plans: list[Plan], stored: dict[Key, dict[str, Any]]) -> Results:
        """Ask `admit` about each document that is stored already; return those held back."""
        results: Results = {}
        for document, outcome, *_ in plans:
            if self._admit is None or outcome == "inserted":
                continue
            emptied = document.emptied(stored[document.key]) if outcome == "changed" else []
            if field := await self._admit(document.key, emptied):
                results[document.oid] = HeldBack(f"it would empty {field!r}, as others would")
        return results

    async def _keep_replaced(self, plans: list[Plan]) -> Results:
        """Write into the history what these replace; return those whose old version it refuses."""
        entries = [one.replaced for one in plans if one.replaced]
        if self._history is None or not entries:
            return {}
        refused = await self._history.write(entries)
        return {
            one.document.oid: Rejected(f"the history can't hold its old version: {why}")
            for one in plans
            if (why := refused.get(one.document.key))
        }

    async def _has_met_all(self, plans: list[Plan], written: Written) -> bool:
        """True if each update has met its document; what did not happen leaves the history."""
        met_all = written.met_all([one.update.upsert for one in plans])
        if self._history:
            done = [one for index, one in enumerate(plans) if index not in written.refused]
            doubtful = [one for one in plans if not met_all or one not in done]
            await self._history.settle(
                [one.replaced for one in doubtful if one.replaced],
                [one.document.key for one in done] if met_all else [],
            )
        return met_all

    async def _lost(self, documents: list[Document]) -> Results:
        """Reject those that MongoDB does not hold, however often it acknowledges them."""
        stored = await self._store.get(document.key for document in documents)
        lost = Rejected("MongoDB acknowledges it and does not hold it: something else writes items")
        return {
            document.oid: lost
            for document in documents
            if document.key not in stored or not document.equals(stored[document.key])
        }

    async def _write(self, updates: Sequence[Update]) -> Written:
        """Write, each update on the unique index: without it MongoDB refuses them all."""
        key, index = self._store.schema.key, self._store.index
        operations = [
            UpdateOne({key: one, **condition}, change, upsert, hint=index)
            for one, change, upsert, condition in updates
        ]
        return await write_bulk(self._store.items, operations, key)


def _left(plans: list[Plan], results: Results) -> list[Plan]:
    """Return those plans that nothing speaks against."""
    return [one for one in plans if not isinstance(results.get(one.document.oid), Exception)]
