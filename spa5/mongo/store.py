"""Store: the items in MongoDB, as a crawl reads and writes them."""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from spa5.catalogue.fields import now
from spa5.mongo.collection import Collection
from spa5.mongo.connection import Connection
from spa5.mongo.crawls import Crawls
from spa5.mongo.documents import Document, HeldBack, Outcome, Plan, Rejected, plan
from spa5.mongo.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
    from datetime import datetime
    from typing import TypeAlias

    from bson import ObjectId
    from scrapy.settings import BaseSettings

    from spa5.catalogue.item import Key, Schema

T = TypeVar("T")
Results: TypeAlias = "dict[ObjectId, Outcome | Rejected | HeldBack]"

_MOST_KEYS = 10_000  # in a query
_MOST_TRIES = 5  # to write what something else deletes or inserts at the same moment


class Seen(NamedTuple):
    """What is stored of listed items, and where `listed_at` could not be set; both by key."""

    stored: dict[Key, dict[str, Any]]  # as it was before `listed_at` was set
    refused: dict[Key, str]  # why


class Store:
    """Reads and writes items, and waits while MongoDB is away, at most MONGO_RETRY_SECONDS.

    `admit` judges each update of a stored item, see `Drift`. Settings: those of `Connection`, and
    MONGO_RETRY_SECONDS.
    """

    def __init__(
        self,
        settings: BaseSettings,
        spider_name: str,
        schema: Schema,
        count: Callable[[str, Any], None],  # of stats
        admit: Callable[[Key, Iterable[str]], Awaitable[str | None]] | None = None,
    ):
        self.schema = schema
        self.connection = Connection(settings, spider_name)
        self._retry = Retry(self.connection, settings.getfloat("MONGO_RETRY_SECONDS"), count)
        self._admit = admit
        self._expects_new = True

    async def open(self, *, read_only: bool = False) -> None:
        """Connect and make the index; `StoreError` where a crawl could not store its items.

        With `read_only` nothing is written, not even an index.
        """
        with self.connection.explained():
            await self.connection.open(read_only=read_only)
            self.items = Collection(self.connection, self.schema)
            self.crawls = Crawls(self.connection, self._retry)
            if not read_only:
                await self.items.make_index()
                await self.items.try_write()

    async def close(self) -> None:
        await self.connection.close()

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
        written = await self._persist(self.items.write, updates)
        results: Results = {documents[index].oid: "inserted" for index in written.upserted}
        return results | {documents[index].oid: why for index, why in written.refused.items()}

    async def _update(self, documents: list[Document], moment: datetime) -> Results:
        """Query, compare and write; again where a document was deleted or inserted meanwhile."""
        results: Results = {}
        for _ in range(_MOST_TRIES):
            stored = await self.get([document.key for document in documents])
            plans = [plan(document, stored.get(document.key), moment) for document in documents]
            if not results:
                results |= await self._hold_back(plans, stored)
                plans = [one for one in plans if one.document.oid not in results]
                documents = [one.document for one in plans]
            if not plans:
                return results
            updates = [one.update for one in plans]
            written = await self._persist(self.items.write, updates)
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
            changed = outcome == "changed"
            emptied = document.emptied(stored[document.key]) if changed else []
            if field := await self._admit(document.key, emptied):
                results[document.oid] = HeldBack(f"it would empty {field!r}, as others would")
        return results

    async def _lost(self, documents: list[Document]) -> Results:
        """Reject those that MongoDB does not hold, however often it acknowledges them."""
        held = await self.held(document.key for document in documents)
        lost = Rejected("MongoDB acknowledges it and does not hold it: something deletes items")
        return {document.oid: lost for document in documents if document.key not in held}

    async def see(self, keys: Iterable[Key]) -> Seen:
        """Return what is stored of the listed items, then set their `listed_at` to now."""
        # What SkipStored decides by.
        names = (self.schema.key, *self.schema.listed, "crawled_at", "listed_at")
        seen = Seen({}, {})
        for chunk in _chunks(keys):
            stored = await self._persist(self.items.find, chunk, dict.fromkeys(names, 1))
            seen.stored.update(stored)
            if stored:
                seen.refused.update(await self._persist(self.items.set_listed, [*stored]))
        return seen

    async def get(
        self, keys: Iterable[Key], projection: dict[str, int] | None = None
    ) -> dict[Key, dict[str, Any]]:
        """The stored documents of these items, by key."""
        stored: dict[Key, dict[str, Any]] = {}
        for chunk in _chunks(keys):
            stored |= await self._persist(self.items.find, chunk, projection)
        return stored

    async def held(self, keys: Iterable[Key]) -> set[Key]:
        """Which of these items are stored now. MongoDB reads that from the index alone."""
        return {*await self.get(keys, {self.schema.key: 1, "_id": 0})}

    async def total(self) -> int:
        """How many documents the collection holds."""
        return await self._persist(self.items.total)

    async def _persist(self, work: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Return what `work` returns, though MongoDB is away or the index is gone meanwhile."""
        return await self._retry.run(self.items.on_index, partial(work, *args))


def _chunks(keys: Iterable[Key]) -> Iterator[list[Key]]:
    left = iter(keys)
    while chunk := list(itertools.islice(left, _MOST_KEYS)):
        yield chunk
