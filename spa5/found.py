"""The collection as it is found: what would make a crawl store books twice, with its cure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pymongo.errors import DuplicateKeyError

from spa5.connection import StoreError
from spa5.items import brief

if TYPE_CHECKING:
    from typing import TypeAlias

    from motor.motor_asyncio import AsyncIOMotorCollection

    Books: TypeAlias = AsyncIOMotorCollection[dict[str, Any]]

# With the index the first takes no time in a collection of books, however large it is.
_STRANGE = {"$or": [{"id": None}, {"id": {"$type": "number"}}]}
_NOT_TEXT = {"id": {"$not": {"$type": "string"}}}
_COPIES: list[dict[str, Any]] = [
    {"$group": {"_id": "$id", "books": {"$sum": 1}}},
    {"$match": {"books": {"$gt": 1}}},
    {"$limit": 1},
]
_MOST = 9e18  # what `$toLong` takes

# For mongosh. By way of `$toLong`, for `$toString` alone makes '1e+07' of the double 10000000.
_ID_TO_TEXT = (
    "updateMany({id: {$gte: 0, $lt: 9e18}, $expr: {$eq: ['$id', {$trunc: '$id'}]}}, "
    "[{$set: {id: {$toString: {$toLong: '$id'}}}}])"
)
_ID_FROM_OWN_ID = (
    "updateMany({id: null, $or: [{_id: {$regex: '^[0-9]{1,20}$'}}, {_id: {$gte: 0, $lt: 9e18}}]}, "
    "[{$set: {id: {$cond: [{$isNumber: '$_id'}, {$toString: {$toLong: '$_id'}}, '$_id']}}}])"
)


async def unique_index(books: Books) -> str | None:
    """The name of the unique index on id; None where there is none.

    `StoreError` where another one is in its way, or the collection holds books under ids that a
    crawl would not find.
    """
    indexes = await books.index_information()
    names = [name for name, index in indexes.items() if _is_unique(index)]
    await _refuse_strange(books, _STRANGE if names else _NOT_TEXT)
    if not names and "id_1" in indexes:
        raise StoreError(
            f"{_where(books)} has an index on id that is not unique, or not for all books: drop "
            f"it with {_shell(books)}.dropIndex('id_1'), and crawl again"
        )
    return names[0] if names else None


async def make_unique_index(books: Books) -> str:
    """Make it, and return its name; `StoreError` where copies are in its way."""
    try:
        return str(await books.create_index("id", unique=True))
    except DuplicateKeyError as error:
        key = (error.details or {}).get("keyValue", {}).get("id")
        raise StoreError(await _copies(books, key)) from None


async def refuse_copies(books: Books) -> None:
    """`StoreError` where copies would be in the way of a unique index."""
    async for group in books.aggregate(_COPIES, allowDiskUse=True):
        raise StoreError(await _copies(books, group["_id"]))


async def _copies(books: Books, key: Any) -> str:
    if isinstance(key, str):
        return (
            f"{_where(books)} holds books twice, {brief(key)} for example, so that its unique "
            f"index on id can't be made: move the copies away (README, Duplicates) or use another "
            f"MONGO_COLLECTION"
        )
    count = await books.count_documents(_NOT_TEXT)
    return (
        f"{_where(books)} holds {count} documents without a book's id, so that its unique index "
        f"on id can't be made: move them away (README, Duplicates) or use another MONGO_COLLECTION"
    )


def _is_unique(index: dict[str, Any]) -> bool:
    is_whole = not index.keys() & {"hidden", "partialFilterExpression"}
    return index["key"] == [("id", 1)] and bool(index.get("unique")) and is_whole


async def _refuse_strange(books: Books, query: dict[str, Any]) -> None:
    is_book = {"$or": [_is_whole("$_id"), {"$regexMatch": {"input": _text("$_id"), "regex": _ID}}]}
    kind = {
        "$switch": {
            "branches": [
                {"case": _is_whole("$id"), "then": "id"},
                {"case": {"$and": [{"$lte": ["$id", None]}, is_book]}, "then": "_id"},
            ],
            "default": "no book",
        }
    }
    group = {"_id": kind, "count": {"$sum": 1}, "one": {"$first": {"id": "$id", "_id": "$_id"}}}
    async for found in books.aggregate([{"$match": query}, {"$group": group}]):
        example = f"for example {brief(found['one'].get(found['_id']))}"
        if found["_id"] == "id":
            said, cure = f"books whose id is a number, {example}", _ID_TO_TEXT
        elif found["_id"] == "_id":
            said, cure = f"books with their id in _id alone, {example}", _ID_FROM_OWN_ID
        else:
            continue
        raise StoreError(
            f"{_where(books)} holds {found['count']} {said}: a crawl would store them again. "
            f"Mend it in mongosh, see README, Duplicates: {_shell(books)}.{cure}"
        )


def _is_whole(field: str) -> dict[str, Any]:
    """True if it is a number that a book's id can be."""
    in_range = {"$and": [{"$gte": [field, 0]}, {"$lt": [field, _MOST]}]}
    whole = {"$and": [in_range, {"$eq": [field, {"$trunc": field}]}]}
    return {"$cond": [{"$isNumber": field}, whole, False]}


def _text(field: str) -> dict[str, Any]:
    return {"$cond": [{"$eq": [{"$type": field}, "string"]}, field, ""]}


_ID = "^[0-9]{1,20}$"


def _where(books: Books) -> str:
    return f"{books.database.name}.{books.name}"


def _shell(books: Books) -> str:
    """How mongosh calls the collection."""
    return f"db.{books.name}" if books.name.isidentifier() else f"db.getCollection('{books.name}')"
