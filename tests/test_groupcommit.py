"""How single calls become batches."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from spa5.mongo.groupcommit import GroupCommit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Writer:
    """Records its batches; each waits until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.started = asyncio.Event()
        self.go = asyncio.Event()
        self.at_once = 0

    async def __call__(self, batch: list[int]) -> list[int | Exception]:
        self.batches.append(batch)
        self.at_once += 1
        assert self.at_once == 1
        self.started.set()
        await self.go.wait()
        self.at_once -= 1
        return [KeyError(entry) if entry < 0 else entry * 10 for entry in batch]


def with_writer(test: Callable[[Writer], Awaitable[None]]) -> Writer:
    async def main() -> Writer:
        writer = Writer()
        await asyncio.wait_for(test(writer), 10)
        return writer

    return asyncio.run(main())


def test_what_arrives_during_a_write_forms_the_next_one_in_order() -> None:
    async def test(writer: Writer) -> None:
        commit = GroupCommit(writer)
        first = asyncio.create_task(commit.submit(1))
        await writer.started.wait()
        others = [asyncio.create_task(commit.submit(entry)) for entry in (2, 3, 4)]
        await asyncio.sleep(0)
        assert not first.done()
        writer.go.set()
        assert await asyncio.gather(first, *others) == [10, 20, 30, 40]

    assert with_writer(test).batches == [[1], [2, 3, 4]]


def test_a_lone_entry_is_written_at_once() -> None:
    async def test(writer: Writer) -> None:
        writer.go.set()
        commit = GroupCommit(writer)
        assert [await commit.submit(entry) for entry in (1, 2)] == [10, 20]

    assert with_writer(test).batches == [[1], [2]]


def test_a_batch_is_bounded_by_count_and_by_bytes() -> None:
    async def test(writer: Writer) -> None:
        writer.go.set()
        commit = GroupCommit(writer, size=lambda entry: entry, most=3, most_bytes=10)
        await asyncio.gather(*map(commit.submit, [1, 1, 1, 1, 6, 3, 1, 99, 1]))

    assert with_writer(test).batches == [[1, 1, 1], [1, 6, 3], [1], [99], [1]]


def test_a_refused_entry_fails_alone() -> None:
    async def test(writer: Writer) -> None:
        writer.go.set()
        commit = GroupCommit(writer)
        results = await asyncio.gather(*map(commit.submit, [1, -2, 3]), return_exceptions=True)
        assert results[0::2] == [10, 30]
        assert isinstance(results[1], KeyError)

    with_writer(test)


def test_a_failed_write_fails_its_batch_and_not_the_next_one() -> None:
    async def main() -> None:
        calls = 0

        async def write(batch: list[int]) -> list[int]:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise OSError("gone")
            return batch

        commit = GroupCommit(write)
        first = await asyncio.gather(commit.submit(1), commit.submit(2), return_exceptions=True)
        assert [str(error) for error in first] == ["gone", "gone"]
        assert await commit.submit(3) == 3

    asyncio.run(main())


def test_a_caller_that_is_cancelled_leaves_the_others_alone() -> None:
    async def test(writer: Writer) -> None:
        commit = GroupCommit(writer)
        tasks = [asyncio.create_task(commit.submit(entry)) for entry in (1, 2)]
        await writer.started.wait()
        tasks[0].cancel()
        writer.go.set()
        assert await tasks[1] == 20
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]

    with_writer(test)


def test_drain_returns_when_everything_is_written() -> None:
    async def test(writer: Writer) -> None:
        commit = GroupCommit(writer)
        await commit.drain()
        first = asyncio.create_task(commit.submit(1))
        await writer.started.wait()
        second = asyncio.create_task(commit.submit(2))
        draining = asyncio.create_task(commit.drain())
        await asyncio.sleep(0)
        assert not draining.done()
        writer.go.set()
        await draining
        assert (await first, await second) == (10, 20)
        assert writer.batches == [[1], [2]]

    with_writer(test)
