"""Starts `python -W error -m MODULE …` without its imports, most of what a short command costs.

A template that has imported libraries, but nothing of this project, forks a process for each
command. Like any other it has a pid, streams, an environment, an exit code, and Python's own end.
What Python reads as it starts (PYTHON…, LANG) is the template's: for another one start it anew.
"""

from __future__ import annotations

import atexit
import fcntl
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = """
    aiohttp.web motor.motor_asyncio packaging.requirements redis.asyncio rich.table tldextract
    scrapy.commands.bench scrapy.commands.check scrapy.commands.genspider scrapy.commands.parse
    scrapy.core.downloader.handlers._aiohttp scrapy.core.scraper scrapy.extensions.feedexport
    scrapy.downloadermiddlewares.cookies scrapy.downloadermiddlewares.httpcache
    scrapy.downloadermiddlewares.httpcompression scrapy.downloadermiddlewares.robotstxt
    scrapy.extensions.telnet scrapy.spidermiddlewares.httperror scrapy.spidermiddlewares.referer
    scrapy.squeues tqdm
"""


class Warm(subprocess.Popen[str]):
    """A process that the template forks; its arguments are a module's name and what follows it."""

    def _execute_child(self, args: Any, *given: Any) -> None:
        """Popen has opened the streams, and would start a program now."""
        request = {"args": args, "folder": str(given[4]), "session": given[20]}
        request["environment"] = given[5] or dict(os.environ)
        streams = given[9:15]
        fds = [n if fd == -1 else fd for n, fd in enumerate((streams[0], streams[3], streams[5]))]
        self.pid = template().ask(request, fds)
        self._child_created = True
        self._end = os.pidfd_open(self.pid)
        self._close_pipe_fds(*streams)  # type: ignore[attr-defined]

    def _try_wait(self, flags: int) -> tuple[int, int]:
        """Like os.waitpid, but the template alone can ask for its children."""
        if not select.select([self._end], [], [], 0 if flags & os.WNOHANG else None)[0]:
            return 0, 0
        os.close(self._end)
        return self.pid, template().ask({"wait_for": self.pid, "flags": 0})

    def wait_for_stop(self) -> None:
        """Return when a signal has stopped it."""
        template().ask({"wait_for": self.pid, "flags": os.WUNTRACED})

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(timeout=0)
        return self.returncode


class Template:
    """The process that forks; it ends with the tests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-W", "error", "-m", __name__, str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()])
        atexit.register(self.end)

    def ask(self, request: dict[str, Any], fds: list[int] | None = None) -> int:
        """A new process's pid, or the status of one that has ended."""
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], fds or [])
            return int(self._socket.recv(64))

    def end(self) -> None:
        self._socket.close()
        self._process.wait()


template = functools.cache(Template)


def serve(server: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork when asked to; returns in each new process what it shall become."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for pytest, which ends this
    while True:
        message, fds, *_ = socket.recv_fds(server, 1 << 20, 3)
        if not message:
            sys.exit()
        request = json.loads(message)
        if "wait_for" in request:
            answer = os.waitpid(request["wait_for"], request["flags"])[1]
        elif not (answer := os.fork()):
            signal.signal(signal.SIGINT, handler)
            return request, fds
        for fd in fds:
            os.close(fd)
        server.send(str(answer).encode())


def become(request: dict[str, Any], fds: list[int]) -> None:
    """Take over what Python takes over as it starts, and run the module."""
    if request["session"]:
        os.setsid()
    for number, (name, fd) in enumerate(zip(("stdin", "stdout", "stderr"), fds, strict=True)):
        os.dup2(fd, number)
        os.close(fd)
        old, mode = getattr(sys, name), "w" if number else "r"
        buffering = 1 if name == "stderr" else -1
        stream = open(number, mode, buffering, old.encoding, old.errors, "\n", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    if request["session"] and os.isatty(0):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    os.chdir(request["folder"])
    sys.argv, sys.path[0] = request["args"], request["folder"]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for library in LIBRARIES.split():
        importlib.import_module(library)
    gc.freeze()  # a collection would copy the pages of all that it looks at
    with socket.socket(fileno=int(sys.argv[1])) as server:
        begun = serve(server)
    become(*begun)
