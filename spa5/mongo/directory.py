"""The embedded server's data directory: where it is, and who holds it by locks on its files."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from scrapy.utils.conf import closest_scrapy_cfg

from spa5.mongo.errors import StoreError

if sys.platform == "linux":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from scrapy.settings import BaseSettings

OTHERWISE = "Choose another MONGO_DATA_DIR or set MONGO_URI."
POLL_SECONDS = 0.05


class MongodError(StoreError):
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
            f"The embedded MongoDB has no place at {directory} ({error}). {OTHERWISE}"
        ) from None


def is_used(directory: Path) -> bool:
    """True if an embedded server has ever stored anything there, or if that can't be seen."""
    try:
        return (directory / "WiredTiger").exists()
    except PermissionError:
        return True


def make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.stat().st_uid != os.geteuid():
        raise MongodError(f"{directory} belongs to another user. {OTHERWISE}")
    directory.chmod(0o700)


def lock(path: Path, *, is_shared: bool = False) -> int:
    """A descriptor that holds the lock, until it is closed; BlockingIOError where others do."""
    operation = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def is_locked(path: Path) -> bool:
    try:
        os.close(lock(path))
    except BlockingIOError:
        return True
    return False


@asynccontextmanager
async def locked(path: Path, seconds: float) -> AsyncIterator[None]:
    """Hold the lock; `MongodError` names the process that does not let go of it in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        try:
            descriptor = lock(path)
            break
        except BlockingIOError:  # a thread that waits in flock could not be cancelled
            if loop.time() > deadline:
                raise stuck(path, seconds, "to start or stop MongoDB") from None
            await asyncio.sleep(POLL_SECONDS)
    try:
        with suppress(OSError):  # a full disk: it is for people only
            os.pwrite(descriptor, b"%-20d" % os.getpid(), 0)
        yield
    finally:
        os.close(descriptor)


def owner(path: Path) -> str:
    """The number of the process that holds the lock, as it wrote it there."""
    return path.read_text(errors="replace").strip() or "unknown"


def stuck(path: Path, seconds: float, purpose: str) -> MongodError:
    pid = owner(path)
    return MongodError(
        f"Process {pid} has held {path} for {seconds:g} s, {purpose}: `kill -CONT {pid}` "
        f"continues it if it is paused, `kill -KILL {pid}` ends it. {OTHERWISE}"
    )
