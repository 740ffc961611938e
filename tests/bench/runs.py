"""Crawls and scripts, each a process of its own, into fresh databases of one mongod."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pymongo import MongoClient

from spa5.mongo.server import EmbeddedServer
from tests.helpers.crawls import OWN, ROOT, STATS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.standin.site import RunningSite

T = TypeVar("T")
CHILD = Path(__file__).with_name("child.py")


@dataclass
class Run:
    """What a process took: seconds of time and of CPU, bytes of memory at its peak."""

    wall: float
    cpu: float
    peak: float
    exitcode: int
    stats: dict[str, Any] = field(default_factory=dict)  # Scrapy's

    @property
    def elapsed(self) -> float:
        """Seconds from the spider's opening to its closing, as Scrapy counts them."""
        return float(self.stats["elapsed_time_seconds"])


class Mongo:
    """A mongod of the bench's own, and what runs into it."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.client: MongoClient[dict[str, Any]] = MongoClient(uri)
        self._number = itertools.count(1)

    @contextmanager
    def database(self) -> Iterator[str]:
        """The name of an empty database, which is dropped in the end."""
        name = f"bench{next(self._number)}"
        yield name
        self.client.drop_database(name)

    def crawl(self, site: RunningSite, database: str, in_flight: int, *options: str) -> Run:
        """Run `scrapy crawl books`; RuntimeError where it does not leave all books."""
        command = ["-m", "scrapy", "crawl", "books", "-s", f"CONCURRENT_REQUESTS={in_flight}"]
        command += [*STATS, *options]
        with tempfile.NamedTemporaryFile() as stats:
            environment = self.environment(site.url, database) | {"TEST_STATS_FILE": stats.name}
            run = _run(command, environment)
            self._check(run, " ".join(("project", *options))[:30], site, database)
            run.stats = json.load(stats)
        return run

    def script(self, site: RunningSite, database: str, in_flight: int, *options: str) -> Run:
        """Run the plain script; RuntimeError where it does not leave all books."""
        command = ["-m", "tests.bench.script", f"--site={site.url}", f"--mongo={self.uri}"]
        command += [f"--database={database}", f"--in-flight={in_flight}", *options]
        run = _run(command, dict(os.environ))
        self._check(run, " ".join(("script", *options)), site, database)
        return run

    def environment(self, url: str, database: str) -> dict[str, str]:
        """Tells a crawl where the site is and where to store; without the user's own settings."""
        inherited = {name: value for name, value in os.environ.items() if name not in OWN}
        own = {"SITE_URL": url, "MONGO_URI": self.uri, "MONGO_DATABASE": database}
        return inherited | own

    def _check(self, run: Run, what: str, site: RunningSite, database: str) -> None:
        stored = self.client[database]["books"].estimated_document_count()
        if run.exitcode or stored != len(site.catalogue.ids):
            raise RuntimeError(f"{what}: {stored} books stored, exit code {run.exitcode}")
        print(f"{what}: {run.wall:.2f} s, {run.cpu:.2f} s of CPU", file=sys.stderr)


@contextmanager
def running_mongo() -> Iterator[Mongo]:
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedServer(Path(folder))
        asyncio.run(server.start())
        try:
            yield Mongo(server.uri)
        finally:
            asyncio.run(server.stop())


def engine_alone(requests: int) -> Run:
    """Have Scrapy's engine do that many requests, with nothing around it."""
    return _run(["-m", "tests.bench.engine", str(requests)], dict(os.environ))


def alternately(rounds: int, contenders: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Let each contender run once a round, in the reverse order in every other one."""
    results: dict[str, list[T]] = {name: [] for name in contenders}
    for one in range(rounds):
        for name in list(contenders)[:: -1 if one % 2 else 1]:
            results[name].append(contenders[name]())
    return results


def _run(command: list[str], environment: dict[str, str]) -> Run:
    """Run Python; show the end of what it said where it failed."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", CHILD, sys.executable, *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    run = Run(**json.loads(done.stdout))
    if run.exitcode:
        print(done.stderr[-3000:], file=sys.stderr)
    return run
