"""Export: stored documents as items again, read page by page in the order of their keys."""

from __future__ import annotations

import math
from base64 import b64encode
from dataclasses import fields, make_dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import bson

from spa5.catalogue.fields import line, moment
from spa5.catalogue.item import DATES
from spa5.catalogue.text import brief

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from spa5.mongo.store import Store

_PAGE = 500  # documents; MongoDB ends a page at 16 MB, too


class Reader:
    """Reads the stored items; with `since`, those that are new or changed since that moment.

    It holds one page at a time, and each page is a query of its own: nothing on the server expires
    while somebody takes his time with a page. The order is that of the unique index on the key.
    Without a usable one it is that of `_id`.
    """

    def __init__(self, store: Store, item_class: type, since: datetime | None):
        self.item_class = item_class
        self.looked_at = 0  # documents so far
        self.spelled = 0  # items with values that were made text
        self.example = ""  # one of them
        self._store = store
        self._serialized = {one.name: "serializer" in one.metadata for one in fields(item_class)}
        is_wanted = {"$gte": ["$changed_at", since]} if since else True
        # A query that left documents out could look at all of them before it answers.
        self._document = {"$cond": [is_wanted, "$$ROOT", "$$REMOVE"]}

    async def total(self) -> int:
        """Return about how many documents there are to look at."""
        with self._store.connection.explained():
            return int(await self._store.items.estimated_document_count())

    async def pages(self) -> AsyncIterator[list[Any]]:
        """Yield the items, page by page."""
        name, index = await self._order()
        last: list[dict[str, Any]] = []
        while rows := await self._rows(name, index, last):
            if last and _is_same(rows[-1], last[0]):
                return
            if last and _is_same(rows[0], last[0]):
                del rows[0]
            last = rows[-1:]
            self.looked_at += len(rows)
            yield [self._item(row["document"]) for row in rows if "document" in row]

    async def _rows(
        self, name: str, index: str, last: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Return the next documents, from the last one on if there is one.

        `min` is a place in the index. Unlike a condition it leads from text to numbers as well.
        """
        projection = {"_id": 1, "at": f"${name}", "document": self._document}
        options: dict[str, Any] = {"hint": index, "sort": [(name, 1)]}
        if last:
            options["min"] = {name: last[0].get("at")}
        rows: list[dict[str, Any]] = []
        with self._store.connection.explained():
            for limit in (-_PAGE, 2):  # a negative one ends where the next one has no room
                cursor = self._store.items.find({}, projection, limit=limit, **options)
                rows = await cursor.to_list(None)
                if len(rows) > 1:
                    break
        return rows

    async def _order(self) -> tuple[str, str]:
        """Return the field that the items are sorted by, and its index."""
        items, key = self._store.items, self._store.schema.key
        with self._store.connection.explained():
            for name, index in (await items.index_information()).items():
                if index["key"] == [(key, 1)] and index.get("unique") and _is_whole(index):
                    plan = await items.find(hint=name, limit=1).explain()
                    # A list has a place in the index for each member, and so no place of its own.
                    if "'isMultiKey': True" not in str(plan):
                        return key, name
        return "_id", "_id_"

    def _item(self, document: dict[str, Any]) -> Any:
        odd: list[str] = []
        values = {
            name: _spelled(value, name, odd, is_serialized=is_serialized)
            for name, is_serialized in self._serialized.items()
            if (value := document.get(name, odd)) is not odd
        }
        if odd:
            self.spelled += 1
            self.example = self.example or f"{odd[0]} of {brief(document.get('_id'))}"
        return self.item_class(**{self._store.schema.key: None, **values})


def with_bookkeeping(item_class: type) -> type:
    """Return a class that has the fields of the item, and those that the store adds."""
    own = {one.name for one in fields(item_class)}
    added = [(name, Any, moment()) for name in DATES] + [("crawl", Any, line())]
    return make_dataclass(
        item_class.__name__, [one for one in added if one[0] not in own], bases=(item_class,)
    )


def _is_whole(index: dict[str, Any]) -> bool:
    """True if each document has its place in the index."""
    return not index.keys() & {"hidden", "partialFilterExpression", "sparse", "collation"}


def _is_same(row: dict[str, Any], other: dict[str, Any]) -> bool:
    """True for rows of one document. NaN, which can be an `_id`, does not equal itself."""
    return bson.encode({"_id": row["_id"]}) == bson.encode({"_id": other["_id"]})


def _spelled(value: Any, name: str, odd: list[str], *, is_serialized: bool = False) -> Any:
    """Return what every exporter can write of a value; `odd` gets the name if that is a text.

    With `is_serialized` the field's own serializer spells dates.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, datetime):
        return value if is_serialized else value.isoformat()
    if isinstance(value, int):
        return int(value)  # of Int64, which not every exporter knows
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, list):
        return [_spelled(one, name, odd) for one in value]
    if isinstance(value, dict):
        return {inner: _spelled(one, name, odd) for inner, one in value.items()}
    odd.append(name)
    return b64encode(value).decode() if isinstance(value, bytes) else str(value)
