"""The documents of `crawls`: what they count, and how workers of one crawl write the same one."""

from __future__ import annotations

from datetime import timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from datetime import datetime

    from spa5.mongo.store import Store

# A count's name, and its stat. Of a shared crawl's workers each counts its own.
SUMMED = {
    "skipped": "catalogue/skipped",
    "new": "mongo/inserted",
    "changed": "mongo/changed",
    "unchanged": "mongo/unchanged",
    "returned": "catalogue/returned",
    "failed": "catalogue/failed",
    "invalid": "catalogue/invalid",
    "rejected": "mongo/rejected",
    "held_back": "mongo/held_back",
    "field_errors": "catalogue/field_errors",
    "index_failed": "catalogue/index_failed",
    "retries": "retry/count",
    "requests": "downloader/request_count",
    "bytes": "downloader/response_bytes",
}
# These are told by one worker, who walks the index.
LARGEST = {
    "listed": "catalogue/listed",
    "expected": "catalogue/expected",
    "vanished": "catalogue/vanished",
    "unlisted": "catalogue/unlisted",
    "delisted": "catalogue/delisted",
    "missing": "catalogue/missing",
    "sweeps": "catalogue/sweeps",
}
OUTAGES = ("site", "mongo", "redis")
# The lists of a document and their lengths at the most: it must stay below MongoDB's 16 MB.
MOST = {"errors": 20, "returned": 10_000}
MOST_UNRESOLVED = 10_000
_ENDS = ("ended", "reason", "exit_code")


def crawl_id(began: datetime, number: str) -> str:
    """Name a crawl for people and for its `_id`: by its begin, and by digits of a random number."""
    return f"{began.astimezone(timezone.utc):%Y%m%d-%H%M%S}-{number[:6]}"


def counts_of(stats: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counts that the stats of one process tell."""
    return {name: stats[stat] for name, stat in (SUMMED | LARGEST).items() if stat in stats}


async def newest_first(
    store: Store, spider: str | None, most: int = 0
) -> AsyncIterator[dict[str, Any]]:
    """Yield the documents of a spider's crawls, all or `most`. Old ones have no `began`."""
    order = [("began", -1), ("ended", -1), ("_id", -1)]
    found = store.crawls.find({"spider": spider}, sort=order, limit=most, allow_disk_use=True)
    async for crawl in found:
        yield crawl


def update(
    first: Mapping[str, Any], name: str, worker: Mapping[str, Any], whole: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the update with which a worker writes all that it knows, as a pipeline of MongoDB's.

    `first` is what the first worker notes of the crawl, `worker` is what stands under this one's
    `name`, `whole` is what the one that ends the crawl knows. It may be repeated: counts are added
    up anew from those of all workers. A crawl that has no verdict has ended when all of them have.
    """
    noted = {key: {"$ifNull": [f"${key}", {"$literal": one}]} for key, one in first.items()}
    own = {"$mergeObjects": ["$workers", {name: {"$literal": dict(worker)}}]}
    counts = {key: _of_all("$sum", f"counts.{key}") for key in SUMMED}
    counts |= {key: _or_absent(_of_all("$max", f"counts.{key}")) for key in LARGEST}
    outages = {key: _of_all("$max", f"outage_seconds.{key}") for key in OUTAGES}
    said = {key: {"$literal": one} for key, one in whole.items()}
    return [
        {"$set": noted | {"alive_at": {"$literal": worker["alive_at"]}, "workers": own}},
        {"$set": {"counts": counts, "outage_seconds": outages, "settled": _all_have("settled")}},
        {"$set": {key: {"$slice": [_joined(key), most]} for key, most in MOST.items()}},
        {"$set": {key: _if_all_ended(key, worker.get(key)) for key in _ENDS} | said},
    ]


def _workers(what: Any) -> dict[str, Any]:
    return {"$map": {"input": {"$objectToArray": "$workers"}, "as": "one", "in": what}}


def _of_all(operator: str, name: str) -> dict[str, Any]:
    return {operator: _workers(f"$$one.v.{name}")}


def _all_have(name: str) -> dict[str, Any]:
    return {"$allElementsTrue": [_workers(f"$$one.v.{name}")]}


def _joined(key: str) -> dict[str, Any]:
    joined = {"$concatArrays": ["$$value", "$$this"]}
    return {"$reduce": {"input": _workers(f"$$one.v.{key}"), "initialValue": [], "in": joined}}


def _or_absent(value: Any) -> dict[str, Any]:
    return {"$ifNull": [value, "$$REMOVE"]}


def _if_all_ended(key: str, own: Any) -> dict[str, Any]:
    ended = {"$and": [own is not None, _all_have("ended")]}
    return {"$cond": [ended, {"$literal": own}, f"${key}"]}
