"""The embedded MongoDB server: started, shared by the crawls of one directory, stopped.

It listens on a Unix socket that only its user can open, and on no port. Linux only.
"""

from __future__ import annotations

import asyncio
import atexit
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from spa5.mongo.directory import (
    OTHERWISE,
    POLL_SECONDS,
    MongodError,
    is_locked,
    lock,
    locked,
    make_private,
    owner,
    stuck,
)
from spa5.mongo.mongod import answers, find_binary, launch, terminate

if TYPE_CHECKING:
    from collections.abc import Coroutine

_READY_SECONDS = 30  # the most that is waited for others who start or stop the server
_LEAVE_SECONDS = 3  # the most that a crawl waits for others at its end


class EmbeddedServer:
    """The mongod of a data directory, shared by all who use that directory at the same time.

    Each user holds a shared lock on users.lock, the server one on mongod.lock; joining and ending
    happen under start.lock. The kernel frees them all however a process ends: nothing that was
    left behind can pass for something that runs.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._start_lock = data_dir / "start.lock"
        self._users_lock = data_dir / "users.lock"
        self._server_lock = data_dir / "mongod.lock"
        self.place = str(data_dir / "mongod.sock")  # for people
        self._users: int | None = None  # the descriptor that holds the shared lock
        self._is_visit = False
        self._directory: int | None = None  # a descriptor, where the socket needs another path

    @property
    def uri(self) -> str:
        """The started server's; it can be used as long as this process uses the server."""
        return f"mongodb://{quote(os.fsencode(self._socket), safe='')}/"

    @property
    def _socket(self) -> Path:
        place = self._data_dir
        if self._directory is not None:
            place = Path(f"/proc/{os.getpid()}/fd/{self._directory}")
        return place / "mongod.sock"

    async def start(self, *, visit: bool = False) -> None:
        """Join the running server or launch one; raise MongodError where neither is possible.

        With `visit` a server that runs without a crawl is left running by `stop`.
        """
        try:
            await self._start(find_binary(), visit)
        except OSError as error:
            await self._end()
            raise MongodError(f"The embedded MongoDB can't start: {error}. {OTHERWISE}") from error
        except BaseException:
            await self._end()
            raise

    async def stop(self) -> bool:
        """Leave the server; end it and return True, or return False if others still use it."""
        try:
            return await self._end()
        finally:
            if self._directory is not None:
                os.close(self._directory)
                self._directory = None

    def orphan(self) -> int | None:
        """The process of a server that runs without a crawl, if there is one. Changes nothing."""
        try:
            start = lock(self._start_lock)
        except BlockingIOError:  # somebody starts or stops it
            return None
        try:
            return None if is_locked(self._users_lock) else self._server_pid()
        finally:
            os.close(start)

    async def _end(self) -> bool:
        if self._users is None:
            return True
        self._leave()
        with suppress(MongodError):  # whoever starts it uses it, whoever stops it needs no help
            async with locked(self._start_lock, _LEAVE_SECONDS):
                if self._is_visit or is_locked(self._users_lock):
                    return False
                if pid := self._server_pid():
                    await terminate(pid)
            return True
        return False

    def _leave(self) -> None:
        if self._users is not None:
            atexit.unregister(self._end_at_exit)
            os.close(self._users)
            self._users = None

    def _end_at_exit(self) -> None:
        """Stop where nobody does it: a second Ctrl-C ends the process in the middle of a crawl."""
        with suppress(OSError, asyncio.TimeoutError):
            asyncio.run(asyncio.wait_for(self.stop(), _LEAVE_SECONDS))

    async def _start(self, binary: Path, visit: bool) -> None:
        make_private(self._data_dir)
        async with locked(self._start_lock, _READY_SECONDS):
            if self._directory is None and not _can_be_address(self._socket):
                self._directory = os.open(self._data_dir, os.O_PATH)
            self._leave()
            is_shared = is_locked(self._users_lock)
            self._users = lock(self._users_lock, is_shared=True)
            atexit.register(self._end_at_exit)
            self._is_visit = visit and not is_shared
            if not await self._join(is_shared or visit):
                self._is_visit = False  # what it launches it ends
                await _finish(asyncio.to_thread(launch, binary, self._data_dir, self._socket))

    async def _join(self, keep: bool) -> bool:
        """Tell whether a server answers; one that is starting or ending is waited for.

        One that does not answer in time is ended; `MongodError` where that is not allowed.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _READY_SECONDS
        while not await answers(self._socket, deadline - loop.time()):
            if not is_locked(self._server_lock):
                return False
            if loop.time() > deadline:
                await terminate(self._unreachable(keep))
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True

    def _unreachable(self, keep: bool) -> int:
        """The process of a server that does not answer, if it may be ended."""
        pid = self._server_pid()
        if pid is None:
            raise MongodError(
                f"Another MongoDB, process {owner(self._server_lock)}, uses {self._data_dir}: "
                f"stop it. {OTHERWISE}"
            )
        if keep:
            raise stuck(self._server_lock, _READY_SECONDS, "as a MongoDB that does not answer")
        return pid

    def _server_pid(self) -> int | None:
        """The server's process; None where there is none, or one that was not started here."""
        if is_locked(self._server_lock):
            pid = self._server_lock.read_text().strip()
            with suppress(OSError):
                command = os.fsdecode(Path("/proc", pid, "cmdline").read_bytes()).split("\0")
                if f"--dbpath={self._data_dir}" in command:
                    return int(pid)
        return None


def _can_be_address(path: Path) -> bool:
    """Tell whether a socket may have this path. If not, it is reached by a descriptor of its
    directory: unlike a directory elsewhere nobody else can take that, and nothing removes it.
    """
    # The kernel takes 107 bytes; mongod reads these characters as parts of a list or of a host.
    return len(os.fsencode(path)) <= 107 and not set(str(path)) & set(",:[]")


async def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Await even when cancelled: a server half started could be neither used nor stopped."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise
