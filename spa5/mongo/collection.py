"""Collection: the items in MongoDB, and the bulk write that all items go through."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pymongo import UpdateOne
from pymongo.errors import AutoReconnect, BulkWriteError, OperationFailure, WriteError

from spa5.catalogue.fields import now
from spa5.catalogue.text import one_line
from spa5.mongo import found
from spa5.mongo.documents import Rejected, Update
from spa5.mongo.errors import PASSING, is_passing, lacks_index

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from spa5.catalogue.item import Key, Schema
    from spa5.mongo.connection import Connection

logger = logging.getLogger(__name__)

T = TypeVar("T")

_DUPLICATE_KEY = 11000
_TOO_DEEP = 15
_MOST_TRIES = 5  # to make an index that somebody else drops again and again


class Written(NamedTuple):
    """What a bulk write did, by the position of its updates."""

    upserted: set[int]
    matched: int
    refused: dict[int, Rejected]

    def met_all(self, updates: Sequence[Update]) -> bool:
        """True if each update has met the document that it was meant for, or was refused."""
        upserts = {index for index, update in enumerate(updates) if update.upsert}
        done = self.matched + len(self.upserted) + len(self.refused)
        return done == len(updates) and upserts <= self.upserted | self.refused.keys()


class Collection:
    """The items, read and written by the unique index on their key alone.

    Without that index MongoDB refuses each query and each write. Nothing is tried twice here, and
    the driver's errors pass.
    """

    def __init__(self, connection: Connection, schema: Schema):
        self._connection = connection
        self._schema = schema
        self._items = connection.collection(connection.items_name)
        self._index: str | None = None  # the unique one's name; None: nothing is written

    async def make_index(self) -> None:
        """Find or make the unique index; `StoreError` where something is in its way."""
        self._index = await found.unique_index(self._items, self._schema)
        if self._index is None:
            self._index = await found.make_unique_index(self._items, self._schema)

    async def has_index(self) -> bool:
        """True if the unique index is there; `StoreError` where it could not be made."""
        with self._connection.explained():
            if await found.unique_index(self._items, self._schema):
                return True
            await found.refuse_copies(self._items, self._schema)
        return False

    async def on_index(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return what `work` returns; where it finds the index gone, that is made again first."""
        for _ in range(_MOST_TRIES):
            try:
                return await work()
            except OperationFailure as error:
                if not lacks_index(error.code, str(error)):
                    raise
            where, key = self._connection.place, self._schema.key
            logger.warning("%s has lost its unique index on %s: it is made again", where, key)
            await self.make_index()
        return await work()

    async def try_write(self) -> dict[str, Any]:
        """Write what changes nothing, and return the write concern.

        `StoreError` where a crawl's writes would fail.
        """
        nothing: dict[str, Any] = {"_id": {"$in": []}}
        with self._connection.explained():
            await self._items.update_many(nothing, {"$set": {self._schema.key: ""}})
        return self._items.write_concern.document

    async def total(self) -> int:
        return await self._items.count_documents({})

    async def find(
        self, keys: list[Key], projection: dict[str, int] | None = None
    ) -> dict[Key, dict[str, Any]]:
        """The stored documents of these items, by key."""
        key, kind = self._schema.key, self._schema.kind.type
        query = {key: {"$in": keys}}
        items = self._items.find(query, projection, hint=self._index, batch_size=len(keys) + 1)
        return {item[key]: item async for item in items if isinstance(item[key], kind)}

    async def set_listed(self, keys: list[Key]) -> dict[Key, str]:
        """Note that these stored items are listed; return why, by key, where MongoDB refuses it."""
        change = {"$set": {"listed_at": now()}}
        query = {self._schema.key: {"$in": keys}}
        try:
            await self._items.update_many(query, change, hint=self._index)
        except WriteError as error:  # it ends at the first document that is refused
            if is_passing(error) or lacks_index(error.code, str(error)):
                raise
            written = await self.write([Update(one, change, upsert=False) for one in keys])
            return {keys[index]: str(refusal) for index, refusal in written.refused.items()}
        return {}

    async def write(self, updates: Sequence[Update]) -> Written:
        """Write all of them in one bulk write; a bad one is refused alone."""
        key = self._schema.key
        operations = [
            UpdateOne({key: one}, change, upsert, hint=self._index)
            for one, change, upsert in updates
        ]
        try:
            result = await self._items.bulk_write(operations, ordered=False)
        except BulkWriteError as error:
            return _written(error.details, key)
        except OperationFailure as error:
            if error.code != _TOO_DEEP:
                raise
            return await self._write_one_by_one(updates)
        return _written(result.bulk_api_result, key)

    async def _write_one_by_one(self, updates: Sequence[Update]) -> Written:
        """One item made MongoDB refuse the message with all of them: find it."""
        if len(updates) == 1:
            return Written(set(), 0, {0: Rejected("it is nested too deeply for MongoDB")})
        upserted: set[int] = set()
        refused: dict[int, Rejected] = {}
        matched = 0
        for index, update in enumerate(updates):
            one = await self.write([update])
            upserted.update(index for _ in one.upserted)
            refused.update((index, why) for why in one.refused.values())
            matched += one.matched
        return Written(upserted, matched, refused)


def _written(details: Mapping[str, Any], key: str) -> Written:
    """What a bulk write did; raises what concerns it as a whole.

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
