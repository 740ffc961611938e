"""A crawl in the background, its log read as it comes, and what has to be true at the end."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import signal
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bson.codec_options import CodecOptions
from pymongo import MongoClient

from spa5.mongo.server import EmbeddedServer
from tests.helpers.crawls import STATS, Ended, scrapy
from tests.helpers.databases import Database
from tests.helpers.stored import as_stored, assert_holds_catalogue, content

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.standin.site import RunningSite as Site

OPENED, AWAY, BACK = "Spider opened", "is away (", "MongoDB is back after"
MOST_SECONDS = 600  # then a crawl hangs: it is killed, and the test shows its log


_number = itertools.count(1)


class Running:
    """`scrapy crawl` while it runs."""

    def __init__(self, process: subprocess.Popen[str], stats_file: Path) -> None:
        self.process = process
        self._stats_file = stats_file
        self._log: list[str] = []

    def wait_for(self, words: str) -> None:
        """Return when the crawl has logged a line with these words."""
        for line in self._lines():
            if words in line:
                return
        raise AssertionError(f"it ended without saying {words!r}:\n{''.join(self._log)}")

    def wait_for_details(self, site: Site, most: int) -> None:
        """Return when the site was asked for that many details."""
        if not any(OPENED in line for line in self._log):
            self.wait_for(OPENED)
        while site.stats()["detail"] < most:
            assert self.process.poll() is None, f"it has ended:\n{self.end().log}"

    @contextmanager
    def midway(self, site: Site, details: int) -> Iterator[None]:
        """In mid-crawl, after so many details: the site answers no more of them in the block."""
        site.control(hold={"paths": r"/book/\d", "first": details})
        self.wait_for_details(site, details)
        yield
        site.control(hold=None)

    def end(self) -> Ended:
        """Wait for the end."""
        for _ in self._lines():
            pass
        self.process.wait()
        stats = json.loads(self._stats_file.read_text()) if self._stats_file.exists() else {}
        return Ended(self.process.returncode, "".join(self._log), "", stats)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Keep it from going on while something is being broken."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def measure(self) -> int:
        """Its peak memory so far, in megabytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        peak = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert peak, "it has ended"
        return int(peak[1]) // 1024

    def _lines(self) -> Iterator[str]:
        assert self.process.stderr
        for line in self.process.stderr:
            self._log.append(line)
            yield line


@contextmanager
def crawling(site: str, *args: str, spider: str = "books", **environment: str) -> Iterator[Running]:
    with tempfile.TemporaryDirectory() as folder:
        stats_file = Path(folder, "stats.json")
        environment |= {"SITE_URL": site, "TEST_STATS_FILE": str(stats_file)}
        with scrapy("crawl", spider, *STATS, *args, **environment) as process:
            watchdog = threading.Timer(MOST_SECONDS, process.kill)
            watchdog.start()
            try:
                yield Running(process, stats_file)
            finally:
                watchdog.cancel()


def assert_is_complete(crawl: Ended, database: Database, site: Site) -> None:
    """It ended well, everything is stored and was counted once, no book was fetched twice."""
    assert (crawl.exitcode, crawl.reason) == (0, "finished"), crawl.log
    assert_holds_catalogue(database, site)
    books = len(site.catalogue.ids)
    asked = site.stats()
    assert (asked["detail"], asked["repeats"]) == (books, 0), crawl.log
    names = ("mongo/inserted", "item_scraped_count", "mongo/changed", "mongo/unchanged")
    assert [crawl.stats.get(name, 0) for name in names] == [books, books, 0, 0], crawl.log
    assert (crawl.stats["catalogue/missing"], crawl.stats["catalogue/sweeps"]) == (0, 1)
    assert_is_calm(crawl)


def assert_is_calm(crawl: Ended) -> None:
    assert "Traceback" not in crawl.log
    assert crawl.log.count("never retrieved") == 0
    assert max(map(len, crawl.log.splitlines())) < 700


def assert_was_away_once(crawl: Ended) -> None:
    """The log tells of one outage and its end, and the stats tell what it cost."""
    assert_is_back(crawl, most_outages=1)


def assert_is_back(crawl: Ended, most_outages: int) -> None:
    """The log tells of outages and of the end of each, and the stats tell what they cost."""
    assert 1 <= crawl.log.count(AWAY) <= most_outages, crawl.log
    assert crawl.log.count(BACK) == crawl.log.count(AWAY), crawl.log
    assert crawl.stats["mongo/retries"] > 0
    assert crawl.stats["mongo/outage_seconds"] > 0


def assert_holds_no_half_book(database: Database, site: Site) -> int:
    """What is stored is right, and none of it twice; return how many books it is."""
    stored = database.stored()
    assert len(stored) == database.books.count_documents({})
    for book_id, document in stored.items():
        assert content(document) == as_stored(site.catalogue.detail(book_id))
    return len(stored)


def assert_next_run_does_the_rest(database: Database, site: Site) -> None:
    held = assert_holds_no_half_book(database, site)
    site.reset()
    crawl = database.crawl(site.url)
    assert (crawl.exitcode, crawl.reason) == (0, "finished")
    assert_holds_catalogue(database, site)
    left = len(site.catalogue.ids) - held
    assert crawl.stats.get("mongo/inserted", 0) == site.stats()["detail"] == left
    assert site.stats()["repeats"] == 0


@contextmanager
def database_at(uri: str, name: str = "") -> Iterator[Database]:
    """A database, by default a new one, on a server that may go away meanwhile."""
    name = name or f"faults{next(_number)}"
    with MongoClient[dict[str, Any]](uri) as client:
        books = client[name].get_collection("books", codec_options=CodecOptions(tz_aware=True))
        yield Database(uri, name, books)


@contextmanager
def embedded_database(folder: Path) -> Iterator[Database]:
    """What an embedded server's files hold."""
    server = EmbeddedServer(folder)
    asyncio.run(server.start())
    try:
        with database_at(server.uri, "books") as database:
            yield database
    finally:
        assert asyncio.run(server.stop())  # nobody else uses it
