"""Changes: what a crawl changed, or what was changed since a moment."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from spa5.mongo.history import entries_of, versions
from spa5.mongo.status import BEAT_SECONDS
from spa5.mongo.store import batches

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from motor.motor_asyncio import AsyncIOMotorCursor

    from spa5.catalogue.item import Key
    from spa5.mongo.store import Store

MOST_READ = 1_000  # documents at a time


class Span(NamedTuple):
    """The changes that are asked for: those of a crawl, or those since a moment."""

    moments: dict[str, Any]  # a query for dates: what was new or delisted then
    history: dict[str, Any]  # a query for entries of the history
    crawl: dict[str, Any] | None  # its document

    @classmethod
    def of_crawl(cls, crawl: dict[str, Any]) -> Span:
        """Span a crawl. One that has not ended goes on to when its next sign of life is due."""
        began, ends = crawl.get("began"), crawl.get("ended")
        if ends is None and isinstance(alive_at := crawl.get("alive_at"), datetime):
            ends = alive_at + timedelta(seconds=BEAT_SECONDS)
        moments = {"$gte": began} | ({"$lte": ends} if ends else {})
        return cls(moments if began else {"$in": []}, {"crawl": crawl["_id"]}, crawl)

    @classmethod
    def since(cls, moment: datetime) -> Span:
        return cls({"$gte": moment}, {"until": {"$gte": moment}}, None)


async def changes(
    store: Store, span: Span, field: str | None = None
) -> AsyncIterator[dict[str, Any]]:
    """Yield what is `new`, `changed`, `delisted` and `back`, each as an object for programs.

    With `field` only changes of that field are yielded. However many there are, some thousand
    documents are held at a time.
    """
    parts = [_changed(store, span, field)]
    if field is None:
        parts.insert(0, _marked(store, span, "new", "first_crawled_at"))
        parts += [_marked(store, span, "delisted", "delisted_at"), _back(store, span)]
    for part in parts:
        async for change in part:
            yield change


def replaced(item: Mapping[str, Any], entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return how an item's versions were replaced, newest first, given all its history's entries.

    Each has `from`, `until`, `crawl` and `fields`, with the values `before` and `after`; a value
    that a version lacked is left out.
    """
    steps, after = [], dict(item)
    for entry in versions(item, entries):
        absent = entry.get("absent") or ()
        both = {**after, **entry["fields"]}
        before = {name: value for name, value in both.items() if name not in absent}
        pair = (("before", before), ("after", after))
        fields = {
            name: {when: version[name] for when, version in pair if name in version}
            for name in entry["fields"]
        }
        steps.append({name: entry.get(name) for name in ("from", "until", "crawl")})
        steps[-1]["fields"] = fields
        after = before
    return steps


async def chunks(
    store: Store, cursor: AsyncIOMotorCursor[dict[str, Any]]
) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield the documents of a cursor in lists; `StoreError` where MongoDB can't be asked."""
    cursor.batch_size(MOST_READ)
    while True:
        with store.connection.explained():
            chunk = await cursor.to_list(MOST_READ)
        if not chunk:
            return
        yield chunk


async def _marked(
    store: Store, span: Span, change: str, name: str
) -> AsyncIterator[dict[str, Any]]:
    """Yield the items in which this bookkeeping field is a date of the span."""
    fields = dict.fromkeys((*_names(store), name), 1)
    async for chunk in chunks(store, store.items.find({name: span.moments}, fields)):
        for item in chunk:
            yield _change(store, change, item, at=item[name], **_crawl(span.crawl))


async def _changed(store: Store, span: Span, field: str | None) -> AsyncIterator[dict[str, Any]]:
    """Yield the replaced versions. Entries of writes that never happened are left out."""
    query = span.history | ({f"fields.{field}": {"$exists": True}} if field else {})
    async for chunk in chunks(store, store.history.find(query)):
        names = {name for entry in chunk for name in entry["fields"]}
        projection = dict.fromkeys((*_names(store), "changed_at", *names), 1)
        # An entry is written before its item: what this finds has all its entries by now.
        items = await store.get({entry["id"] for entry in chunk}, projection)
        oldest = min(entry["until"] for entry in chunk)
        entries = await entries_of(store, items, {"until": {"$gte": oldest}})
        asked = {(entry["id"], entry["until"]) for entry in chunk}
        for key, item in items.items():
            for step in reversed(replaced(item, entries[key])):
                if (key, step["until"]) in asked:
                    yield _step(store, item, step, field)


def _step(
    store: Store, item: Mapping[str, Any], step: dict[str, Any], field: str | None
) -> dict[str, Any]:
    fields = {name: one for name, one in step["fields"].items() if field in (None, name)}
    crawl = {"crawl": step["crawl"]} if step["crawl"] else {}
    return _change(store, "changed", item, fields=fields, at=step["until"], **crawl)


async def _back(store: Store, span: Span) -> AsyncIterator[dict[str, Any]]:
    """Yield the items that were listed again after they had been delisted."""
    query: dict[str, Any] = {"collection": store.items.name, "ended": span.moments}
    crawls = {"_id": span.crawl["_id"]} if span.crawl else query
    async for found in chunks(store, store.crawls.find(crawls | {"returned.0": {"$exists": True}})):
        for crawl in found:
            at = crawl.get("ended") or crawl.get("alive_at")
            async for item in _named(store, crawl["returned"]):
                yield _change(store, "back", item, at=at, crawl=crawl["_id"])


async def _named(store: Store, keys: list[Key]) -> AsyncIterator[dict[str, Any]]:
    """Yield these items with their names, as far as they are stored."""
    for some in batches(keys, MOST_READ):
        items = await store.get(some, dict.fromkeys(_names(store), 1))
        for key in some:
            yield items.get(key, {store.schema.key: key})


def _change(store: Store, change: str, item: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    title = store.schema.title
    name = {"name": item[title]} if title and title in item else {}
    return {"change": change, "id": item.get(store.schema.key), **name, **more}


def _names(store: Store) -> list[str]:
    """The fields by which people know an item."""
    return [name for name in (store.schema.key, store.schema.title) if name]


def _crawl(crawl: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"crawl": crawl["_id"]} if crawl else {}
