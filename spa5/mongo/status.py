"""Status: whether a crawl runs, was killed, or how it ended, as its document tells."""

from __future__ import annotations

import os
import platform
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

BEAT_SECONDS = 10.0
_ALIVE = timedelta(seconds=3 * BEAT_SECONDS)


def status(crawl: Mapping[str, Any], moment: datetime) -> str:
    """Return how a crawl ended: its reason, or `running` or `killed` where it has not."""
    if crawl.get("ended") is not None:
        return str(crawl.get("reason", "unknown"))
    alive_at = crawl.get("alive_at")
    is_alive = isinstance(alive_at, datetime) and moment - alive_at < _ALIVE
    return "running" if is_alive and not _has_died_here(crawl) else "killed"


def this_process() -> dict[str, Any]:
    """Return what a document says of a process, so that it is known when that is gone."""
    return {"host": platform.node(), "pid": os.getpid(), "pid_space": pid_space()}


def pid_space() -> int | None:
    """The namespace in which this process has its number; containers have one each."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return None


def _has_died_here(crawl: Mapping[str, Any]) -> bool:
    """True if all the crawl's processes ran on this machine, and none of them exists any more."""
    workers = crawl.get("workers") or {"": crawl}
    return all(_is_gone(one) for one in workers.values())


def _is_gone(process: Mapping[str, Any]) -> bool:
    if process.get("ended") is not None:
        return True
    space = pid_space()
    is_here = process.get("host") == platform.node() and process.get("pid_space", space) == space
    pid = process.get("pid")
    if sys.platform == "win32" or not is_here or not isinstance(pid, int) or pid < 1:
        return False  # it can't be known; on Windows the question itself would end the process
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False
