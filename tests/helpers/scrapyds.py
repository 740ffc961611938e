"""A real scrapyd for the tests, with a password, and the project deployed to it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from itertools import chain
from queue import Empty, Queue
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING

import requests
from scrapyd_client import ScrapydClient

from tests.helpers.crawls import ROOT, Ended
from tests.helpers.embedded import kill, servers
from tests.helpers.mongods import reserved_port
from tests.helpers.running import MOST_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROJECT, USER, PASSWORD = "spa5", "crawler", "5ecret"
CONFIGURED = "http://localhost:6800/"  # in scrapy.cfg
CONF = f"""\
[scrapyd]
http_port = %d
username = {USER}
password = {PASSWORD}
max_proc = 2
poll_interval = 0.1
"""


class Scrapyd:
    """A running scrapyd, whose log tells what becomes of its jobs."""

    def __init__(self, folder: Path, port: int, process: subprocess.Popen[str]) -> None:
        self.folder = folder
        self.data = folder / ".local/share/spa5/mongodb"
        self.url = f"http://127.0.0.1:{port}"
        self.client = ScrapydClient(self.url, USER, PASSWORD)
        self.said: list[str] = []
        self._process = process
        self._lines: Queue[str] = Queue()
        self._reader = Thread(target=self._read)
        self._reader.start()

    def deploy(self, project: Path, home: Path) -> subprocess.CompletedProcess[str]:
        """Run scrapyd-deploy in a copy of the project, as a user with this home."""
        config = project / "scrapy.cfg"
        config.write_text(config.read_text().replace(CONFIGURED, f"{self.url}/"))
        return subprocess.run(
            [sys.executable, "-m", "scrapyd_client.deploy"],
            cwd=project,
            env={"PATH": os.environ["PATH"], "HOME": str(home)},
            capture_output=True,
            text=True,
        )

    def schedule(self, *settings: str, **arguments: str) -> str:
        """Schedule a crawl; return its job's id."""
        given = [("setting", one) for one in settings]
        job: str = self.client.schedule(PROJECT, "books", [*given, *arguments.items()])
        return job

    def cancel(self, job: str) -> None:
        assert self.client.cancel(PROJECT, job)["prevstate"] == "running"

    def end(self, job: str) -> Ended:
        """Wait for a job's end."""
        end = self.wait_for(rf"Process (?:finished|died: exitstatus=(\S+)).* job='{job}'")
        log = self.log(job)
        reason = re.search(r"Spider closed \((\w+)\)", log)
        return Ended(int(end[1] or 0), log, "", {"finish_reason": reason and reason[1]})

    def log(self, job: str) -> str:
        url = f"{self.url}/logs/{PROJECT}/books/{job}.log"
        return requests.get(url, auth=self.client.auth, timeout=MOST_SECONDS).text

    def wait_for_log(self, job: str, words: str) -> None:
        """Return when a job's log holds these words."""
        deadline = monotonic() + MOST_SECONDS
        while words not in (log := self.log(job)):
            assert monotonic() < deadline, log

    def listed(self, state: str) -> list[str]:
        """The ids of the jobs in this state."""
        return [job["id"] for job in self.client.jobs(PROJECT)[state]]

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Return when scrapyd has logged a line that matches."""
        for line in chain(self.said, iter(self._next_line, "")):
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"it has not said {pattern!r}:\n{''.join(self.said)}")

    def kill(self) -> None:
        """End it and its jobs, which would go on without it."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._reader.join()

    def _next_line(self) -> str:
        """What it says next; nothing at its end, or after a long time."""
        with suppress(Empty):
            self.said.append(self._lines.get(timeout=MOST_SECONDS))
            return self.said[-1]
        return ""

    def _read(self) -> None:
        """Read all the time: scrapyd would wait for ever to write into a pipe that is full."""
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")


@contextmanager
def running_scrapyd(folder: Path, **environment: str) -> Iterator[Scrapyd]:
    """One whose jobs know nothing but this environment; `folder` is its user's home, too."""
    with reserved_port() as port:
        (folder / "scrapyd.conf").write_text(CONF % port)
        netrc = folder / ".netrc"
        netrc.touch(mode=0o600)
        netrc.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
        with subprocess.Popen(
            [sys.executable, "-m", "scrapyd"],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            scrapyd = Scrapyd(folder, port, process)
            try:
                scrapyd.wait_for(f"Site starting on {port}")
                yield scrapyd
            finally:
                scrapyd.kill()
                for pid in servers(scrapyd.data):
                    kill(pid)


def copy_project(folder: Path) -> None:
    """What is deployed, for scrapyd-deploy leaves its work in the project's folder."""
    shutil.copytree(ROOT / PROJECT, folder / PROJECT, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("scrapy.cfg", "pyproject.toml", ".gitignore"):
        shutil.copy(ROOT / name, folder)
