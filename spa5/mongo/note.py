"""Note: the document that a restore has in `crawls`, so that it can be undone like a crawl."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from spa5.catalogue.fields import now
from spa5.mongo.status import this_process

if TYPE_CHECKING:
    from spa5.mongo.store import Store


class Note:
    """Notes a restore: before its first write, with each batch as a sign of life, and at its end.

    Where it can't be noted it does not write: then nobody could undo it.
    """

    def __init__(self, store: Store, spider: str, site: str | None, arguments: dict[str, str]):
        self._store = store
        self._catalogue = {"spider": spider, "site": site, "collection": store.items.name}
        self._arguments = {name: one[:200] for name, one in arguments.items()}
        self._worker = f"workers.{secrets.token_hex(4)}"
        self._counts = {"changed": 0, "rejected": 0}
        self.has_begun = False

    async def begin(self) -> None:
        began = now()
        own = this_process() | {"began": began}
        first = self._catalogue | {"whole": False, "arguments": self._arguments}
        first["host"] = own["host"]
        await self._set(**first, began=began, reason="restored", **{self._worker: own})
        self.has_begun = True

    async def count(self, changed: int, refused: int) -> None:
        """Count some items that were put back, or could not be."""
        self._counts["changed"] += changed
        self._counts["rejected"] += refused
        await self._set()

    async def end(self) -> None:
        if self.has_begun:
            code = int(self._counts["rejected"] > 0)
            ended = now()
            own = {f"{self._worker}.ended": ended, f"{self._worker}.settled": True}
            await self._set(ended=ended, exit_code=code, settled=True, **own)

    async def _set(self, **fields: Any) -> None:
        change = {"$set": {**fields, "alive_at": now(), "counts": self._counts}}
        await self._store.persist(
            lambda: self._store.crawls.update_one({"_id": self._store.crawl()}, change, upsert=True)
        )
