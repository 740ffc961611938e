"""What a crawl costs, in things that repeat exactly: a loss here is a loss of speed."""

from __future__ import annotations

import asyncio
import json
import os
import pstats
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from pymongo import MongoClient
from scrapy.http import JsonResponse
from scrapy.settings import Settings
from scrapy.utils.project import get_project_settings

from spa5.catalogue.answers import Answers
from spa5.catalogue.item import schema_of
from spa5.items import Book
from spa5.mongo.documents import Document
from spa5.mongo.history import History
from spa5.mongo.status import BEAT_SECONDS
from spa5.mongo.store import Store
from spa5.mongo.writer import Writer
from spa5.spiders.books import BooksSpider
from tests.helpers.crawls import ROOT
from tests.helpers.mongods import running_mongod
from tests.standin.books import Books
from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.helpers.crawls import Ended
    from tests.helpers.databases import Database

COMMANDS = ("find", "getMore", "insert", "update", "aggregate", "createIndexes")

# Else the server now and then reads and writes its own sessions, and counts that.
ALONE = ("--setParameter", "disableLogicalSessionCacheRefresh=true")


@pytest.fixture(scope="module")
def mongo_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that does what it is asked to and nothing else."""
    with running_mongod(tmp_path_factory.mktemp("alone"), *ALONE) as server:
        yield server.uri


@pytest.fixture(scope="module")
def mongo(mongo_uri: str) -> Iterator[MongoClient[dict[str, Any]]]:
    with MongoClient[dict[str, Any]](mongo_uri) as client:
        yield client


def commands(mongo: MongoClient[dict[str, Any]]) -> dict[str, int]:
    """How many of each command the server has seen so far."""
    total = mongo.admin.command("serverStatus")["metrics"]["commands"]
    return {name: total[name]["total"] for name in COMMANDS}


# What each crawl of a whole catalogue costs, however large that is.
ONCE = Counter(
    find=(
        1  # which crawls may have been killed in the middle of a write
        + 1  # which ones were over before this one
        + 1  # which of the listed items are held
        + 1  # how large the last complete crawl was
    ),
    aggregate=(
        1  # the collection as it is found
        + 1  # how many items it holds
        + 1  # how full their fields are
    ),
    update=(
        1  # may it be written
        + 2  # the crawl's document, when it begins and when it ends
    ),
    createIndexes=1,  # of the history
)


def without_beats(cost: dict[str, int], crawl: Ended) -> dict[str, int]:
    """Leave out the signs of life of a crawl, which are more on a slow machine."""
    beats = int(crawl.stats["elapsed_time_seconds"] // BEAT_SECONDS)
    return cost | {"update": cost["update"] - beats}


def spent(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: after[name] - before[name] for name in COMMANDS if after[name] != before[name]}


def test_a_first_crawl_costs_a_query_a_page_and_an_upsert_a_batch(
    mongo: MongoClient[dict[str, Any]], database: Database
) -> None:
    with running_site(250) as site:
        before = commands(mongo)
        crawl = database.crawl(site.url)
        cost = spent(before, commands(mongo))
        assert site.stats()["requests"] == 253
    batches = crawl.stats["mongo/batches"]
    # The collection's own index is made.
    assert without_beats(cost, crawl) == ONCE + Counter(find=3, update=batches, createIndexes=1)
    assert batches <= 250
    assert crawl.stats["downloader/request_count"] == 254  # and robots.txt


def test_a_second_crawl_costs_a_query_and_an_update_a_page(
    mongo: MongoClient[dict[str, Any]], database: Database
) -> None:
    with running_site(250) as site:
        database.crawl(site.url)
        site.reset()
        before = commands(mongo)
        crawl = database.crawl(site.url)
        cost = spent(before, commands(mongo))
        assert site.stats()["requests"] == 3
    assert without_beats(cost, crawl) == ONCE + Counter(find=3, update=3)


def test_a_batch_that_waits_is_written_at_once(
    mongo: MongoClient[dict[str, Any]], database: Database
) -> None:
    """Of new books in one upsert; of stored ones in one query and one update.

    What changes replace goes into the history in one more write; unchanged books cost nothing more.
    """
    catalogue = Books(300)
    keys = [*catalogue.ids]

    async def write() -> list[dict[str, int]]:
        settings = {**get_project_settings(), "MONGO_URI": database.uri}
        settings |= {"MONGO_DATABASE": database.name}
        store = Store(Settings(settings), "books", schema_of(Book), lambda stat, by: None)
        await store.open()
        history = History(store, None)
        await history.open()
        writer = Writer(store, history)
        try:
            costs = []
            for edited in ([], [], [], keys, keys[:10], []):
                catalogue.edit_hidden(edited)
                books = [vars(Book.from_api(catalogue.detail(one))) for one in keys]
                documents = [Document.from_item(book, schema_of(Book)) for book in books]
                before = commands(mongo)
                await writer.write(documents)
                costs.append(spent(before, commands(mongo)))
            return costs
        finally:
            await store.close()

    first, second, third, *changed, again = asyncio.run(write())
    assert first == {"update": 1}
    assert second == {"find": 1, "update": 2}  # it expects new ones
    assert third == again == {"find": 1, "update": 1}
    assert changed == [{"find": 1, "update": 1 + 1}] * 2
    assert database.books.database["books_history"].count_documents({}) == 300 + 10


def test_a_crawl_imports_no_second_http_client(database: Database) -> None:
    """Twisted's, with its TLS; that took a fifth of the time from start to first request."""
    with running_site(3) as site:
        crawl = database.crawl(site.url, PYTHONPROFILEIMPORTTIME="1")
    assert crawl.exitcode == 0
    imported = {line.rpartition("|")[2].strip() for line in crawl.log.splitlines()}
    assert "aiohttp.client" in imported
    assert "scrapy.core.downloader.contextfactory" not in imported


