"""Bulk writes, in which what MongoDB refuses fails alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pymongo.errors import AutoReconnect, BulkWriteError, OperationFailure

from spa5.catalogue.text import one_line
from spa5.mongo.documents import Rejected
from spa5.mongo.errors import PASSING, lacks_index

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    from pymongo import ReplaceOne, UpdateOne

    from spa5.mongo.connection import Items

    Operation: TypeAlias = UpdateOne | ReplaceOne[dict[str, Any]]

_DUPLICATE_KEY = 11000
_TOO_DEEP = 15


class Written(NamedTuple):
    """The result of a bulk write, by the position of its operations."""

    upserted: set[int]
    matched: int
    refused: dict[int, Rejected]

    def met_all(self, upserts: Sequence[bool]) -> bool:
        """True if each operation has met the document that it was meant for, or was refused.

        `upserts`: which of them insert, and must not have met a document.
        """
        done = self.matched + len(self.upserted) + len(self.refused)
        inserts = {index for index, inserts in enumerate(upserts) if inserts}
        return done == len(upserts) and inserts <= self.upserted | self.refused.keys()


async def write_bulk(items: Items, operations: Sequence[Operation], key: str) -> Written:
    """Write all at once, in any order; raise an error that concerns all of them.

    Two crawls that insert a new item at the same moment may collide on its key. That is no
    refusal: the operation of the slower one has not met its document.
    """
    try:
        result = await items.bulk_write(operations, ordered=False)
    except BulkWriteError as error:
        return _written(error.details, key)
    except OperationFailure as error:
        if error.code != _TOO_DEEP:
            raise
        return await _write_one_by_one(items, operations, key)
    return _written(result.bulk_api_result, key)


async def _write_one_by_one(items: Items, operations: Sequence[Operation], key: str) -> Written:
    """Find the one for which MongoDB refused the message with all of them."""
    if len(operations) == 1:
        return Written(set(), 0, {0: Rejected("it is nested too deeply for MongoDB")})
    each = [await write_bulk(items, [one], key) for one in operations]
    upserted = {index for index, one in enumerate(each) if one.upserted}
    refused = {index: one.refused[0] for index, one in enumerate(each) if one.refused}
    return Written(upserted, sum(one.matched for one in each), refused)


def _written(details: Mapping[str, Any], key: str) -> Written:
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
