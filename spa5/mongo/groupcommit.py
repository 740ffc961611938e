"""Group commit: while one write is under way, what arrives meanwhile forms the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")


class GroupCommit(Generic[T, R]):
    """Joins single calls of `submit` into batches for `write`, one batch at a time.

    `write` takes a batch and returns, in its order, each entry's result or the exception that it
    alone deserves; what `write` raises goes to the whole batch. A batch holds at most `most`
    entries and `most_bytes` as told by `size`, but always at least one entry. There is no timer:
    a lone entry is written at once, and a busy writer gets the larger batches the busier it is.
    """

    def __init__(
        self,
        write: Callable[[list[T]], Awaitable[Sequence[R | Exception]]],
        *,
        size: Callable[[T], int] = lambda entry: 0,
        most: int = 1000,
        most_bytes: int = 8 * 1024 * 1024,
    ):
        self._write = write
        self._size = size
        self._most = most
        self._most_bytes = most_bytes
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._writer: asyncio.Task[None] | None = None

    async def submit(self, entry: T) -> R:
        """Return the entry's result once its batch is written."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, future))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_all())
        return await future

    async def drain(self) -> None:
        """Return when nothing waits and no write is under way."""
        while self._writer is not None:
            await asyncio.wait([self._writer])

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                await self._write_batch(self._next_batch())
        finally:
            self._writer = None
            for _, future in self._waiting:  # only when this task was cancelled
                future.cancel()

    def _next_batch(self) -> list[tuple[T, asyncio.Future[R]]]:
        batch: list[tuple[T, asyncio.Future[R]]] = []
        room = self._most_bytes
        while self._waiting and len(batch) < self._most:
            room -= self._size(self._waiting[0][0])
            if batch and room < 0:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _write_batch(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        results: Sequence[R | Exception]
        try:
            results = await self._write([entry for entry, _ in batch])
        except Exception as error:  # belongs to those who wait for this batch
            results = [error] * len(batch)
        except BaseException:
            for _, future in batch:
                future.cancel()
            raise
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():  # its caller was cancelled
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
