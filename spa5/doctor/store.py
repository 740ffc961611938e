"""MongoDB and Redis, asked as a crawl asks them. Nothing is changed."""

from __future__ import annotations

import asyncio
import os
import shutil
from functools import partial
from typing import TYPE_CHECKING

from spa5.catalogue.text import Trouble
from spa5.crew.server import ping, shared
from spa5.doctor.checks import Remark
from spa5.mongo import mongod
from spa5.mongo.directory import data_dir, is_used
from spa5.mongo.server import EmbeddedServer
from spa5.mongo.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from spa5.catalogue.spider import CatalogueSpider
    from spa5.doctor.checks import Check, Checklist

_LEAST_MEGABYTES = 50
_JOURNAL_MEGABYTES = 300  # which MongoDB makes in a new directory


async def mongodb(spider: CatalogueSpider, checklist: Checklist) -> None:
    """An embedded server is started only where there are items already: nothing is left behind."""
    store = Store(spider.settings, spider.name, spider.schema, lambda *_: None)
    stored = {"MongoDB": _open, "writes": _writes, "index": _index}
    checks: dict[str, Check] = {name: partial(check, store) for name, check in stored.items()}
    try:
        if await store.connection.uses_embedded():
            checks = _embedded(data_dir(spider.settings), checks)
        await checklist.follow(checks)
    finally:
        await store.close()


def _embedded(directory: Path, checks: dict[str, Check]) -> dict[str, Check]:
    own: dict[str, Check] = {
        "mongod": _binary,
        "disk": partial(asyncio.to_thread, _disk, directory),
    }
    if not is_used(directory):
        return own | {"MongoDB": _coming}
    return own | {"server": partial(_orphan, directory)} | checks


async def _binary() -> str:
    return f"{await asyncio.to_thread(mongod.version)}, {mongod.find_binary()}"


def _disk(directory: Path) -> str:
    place = next(one for one in (directory, *directory.parents) if one.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise Trouble(f"{directory}: {place} can't be written, choose another MONGO_DATA_DIR")
    free = shutil.disk_usage(place).free >> 20
    least = _LEAST_MEGABYTES + (0 if is_used(directory) else _JOURNAL_MEGABYTES)
    if free < least:
        raise Trouble(
            f"{free} MB free for {directory}, {least} MB are needed: make room, or choose "
            f"another MONGO_DATA_DIR"
        )
    return f"{free} MB free for {directory}"


async def _orphan(directory: Path) -> None:
    """A crawl that was killed leaves its server."""
    if pid := EmbeddedServer(directory).orphan():
        raise Remark(
            f"process {pid} serves {directory}, but no crawl uses it: the next crawl ends it, and "
            f"so does `kill {pid}`"
        )


async def _coming() -> str:
    return "the embedded one; the first crawl makes its directory"


async def _open(store: Store) -> str:
    await store.open(read_only=True)
    return f"{store.connection.version} at {store.connection.place}"


async def _writes(store: Store) -> str:
    concern, replicated = await store.try_write()
    said = f"w={concern['w']}, j={str(concern['j']).lower()}"
    if replicated and concern["w"] == 1:
        raise Remark(f"{said}: a failover can take stored items back; leave w out of MONGO_URI")
    return f"acknowledged with {said}"


async def _index(store: Store) -> str:
    if await store.has_unique_index():
        return f"unique on {store.schema.key}"
    return "not yet: the first crawl makes it, and no copies stand in its way"


async def redis(spider: CatalogueSpider, _: Checklist) -> str | None:
    if not (spider.settings["REDIS_URL"] or spider.settings["CRAWL_ID"]):
        return None
    url, crawl_id = shared(spider.settings)
    return f"answers at {await ping(url)}; CRAWL_ID={crawl_id}"
