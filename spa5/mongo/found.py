"""The collection as a crawl finds it: what would be stored twice, and how people mend that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pymongo.errors import DuplicateKeyError

from spa5.catalogue.text import brief
from spa5.mongo.errors import StoreError

if TYPE_CHECKING:
    from spa5.catalogue.item import Schema
    from spa5.mongo.connection import Items

_MOST = 9e18  # what `$toLong` takes
_IN_RANGE = "{$gte: 0, $lt: 9e18}"  # the same for mongosh


async def unique_index(items: Items, schema: Schema) -> str | None:
    """Return the name of the unique index on the key; None if there is none.

    `StoreError` where another index is in its way, or the collection holds items under keys that
    a crawl would not find.
    """
    indexes = await items.index_information()
    names = [name for name, index in indexes.items() if _is_unique(index, schema.key)]
    await _refuse_strange(items, schema, _strange(schema) if names else _unusable(schema))
    if not names and (usual := f"{schema.key}_1") in indexes:
        raise StoreError(
            f"{items.full_name} has an index on {schema.key} that is not unique, or not for all "
            f"items: drop it with {_shell(items)}.dropIndex('{usual}'), and crawl again"
        )
    return names[0] if names else None


async def make_unique_index(items: Items, schema: Schema) -> str:
    """Make the index, and return its name; `StoreError` where copies are in its way."""
    try:
        return str(await items.create_index(schema.key, unique=True))
    except DuplicateKeyError as error:
        key = (error.details or {}).get("keyValue", {}).get(schema.key)
        raise StoreError(await _copies(items, schema, key)) from None


async def refuse_copies(items: Items, schema: Schema) -> None:
    """Raise `StoreError` if copies would be in the way of a unique index."""
    copies: list[dict[str, Any]] = [
        {"$group": {"_id": f"${schema.key}", "items": {"$sum": 1}}},
        {"$match": {"items": {"$gt": 1}}},
        {"$limit": 1},
    ]
    async for group in items.aggregate(copies, allowDiskUse=True):
        raise StoreError(await _copies(items, schema, group["_id"]))


async def _copies(items: Items, schema: Schema, key: Any) -> str:
    if isinstance(key, schema.kind.type):
        said, them = f"{schema.nouns} twice, {brief(key)} for example", "the copies"
    else:
        count = await items.count_documents(_unusable(schema))
        said, them = f"{count} documents without a {schema.noun}'s {schema.key}", "them"
    return (
        f"{items.full_name} holds {said}, so that its unique index on {schema.key} can't be made: "
        f"move {them} away (README, Duplicates) or use another MONGO_COLLECTION"
    )


def _is_unique(index: dict[str, Any], key: str) -> bool:
    is_whole = not index.keys() & {"hidden", "partialFilterExpression"}
    return index["key"] == [(key, 1)] and bool(index.get("unique")) and is_whole


def _unusable(schema: Schema) -> dict[str, Any]:
    """Return a query for documents whose key has the wrong type."""
    types = ["string"] if schema.kind.type is str else ["int", "long"]
    return {schema.key: {"$not": {"$type": types}}}


def _strange(schema: Schema) -> dict[str, Any]:
    """The same from the index alone. It finds fewer, but takes no time however many there are."""
    types = ["number"] if schema.kind.type is str else ["string", "double", "decimal"]
    return {"$or": [{schema.key: None}, *({schema.key: {"$type": one}} for one in types)]}


async def _refuse_strange(items: Items, schema: Schema, query: dict[str, Any]) -> None:
    async for strange in items.aggregate([{"$match": query}, _by_where_the_key_is(schema)]):
        example = f"for example {brief(strange['one'].get(strange['_id']))}"
        if strange["_id"] == "key":
            other = "a number" if schema.kind.type is str else "no whole number"
            said = f"{schema.nouns} whose {schema.key} is {other}, {example}"
            cure = _key_of_the_other_type(schema)
        elif strange["_id"] == "_id":
            said = f"{schema.nouns} with their {schema.key} in _id alone, {example}"
            cure = _key_from_own_id(schema)
        else:
            continue
        raise StoreError(
            f"{items.full_name} holds {strange['count']} {said}: a crawl would store them again. "
            f"Mend it in mongosh, see README, Duplicates: {_shell(items)}.{cure}"
        )


def _by_where_the_key_is(schema: Schema) -> dict[str, Any]:
    """Group documents by the field that holds what can be a key: "key", "_id" or "none"."""
    key = f"${schema.key}"
    in_own_id = {"$and": [{"$lte": [key, None]}, _can_be_key("$_id", schema)]}
    cases = [{"case": _can_be_key(key, schema), "then": "key"}, {"case": in_own_id, "then": "_id"}]
    where = {"$switch": {"branches": cases, "default": "none"}}
    first = {"$first": {"key": key, "_id": "$_id"}}
    return {"$group": {"_id": where, "count": {"$sum": 1}, "one": first}}


# For mongosh. Numbers become text by way of `$toLong`: `$toString` alone would make '1e+07' of
# the double 10000000.
def _key_of_the_other_type(schema: Schema) -> str:
    key = schema.key
    whole = f"{{{key}: {_IN_RANGE}, $expr: {{$eq: ['${key}', {{$trunc: '${key}'}}]}}}}"
    if schema.kind.type is str:
        return f"updateMany({whole}, [{{$set: {{{key}: {{$toString: {{$toLong: '${key}'}}}}}}}}])"
    text = f"{{{key}: {{$regex: '^{schema.kind.pattern}$'}}}}"
    return f"updateMany({{$or: [{text}, {whole}]}}, [{{$set: {{{key}: {{$toLong: '${key}'}}}}}}])"


def _key_from_own_id(schema: Schema) -> str:
    key = schema.key
    where = f"{{$or: [{{_id: {{$regex: '^{schema.kind.pattern}$'}}}}, {{_id: {_IN_RANGE}}}]}}"
    value = "{$toLong: '$_id'}"
    if schema.kind.type is str:
        value = "{$cond: [{$isNumber: '$_id'}, {$toString: {$toLong: '$_id'}}, '$_id']}"
    return f"updateMany({{{key}: null, {where[1:-1]}}}, [{{$set: {{{key}: {value}}}}}])"


def _can_be_key(field: str, schema: Schema) -> dict[str, Any]:
    """Make an expression that is true if the field could be a key, as text or as a number."""
    text = {"$cond": [{"$eq": [{"$type": field}, "string"]}, field, ""]}
    is_text = {"$regexMatch": {"input": text, "regex": f"^{schema.kind.pattern}$"}}
    is_whole = {"$eq": [field, {"$trunc": field}]}
    whole = {"$and": [{"$gte": [field, 0]}, {"$lt": [field, _MOST]}, is_whole]}
    return {"$or": [is_text, {"$cond": [{"$isNumber": field}, whole, False]}]}


def _shell(items: Items) -> str:
    """Return what mongosh calls the collection."""
    return f"db.{items.name}" if items.name.isidentifier() else f"db.getCollection('{items.name}')"
