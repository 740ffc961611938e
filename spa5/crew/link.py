"""Link: what a worker asks of Redis. Each question is one round trip."""

from __future__ import annotations

import os
import socket
import sys
import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import RedisError

from spa5.catalogue.fields import now
from spa5.crew import scripts, wire
from spa5.crew.server import RedisUnavailable, client, explain, place
from spa5.mongo.crawls import crawl_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.commands.core import AsyncScript


class Learned(NamedTuple):
    """A beat tells this about the other workers."""

    leads: int = 0
    workers: int = 1
    others_busy: int = 0
    waiting: int = 0  # requests that no worker has taken
    told: int = 0  # batches of outcomes that the leader has not heard
    known: int = 0  # of the requests sent
    taken: Sequence[bytes] = ()
    heard: Sequence[bytes] = ()
    totals: Sequence[bytes] = ()


class Link:
    """A worker's way to the shared crawl whose keys in Redis begin with `prefix`.

    `scope` is a hash of what is crawled, as 16 hexadecimal digits: only workers of the same scope
    work together. A run lasts until its workers have ended the crawl, or until all of them are
    gone; whoever joins later begins another run under the same keys.
    """

    def __init__(self, url: str, prefix: str, scope: str, count: Callable[[str, Any], None]):
        self._redis = client(url)
        # Redis gets them whole only if it does not know them.
        self._join, self._tell, self._end = map(
            self._redis.register_script, (scripts.JOIN, scripts.BEAT, scripts.END)
        )
        self.place = place(self._redis)
        self.count = count  # of stats
        self._prefix = prefix
        self._scope = scope
        self._keys = [f"{prefix}:{name}" for name in scripts.KEYS]
        self._worker = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._run = f"{uuid.uuid4().hex} {now().isoformat()} {scope}"

    @property
    def crawl(self) -> str:
        """The `_id` in `crawls` of the run, the same for all its workers."""
        number, began, _ = self._run.split()
        return crawl_id(datetime.fromisoformat(began), number)

    async def join(self) -> bool:
        """Join a run that is under way and return True, or begin one and return False.

        `RedisUnavailable` where neither is possible.
        """
        try:
            run = await self._call(self._join, self._scope)
        except RedisError as error:
            raise RedisUnavailable(explain(self.place, error)) from None
        return self._enter(run)

    async def beat(self, *told: Any) -> Learned | dict[str, Any] | None:
        """Tell and learn. Return what the others do, or how the crawl ended.

        None says that another run has begun: this worker belongs to it from now on.
        """
        match await self._call(self._tell, self._run_key("ended"), *told):
            case [b"going", *rest]:
                return Learned(*rest)
            case [b"ended", how]:
                try:
                    return wire.unpack_ended(how)
                except wire.Refused:
                    raise self._foreign("how this crawl ended") from None
            case [_, run]:
                self._enter(run)
        return None

    async def end(self, how: dict[str, Any]) -> bool:
        """Tell all that the crawl has ended; False if this worker turns out not to lead."""
        try:
            return bool(await self._call(self._end, self._run_key("ended"), wire.pack(how)))
        except RedisError:
            return True  # as far as this worker can tell

    async def count_emptied(self, field: str) -> int:
        """Count one more document that loses this field, and return how many did in all workers.

        Where Redis can't tell, that is more than any crawl holds.
        """
        self.count("redis/round_trips", 1)
        counting = self._redis.pipeline()
        key = self._run_key("emptied")
        counting.hincrby(key, field, 1)
        counting.expire(key, scripts.FORGOTTEN_SECONDS)
        try:
            return int((await counting.execute())[0])
        except RedisError:
            return sys.maxsize

    async def close(self) -> None:
        await self._redis.aclose()

    def _enter(self, run: bytes) -> bool:
        """Work for this run from now on; return True if it is another one than before."""
        try:
            name = wire.unpack_run(run)
        except wire.Refused:
            raise self._foreign("the name of this crawl") from None
        if not name.endswith(self._scope):
            raise RedisUnavailable(
                f"{self._prefix} at Redis {self.place} is a crawl of another site, into another "
                "database or collection, or by another version: use another CRAWL_ID"
            )
        is_another, self._run = name != self._run, name
        return is_another

    def _foreign(self, what: str) -> RedisUnavailable:
        return RedisUnavailable(
            f"Redis at {self.place} holds something else than {what} under {self._prefix}: "
            "another program or version uses it, so use another CRAWL_ID"
        )

    def _run_key(self, name: str) -> str:
        """A key that outlives its run for the workers that have not heard of the end."""
        return f"{self._prefix}:{name}:{self._run.split()[0]}"

    async def _call(self, script: AsyncScript, *arguments: Any) -> Any:
        self.count("redis/round_trips", 1)
        return await script(keys=self._keys, args=[self._worker, self._run, *arguments])
