"""Crawler and mongod are killed while books change: no version is lost, and none is there twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.mongods import Mongod, running_mongod
from tests.helpers.proxy import running_proxy
from tests.helpers.running import Running, crawling, database_at
from tests.helpers.stored import as_stored, assert_holds_catalogue
from tests.helpers.versions import Versions
from tests.standin.site import RunningSite as Site
from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.databases import Database

BOOKS = 150
SEED = 15
# Of seconds: a slow server is no outage, and a crawl that starts needs time to find its server.
SHORT = "socketTimeoutMS=5000&serverSelectionTimeoutMS=5000&heartbeatFrequencyMS=500"
# All books from one index page, and in many small batches: few answers may wait to be stored.
ALL = ("-a", "refresh=all", "-a", "page_size=200", "-s", "SCRAPER_SLOT_MAX_ACTIVE_SIZE=40000")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    with running_mongod(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def site() -> Iterator[Site]:
    with running_site(BOOKS) as site:
        yield site


@pytest.fixture
def database(server: Mongod, site: Site) -> Iterator[Database]:
    """It holds the site's books as a crawl would have left them yesterday."""
    moment = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(days=1)
    names = ("first_crawled_at", "crawled_at", "changed_at", "listed_at")
    times: dict[str, Any] = {**dict.fromkeys(names, moment), "crawl": "yesterday's"}
    with database_at(server.uri) as database:
        database.books.insert_many(
            [as_stored(site.catalogue.detail(one)) | times for one in site.catalogue.ids]
        )
        yield replace(database, uri=f"{server.uri}?{SHORT}")


@pytest.fixture
def versions(database: Database, site: Site) -> Versions:
    versions = Versions(database, site.catalogue.detail)
    versions.known = versions.read()
    return versions


def edit(site: Site, **changes: list[str]) -> None:
    """Edit the books of the site, and of the catalogue that tells what it serves."""
    site.control(**changes)
    for name, keys in changes.items():
        getattr(site.catalogue, name)(keys)


class Killer:
    """Crawls in which something is killed, and how often that was."""

    def __init__(self, server: Mongod, site: Site, versions: Versions, database: Database) -> None:
        self.server = server
        self.site = site
        self.versions = versions
        self.database = database
        self.history = database.books.database["books_history"]
        self.random = Random(SEED)
        self.kills = 0

    def begin(self) -> None:
        """Before a crawl, which gets no book at first."""
        self.earlier = self.history.distinct("crawl")
        self.due = len(self.versions.behind()) - 1  # the last book is not let in
        self.site.control(hold={"paths": r"/book/\d"})
        self.site.reset()

    def kill_mongod(self, running: Running) -> None:
        """Kill it, start it again, and read what is stored before the crawl goes on."""
        with running.frozen():
            self.server.kill()
            self.server.start()
            self.versions.follow()
        self.kills += 1

    def kill_crawler(self, running: Running, *, with_mongod: bool = False) -> None:
        with running.frozen():
            if with_mongod:
                self.server.kill()
                self.kills += 1
            running.process.kill()
        running.end()
        self.kills += 1
        if with_mongod:
            self.server.start()
        self.server.fail_no_more()
        self.server.wait_for_crawls()
        self.versions.follow()

    def stop_between(self, running: Running) -> None:
        """Return when a batch is in the history, and its books can't be written.

        It is the first or the second one. Before them the crawl tries whether books are new.
        """
        running.wait_for_details(self.site, 1)
        name = self.database.books.full_name
        self.server.cut_off("update", name, passing=self.random.randint(1, 2))
        self.let_in_all_but_one()
        self.server.wait_until_cut_off()

    def let_in_all_but_one(self) -> None:
        """So that the crawl does not end before it is killed."""
        self.site.control(hold={"details": BOOKS - 1})

    def moments(self, running: Running, kills: int) -> Iterator[None]:
        """Yield so many times, at random: whenever the crawl has put so much into the history."""
        for most in sorted(self.random.sample(range(1, self.due), kills)):
            while self.history.count_documents({"crawl": {"$nin": self.earlier}}) < most:
                assert running.process.poll() is None, running.end().log
            yield


@pytest.fixture
def killer(server: Mongod, site: Site, versions: Versions, database: Database) -> Killer:
    return Killer(server, site, versions, database)


def test_no_kill_loses_or_doubles_a_version(
    killer: Killer, site: Site, versions: Versions, database: Database
) -> None:
    print(f"seed {SEED}")
    killed_between_history_and_books = 0
    for step in range(6):
        if goes_back := step % 3 == 2:
            edit_back_and_forth(killer, site)
        else:
            edit(site, edit_hidden=site.catalogue.ids)
        killer.begin()
        crawler_first = step % 3 == 1
        with crawling(site.url, *ALL, CONCURRENT_REQUESTS="16", **database.environment) as running:
            if goes_back:
                killer.let_in_all_but_one()
            else:
                killer.stop_between(running)
                (killer.kill_crawler if crawler_first else killer.kill_mongod)(running)
                killed_between_history_and_books += bool(versions.unreal)
            if not crawler_first:
                for _ in killer.moments(running, 3 if goes_back else 2):
                    killer.kill_mongod(running)
                killer.kill_crawler(running, with_mongod=goes_back)
    assert killer.kills >= 20
    assert killed_between_history_and_books == 4
    site.control(hold=None)
    crawl = database.crawl(site.url, *ALL)
    assert (crawl.exitcode, crawl.reason) == (0, "finished"), crawl.log
    versions.follow(is_complete=True)
    assert_holds_catalogue(database, site)


def edit_back_and_forth(killer: Killer, site: Site) -> None:
    """Of those versions that were being written, and of those that were, many are taken back."""
    keys = [*site.catalogue.ids]
    killer.random.shuffle(keys)
    edit(site, edit_back=keys[:75], edit_hidden=keys[75:120])


def test_a_batch_that_is_repeated_is_not_in_the_history_twice(
    server: Mongod, site: Site, versions: Versions, database: Database
) -> None:
    """MongoDB has written it, and the answer is lost: the history's, then that of the books."""
    edit(site, edit_hidden=site.catalogue.ids)
    site.control(hold={"paths": r"/book/\d"})
    with running_proxy(server.port) as proxy:
        through = replace(database, uri=f"{proxy.uri}?{SHORT}")
        with crawling(site.url, *ALL, **through.environment) as running:
            running.wait_for_details(site, 1)
            for collection in ("books_history", "books"):
                proxy.break_off("update", "reply", times=2, collection=collection)
                site.control(hold={"details": BOOKS - 1})
                proxy.wait_until_broken()
                proxy.wait_until_broken()
            site.control(hold=None)
            crawl = running.end()
    assert (crawl.exitcode, crawl.reason) == (0, "finished"), crawl.log
    assert (crawl.stats["mongo/changed"], crawl.stats["mongo/retries"]) == (BOOKS, 4)
    versions.follow(is_complete=True)
    assert [len(one) for one in versions.known.values()] == [2] * BOOKS
    assert database.books.database["books_history"].count_documents({}) == BOOKS
