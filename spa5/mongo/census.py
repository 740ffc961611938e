"""Census: what is stored after a crawl: what the site no longer lists, and how full fields are."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from spa5.catalogue.fields import now
from spa5.mongo.store import MOST_KEYS

if TYPE_CHECKING:
    from collections.abc import Callable

    from spa5.catalogue.item import Key
    from spa5.mongo.store import Store

_AT_ONCE = 50_000  # items


async def delist(store: Store, is_listed: Callable[[Key], bool], crawls: set[Any]) -> int:
    """Mark those stored items of these crawls that are not listed any more; return how many.

    `crawls` were over before this one began: what another one lists meanwhile is not marked.
    """
    kind = store.schema.kind.type
    found: dict[Any, list[Key]] = {}
    marked = 0
    for crawl, key in await store.persist(_candidates, store, crawls):
        if not isinstance(key, kind) or is_listed(key):
            continue
        keys = found.setdefault(crawl, [])
        keys.append(key)
        if len(keys) == MOST_KEYS:
            marked += await store.persist(_mark, store, crawl, found.pop(crawl))
    for crawl, keys in found.items():
        marked += await store.persist(_mark, store, crawl, keys)
    return marked


async def _candidates(store: Store, crawls: set[Any]) -> list[tuple[Any, Any]]:
    others = {"crawl": {"$nin": [None, store.crawl()]}, "delisted_at": None}
    crawls = crawls.intersection(await store.items.distinct("crawl", others))
    if not crawls:
        return []
    query = {"crawl": {"$in": [*crawls]}, "delisted_at": None}
    names = {store.schema.key: 1, "crawl": 1, "_id": 0}
    items = store.items.find(query, names)
    return [(item["crawl"], item.get(store.schema.key)) async for item in items]


async def _mark(store: Store, crawl: Any, keys: list[Key]) -> int:
    query = {store.schema.key: {"$in": keys}, "crawl": crawl, "delisted_at": None}
    change = {"$set": {"delisted_at": now()}}
    result = await store.items.update_many(query, change, hint=store.index)
    return int(result.modified_count)


async def fill_rates(store: Store) -> dict[str, float]:
    """Return which share of the stored items has something in a field, for each field."""
    names = sorted(store.schema.names - {"extra"})
    last: Key = "" if store.schema.kind.type is str else -1  # every key is above it
    total: Counter[str] = Counter()
    found: dict[str, Any] = {"_count": _AT_ONCE}
    while found.get("_count") == _AT_ONCE:
        found = await store.persist(_fill, store, names, last)
        last = found.pop("last", last)
        total.update(found)
    return {name: total[name] / total["_count"] for name in names} if total else {}


async def _fill(store: Store, names: list[str], last: Key) -> dict[str, Any]:
    """Count the fields that hold something, in the items that follow one in the order of keys.

    A few at a time: MongoDB takes 13 µs an item, and one answer must not take too long.
    """
    key = store.schema.key
    empty: list[Any] = [None, "", [], {}]
    holds = {name: {"$not": {"$in": [{"$ifNull": [f"${name}", None]}, empty]}} for name in names}
    group: dict[str, Any] = {name: {"$sum": {"$toInt": holds[name]}} for name in names}
    group |= {"_id": None, "_count": {"$sum": 1}, "last": {"$max": f"${key}"}}
    above: dict[str, Any] = {"$match": {key: {"$gt": last}}}
    stages = [above, {"$sort": {key: 1}}, {"$limit": _AT_ONCE}, {"$group": group}]
    async for found in store.items.aggregate(stages, hint=store.index):
        return {name: found[name] for name in found if name != "_id"}
    return {}
