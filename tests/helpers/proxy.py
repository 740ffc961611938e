"""A TCP proxy between a crawl and its MongoDB that breaks what passes, message by message."""

from __future__ import annotations

import asyncio
import struct
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from typing import Any

OP_MSG = 2013
BSON_TEXT = 2
HEADER = struct.Struct("<4i")  # length, number, the request's number in its reply, kind


@dataclass
class Fault:
    """Half of a request or reply passes; then the connection is cut, or nothing more comes."""

    commands: list[str]
    collection: str | None  # None: any
    where: Literal["request", "reply"]
    then: Literal["cut", "silence"]
    times: float


class Proxy:
    """Passes everything on until told otherwise. Its methods are called from other threads."""

    def __init__(self, target: int, loop: asyncio.AbstractEventLoop) -> None:
        self.target = target
        self.port = 0
        self.delay = 0.0  # seconds that each reply is held back
        self._loop = loop
        self._fault: Fault | None = None
        self._broken = threading.Semaphore(0)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/"

    def break_off(
        self,
        commands: str,
        where: Literal["request", "reply"],
        then: Literal["cut", "silence"] = "cut",
        times: float = 1,
        collection: str | None = None,
    ) -> None:
        """Break the next `times` messages of these commands, separated by spaces."""
        self._fault = Fault(commands.split(), collection, where, then, times)

    def wait_until_broken(self) -> None:
        """Return when one more message has been broken."""
        assert self._broken.acquire(timeout=60), "no such message came"

    def refuse(self) -> None:
        """Cut all connections and take no new ones, until `accept`."""
        self._call(self._refuse())

    def accept(self) -> None:
        self._call(self._accept())

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _accept(self) -> None:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _refuse(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._link(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on in both directions until either side ends or the connection is to be cut."""
        broken: dict[int, Fault] = {}  # by the request's number
        try:
            its_reader, its_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        pumps = [
            asyncio.create_task(self._requests(reader, its_writer, broken)),
            asyncio.create_task(self._replies(its_reader, writer, broken)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            writer.transport.abort()
            its_writer.transport.abort()

    async def _requests(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, broken: dict[int, Fault]
    ) -> None:
        while True:
            message = await _message(source)
            fault = self._next_fault(*_command(message))
            if fault and fault.where == "request":
                await self._break(message, fault, source, sink)
                return
            if fault:
                broken[HEADER.unpack_from(message)[1]] = fault
            sink.write(message)

    async def _replies(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, broken: dict[int, Fault]
    ) -> None:
        while True:
            message = await _message(source)
            if fault := broken.pop(HEADER.unpack_from(message)[2], None):
                await self._break(message, fault, source, sink)
                return
            await asyncio.sleep(self.delay)
            sink.write(message)

    async def _break(
        self,
        message: bytes,
        fault: Fault,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
    ) -> None:
        sink.write(message[: len(message) // 2])
        with suppress(ConnectionError):
            await sink.drain()
        self._broken.release()
        if fault.then == "silence":
            await source.read()  # to its end, and pass nothing on

    def _next_fault(self, command: str, collection: str) -> Fault | None:
        fault = self._fault
        if fault is None or command not in fault.commands:
            return None
        if fault.collection not in (None, collection):
            return None
        fault.times -= 1
        if fault.times < 1:
            self._fault = None
        return fault


async def _message(source: asyncio.StreamReader) -> bytes:
    header = await source.readexactly(HEADER.size)
    return header + await source.readexactly(HEADER.unpack(header)[0] - HEADER.size)


def _command(message: bytes) -> tuple[str, str]:
    """The name and the value of the first field of the message's first document.

    They are a command and, where it concerns one collection, that collection's name.
    """
    if HEADER.unpack_from(message)[3] != OP_MSG:
        return "", ""
    kind = HEADER.size + 4 + 1 + 4  # flags, kind of section, document's size
    end = message.index(0, kind + 1)
    name = message[kind + 1 : end].decode()
    if message[kind] != BSON_TEXT:
        return name, ""
    value = end + 1 + 4  # the text's size
    return name, message[value : message.index(0, value)].decode()


@contextmanager
def running_proxy(target: int) -> Iterator[Proxy]:
    """A proxy in front of a port of 127.0.0.1, in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    proxy = Proxy(target, loop)
    try:
        proxy.accept()
        yield proxy
        proxy.refuse()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
