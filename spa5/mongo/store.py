"""Store: the collection of items, open for reading and writing."""

from __future__ import annotations

import logging
import secrets
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pymongo.errors import OperationFailure, WriteError

from spa5.catalogue.fields import now
from spa5.mongo import found
from spa5.mongo.connection import Connection
from spa5.mongo.crawls import crawl_id
from spa5.mongo.errors import is_passing, lacks_index, reason
from spa5.mongo.plan import Moment
from spa5.mongo.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from scrapy.settings import BaseSettings

    from spa5.catalogue.item import Key, Schema

logger = logging.getLogger(__name__)

T = TypeVar("T")

MOST_KEYS = 10_000  # in one question to MongoDB
_MOST_TRIES = 5  # to make an index that somebody else drops again and again


class Seen(NamedTuple):
    """The stored documents of listed items, and those that refused `listed_at`; both by key."""

    stored: dict[Key, dict[str, Any]]  # what SkipStored needs, from before `listed_at` was set
    refused: dict[Key, str]  # why


class Store:
    """Reads the items by the unique index on their key; without it MongoDB refuses to answer.

    Settings: those of `Connection`, and MONGO_RETRY_SECONDS, see `Retry`.
    """

    def __init__(
        self,
        settings: BaseSettings,
        spider_name: str,
        schema: Schema,
        count: Callable[[str, Any], None],  # of stats
    ):
        self.schema = schema
        self.connection = Connection(settings, spider_name)
        self.index: str | None = None  # the unique one's name; None: nothing is written
        own = crawl_id(now(), secrets.token_hex())
        self.crawl: Callable[[], str] = lambda: own  # its `_id` in `crawls`, see `Ledger`
        self.is_listing = True  # False where items are asked for by hand
        self._retry = Retry(self.connection, settings.getfloat("MONGO_RETRY_SECONDS"), count)

    async def open(self, *, read_only: bool = False) -> None:
        """Connect and make the index; `StoreError` where a crawl could not store its items.

        With `read_only` nothing is written, not even an index.
        """
        with self.connection.explained():
            await self.connection.open(read_only=read_only)
            self.items = self.connection.collection(self.connection.items_name)
            self.crawls = self.connection.collection("crawls")  # see `Ledger`
            self.history = self.connection.collection(f"{self.connection.items_name}_history")
            if not read_only:
                await self._make_index()
                await self.try_write()

    async def close(self) -> None:
        await self.connection.close()

    async def try_write(self) -> tuple[dict[str, Any], bool]:
        """Write what changes nothing; `StoreError` where a crawl could not write.

        Return the write concern, and True if a replica set took it.
        """
        nothing: dict[str, Any] = {"_id": {"$in": []}}
        with self.connection.explained():
            await self.items.update_many(nothing, {"$set": {self.schema.key: ""}})
            hello = await self.items.database.client.admin.command("hello")
        return self.items.write_concern.document, "setName" in hello

    async def has_unique_index(self) -> bool:
        """Look for the unique index; `StoreError` if it could not be made. This writes nothing."""
        with self.connection.explained():
            if await found.unique_index(self.items, self.schema):
                return True
            await found.refuse_copies(self.items, self.schema)
        return False

    def moment(self) -> Moment:
        return Moment(now(), self.crawl(), self.is_listing)

    async def mark_listed(self, keys: Iterable[Key]) -> Seen:
        """Note that these items are listed now; return what was stored of them before."""
        names = (self.schema.key, *self.schema.listed, "crawled_at", "listed_at", "delisted_at")
        seen = Seen(await self.get(keys, dict.fromkeys(names, 1)), {})
        for chunk in batches(seen.stored if self.is_listing else ()):
            seen.refused.update(await self.persist(self._set_listed, chunk))
        return seen

    async def get(
        self, keys: Iterable[Key], projection: dict[str, int] | None = None
    ) -> dict[Key, dict[str, Any]]:
        """Return the stored documents of these items, by key."""
        stored: dict[Key, dict[str, Any]] = {}
        for chunk in batches(keys):
            stored |= await self.persist(self._find, chunk, projection)
        return stored

    async def held(self, keys: Iterable[Key]) -> set[Key]:
        """Return which of these items are stored now. MongoDB reads that from the index alone."""
        return {*await self.get(keys, {self.schema.key: 1, "_id": 0})}

    async def total(self) -> int:
        """Count the documents of the collection."""
        return await self.persist(self.items.count_documents, {})

    async def persist(self, work: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Return what `work` returns, though MongoDB is away or the index is gone for a while.

        `StoreError` where waiting does not help.
        """
        with self.connection.explained():
            return await self._retry.run(partial(self._on_index, partial(work, *args)))

    async def _on_index(self, work: Callable[[], Awaitable[T]]) -> T:
        for _ in range(_MOST_TRIES):
            try:
                return await work()
            except OperationFailure as error:
                if not lacks_index(error.code, str(error)):
                    raise
            where, key = self.connection.place, self.schema.key
            logger.warning("%s has lost its unique index on %s: it is made again", where, key)
            await self._make_index()
        return await work()

    async def _make_index(self) -> None:
        index = await found.unique_index(self.items, self.schema)
        self.index = index or await found.make_unique_index(self.items, self.schema)

    async def _find(
        self, keys: list[Key], projection: dict[str, int] | None
    ) -> dict[Key, dict[str, Any]]:
        key, kind = self.schema.key, self.schema.kind.type
        query = {key: {"$in": keys}}
        items = self.items.find(query, projection, hint=self.index, batch_size=len(keys) + 1)
        return {item[key]: item async for item in items if isinstance(item[key], kind)}

    async def _set_listed(self, keys: list[Key]) -> dict[Key, str]:
        """Note that these stored items are listed; return why, by key, where MongoDB refuses it."""
        query = {self.schema.key: {"$in": keys}}
        listed = {"listed_at": now(), "crawl": self.crawl()}
        change = {"$set": listed, "$unset": {"delisted_at": ""}}
        try:
            await self.items.update_many(query, change, hint=self.index)
        except WriteError as error:  # it ends at the first document that is refused
            if is_passing(error) or lacks_index(error.code, str(error)):
                raise
            if len(keys) == 1:
                return {keys[0]: reason(error)}
            half = len(keys) // 2
            return await self._set_listed(keys[:half]) | await self._set_listed(keys[half:])
        return {}


def batches(entries: Iterable[T], size: int = 0) -> Iterator[list[T]]:
    """Yield the entries in lists of at most `size`; 0: as many as one question takes."""
    left = iter(entries)
    while batch := list(islice(left, size or MOST_KEYS)):
        yield batch