def test_a_book_costs_no_more_calls_of_functions_than_it_did(
    database: Database, tmp_path: Path
) -> None:
    """Calls of Python's and of C's functions: 3,300 to 3,460 a book, more where the machine is busy
    and batches are small, of which 1,440 are Scrapy's engine alone, and 810,000 for the start.
    """
    few, many = (calls(books, database, tmp_path / str(books)) for books in (100, 300))
    a_book = (many - few) / 200
    assert a_book < 3_600
    assert few - 100 * a_book < 900_000


def calls(books: int, database: Database, profile: Path) -> int:
    """How many functions a crawl of so many books calls."""
    command = [
        sys.executable,
        "-m",
        "cProfile",
        "-o",
        str(profile),
        "-m",
        "scrapy",
        "crawl",
        "books",
    ]
    with running_site(books) as site:
        environment = os.environ | database.environment | {"SITE_URL": site.url}
        subprocess.run(command, cwd=ROOT, env=environment, check=True, stderr=subprocess.DEVNULL)
    database.books.drop()
    return int(vars(pstats.Stats(str(profile)))["total_calls"])


def test_a_response_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the middleware that judges it; the spider finds it decoded."""
    calls = []
    loads = json.loads

    def counted(text: str) -> Any:
        calls.append(text)
        return loads(text)

    monkeypatch.setattr(json, "loads", counted)
    response = JsonResponse("http://x/api/book/1/", body=b'{"id": "1"}')
    answers = Answers(BooksSpider())
    assert answers.flaw(response, {"key": "1"}) is None
    assert answers.detail(response, {"key": "1"}) == {"id": "1"}
    assert len(calls) == 1


def test_a_response_starts_one_worker_and_passes_what_has_work_to_do() -> None:
    settings = get_project_settings()
    assert settings.getint("CONCURRENT_ITEMS") == 1
    on = settings.get_component_priority_dict_with_base("SPIDER_MIDDLEWARES")
    names = {str(name).rpartition(".")[2] for name, order in on.items() if order is not None}
    assert names == {"HttpErrorMiddleware", "SkipStored", "Sweeps"}
    on = settings.get_component_priority_dict_with_base("DOWNLOADER_MIDDLEWARES")
    # HttpCacheMiddleware and Authorization among them, which are off where they are not needed.
    assert sum(order is not None for order in on.values()) == 12
