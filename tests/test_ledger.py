"""Each crawl has a document from its first second on, and a complete one marks what is gone."""

from __future__ import annotations

import asyncio
import json
import os
import platform
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

import pytest
from bson import json_util
from bson.codec_options import CodecOptions
from pymongo import MongoClient
from scrapy.settings import Settings
from scrapy.utils.project import get_project_settings
from scrapy.utils.test import get_crawler

from spa5.catalogue.item import schema_of
from spa5.items import Book
from spa5.mongo.census import fill_rates
from spa5.mongo.crawls import update
from spa5.mongo.status import status
from spa5.mongo.store import Store
from spa5.pipelines import MongoPipeline
from tests.helpers.endings import answer, assert_is_finished, assert_is_incomplete
from tests.helpers.mongods import PASSWORD
from tests.helpers.running import crawling
from tests.helpers.stored import DETAILS
from tests.standin.site import RunningSite as Site
from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.databases import Database

BOOKS = 60
AWARE: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)


@pytest.fixture
def site() -> Iterator[Site]:
    with running_site(BOOKS) as site:
        yield site


def now() -> datetime:
    return datetime.now(timezone.utc)


def crawls(database: Database) -> list[dict[str, Any]]:
    """The documents of the ledger, oldest first."""
    ledger = database.books.database.get_collection("crawls", codec_options=AWARE)
    return list(ledger.find(sort=[("began", 1)]))


def delisted(database: Database) -> set[str]:
    return {one for one, book in database.stored().items() if "delisted_at" in book}


def test_a_crawl_is_written_down_while_it_runs_and_when_it_has_ended(
    site: Site, database: Database
) -> None:
    failing = site.catalogue.ids[:3]
    answer(site, failing, "nonsense", status=500)
    site.control(hold={"paths": DETAILS, "first": 20})
    began, environment = now() - timedelta(milliseconds=1), database.environment
    arguments = ("-a", "page_size=50", "-s", "RETRY_TIMES=1")
    with crawling(site.url, *arguments, MAX_SWEEPS="1", **environment) as running:
        running.wait_for_details(site, 20)
        (crawl,) = crawls(database)
        assert status(crawl, now()) == "running"
        assert "ended" not in crawl
        pid = running.process.pid
        site.control(hold=None)
        ended = running.end()
    assert_is_incomplete(ended, missing=3)
    (crawl,) = crawls(database)
    assert (crawl["_id"][:9], len(crawl["_id"])) == (f"{crawl['began']:%Y%m%d-}", 22)
    assert (crawl["spider"], crawl["site"], crawl["collection"]) == ("books", site.url, "books")
    assert (crawl["whole"], crawl["arguments"]) == (True, {"page_size": "50"})
    assert (crawl["settings"]["MAX_SWEEPS"], crawl["settings"]["CONCURRENT_REQUESTS"]) == (1, 5)
    assert crawl["versions"].keys() >= {"python", "scrapy", "motor", "mongodb"}
    assert (crawl["host"], crawl["reason"], crawl["exit_code"]) == (
        *(platform.node(), "incomplete", 1),
    )
    assert began < crawl["began"] < crawl["ended"] <= crawl["alive_at"] <= now()
    counts = crawl["counts"]
    names = ("listed", "expected", "new", "changed", "missing", "failed", "sweeps")
    assert [counts[name] for name in names] == [BOOKS, BOOKS, BOOKS - 3, 0, 3, 3, 1]
    assert counts["requests"] == ended.stats["downloader/request_count"]
    assert counts["bytes"] == ended.stats["downloader/response_bytes"]
    assert [one["id"] for one in crawl["unresolved"]] == unordered(failing, crawl["unresolved"])
    assert {(one["outcome"], one["reason"]) for one in crawl["unresolved"]} == {
        ("failed", "status 500")
    }
    said = [one["said"] for one in crawl["errors"]]
    assert len(said) == 4
    assert all("status 500" in one for one in said)
    stored = database.stored().values()
    publishers = sum(1 for book in stored if book["publisher"]) / len(stored)
    assert crawl["fill"]["publisher"] == pytest.approx(publishers)
    assert crawl["fill"].keys() == next(iter(stored)).keys() - NOT_FILLED
    assert [worker["pid"] for worker in crawl["workers"].values()] == [pid]
    assert {book["crawl"] for book in stored} == {crawl["_id"]}


NOT_FILLED = {
    *("_id", "id", "extra", "crawl"),
    *("first_crawled_at", "crawled_at", "changed_at", "listed_at"),
}


def unordered(ids: list[str], unresolved: list[dict[str, Any]]) -> list[str]:
    """The ids in the order of the document, if they are the same."""
    return sorted(ids, key=[one["id"] for one in unresolved].index)


def test_a_crawl_gives_a_sign_of_life_with_its_counts_so_far(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spa5.mongo.ledger.BEAT_SECONDS", 0.01)
    crawler = get_crawler(settings_dict={"MONGO_COLLECTION": "books", **database.environment})
    pipeline = MongoPipeline.from_crawler(crawler)

    async def seen(new: int, after: datetime) -> dict[str, Any]:
        while True:
            (crawl,) = crawls(database)
            if crawl["counts"]["new"] == new and crawl["alive_at"] > after:
                return crawl
            await asyncio.sleep(0)

    async def main() -> None:
        await pipeline.open_spider()
        await pipeline.ledger.begin()
        first = await asyncio.wait_for(seen(0, now() - timedelta(days=1)), 60)
        crawler.stats.set_value("mongo/inserted", 7)
        crawl = await asyncio.wait_for(seen(7, first["alive_at"]), 60)
        assert "ended" not in crawl
        await pipeline.ledger.end("shutdown")
        await pipeline.close_spider()

    asyncio.run(main())
    (crawl,) = crawls(database)
    assert (crawl["reason"], crawl["exit_code"], crawl["counts"]["new"]) == ("shutdown", 0, 7)


def test_a_killed_crawl_is_told_apart_from_one_that_runs(site: Site, database: Database) -> None:
    site.control(hold={"paths": DETAILS, "first": 20})
    with crawling(site.url, **database.environment) as running:
        running.wait_for_details(site, 20)
        assert status(crawls(database)[0], now()) == "running"
        assert status(crawls(database)[0], now() + timedelta(hours=1)) == "killed"
        running.process.kill()
        running.end()
    (crawl,) = crawls(database)
    assert status(crawl, now()) == "killed"
    site.control(hold=None, remove=site.catalogue.ids[:1])
    assert_is_finished(database.crawl(site.url))
    assert [status(one, now()) for one in crawls(database)] == ["killed", "finished"]


def test_a_complete_crawl_marks_what_is_listed_no_more_and_takes_marks_back(
    site: Site, database: Database
) -> None:
    gone = site.catalogue.ids[:2]
    answers = {"/api/book/?limit=100&offset=0": {"body": index(site, without=set(gone))}}
    assert_is_finished(database.crawl(site.url))
    site.control(override=answers, count=BOOKS - 2)
    for arguments in (("-a", "pages=1"), ("-a", f"ids={site.catalogue.ids[5]}")):
        assert database.crawl(site.url, *arguments).exitcode == 0
        assert delisted(database) == set()
    second = database.crawl(site.url)
    assert_is_finished(second)
    assert delisted(database) == set(gone)
    assert (second.stats["catalogue/delisted"], second.stats["catalogue/unlisted"]) == (2, 2)
    marked = {one: database.stored()[one] for one in gone}
    again = database.crawl(site.url, "-a", f"ids={gone[0]}", "-a", "refresh=all")
    assert again.stats["mongo/unchanged"] == 1
    asked = database.stored()[gone[0]]
    assert {name for name in asked if asked[name] != marked[gone[0]][name]} == {"crawled_at"}
    third = database.crawl(site.url)
    assert third.stats.get("catalogue/delisted") is None  # marked once
    assert {one: database.stored()[one]["delisted_at"] for one in gone} == {
        one: book["delisted_at"] for one, book in marked.items()
    }
    site.control(override=dict.fromkeys(answers), count=BOOKS)
    back = database.crawl(site.url, "-a", "pages=1")
    assert delisted(database) == set()
    assert back.stats["catalogue/returned"] == 2
    documents = crawls(database)
    assert [one["counts"].get("delisted", 0) for one in documents] == [0, 0, 0, 2, 0, 0, 0]
    assert sorted(documents[-1]["returned"]) == sorted(gone)


def index(site: Site, without: set[str]) -> str:
    catalogue = site.catalogue
    entries = [catalogue.summary(one) for one in catalogue.ids if one not in without]
    return json.dumps({"count": len(entries), "results": entries})


def test_a_crawl_of_some_pages_does_not_make_a_shrunken_catalogue_look_right(
    site: Site, database: Database
) -> None:
    assert_is_finished(database.crawl(site.url))
    some = database.crawl(site.url, "-a", "pages=1", "-a", "page_size=10")
    assert (some.exitcode, crawls(database)[-1]["counts"]["listed"]) == (0, 10)
    site.control(remove=site.catalogue.ids[20:])
    crawl = database.crawl(site.url)
    assert (crawl.exitcode, crawl.reason) == (1, "drift"), crawl.log
    assert f"the last complete crawl found {BOOKS}" in crawl.log


def test_what_an_incomplete_crawl_did_not_meet_is_not_marked(
    site: Site, database: Database
) -> None:
    assert_is_finished(database.crawl(site.url))
    site.control(remove=site.catalogue.ids[:2])
    answer(site, site.catalogue.ids[5:6], "nonsense", status=500)
    arguments = ("-a", "refresh=all", "-s", "RETRY_TIMES=0")
    assert_is_incomplete(database.crawl(site.url, *arguments, MAX_SWEEPS="1"), missing=1)
    assert delisted(database) == set()


def test_what_another_site_or_a_crawl_at_the_same_time_listed_is_not_marked(
    site: Site, database: Database
) -> None:
    """Nor what another program stored, or what a crawl stored that the ledger does not know."""
    with running_site(30, seed=2) as other:
        assert_is_finished(database.crawl(other.url))
    database.books.insert_many([{"id": "7"}, {"id": "8", "crawl": "20200101-000000-abcdef"}])
    assert_is_finished(database.crawl(site.url))
    gone = site.catalogue.ids[:2]
    site.control(remove=gone, hold={"paths": DETAILS, "first": 1})
    with crawling(site.url, "-a", "refresh=all", **database.environment) as running:
        running.wait_for_details(site, 1)
        site.control(hold=None, insert=1)
        assert_is_finished(database.crawl(site.url))
        assert delisted(database) == set(gone)
        stored = len(database.stored())
        assert_is_finished(running.end())
    assert delisted(database) == set(gone)  # and not what came after the longer one had walked
    assert len(database.stored()) == stored == 30 + 2 + BOOKS + 1


def test_a_ledger_that_can_not_be_written_fails_no_crawl(site: Site, guarded: str) -> None:
    uri = f"mongodb://writer:{quote_plus(PASSWORD)}@{guarded}/?authSource=admin"
    with MongoClient[dict[str, Any]](uri) as client:
        client.guarded.drop_collection("crawls")
        client.guarded.create_collection(
            "crawls", validator={"$jsonSchema": {"required": ["never"]}}
        )
        environment = {"MONGO_URI": uri, "MONGO_DATABASE": "guarded"}
        with crawling(site.url, **environment) as running:
            crawl = running.end()
        assert_is_finished(crawl)
        assert crawl.log.count("This crawl can't be noted in `crawls`") == 1
        assert client.guarded.crawls.count_documents({}) == 0
        client.guarded.drop_collection("crawls")
        with crawling(site.url, **environment) as running:
            assert_is_finished(running.end())
        assert quote_plus(PASSWORD) not in json_util.dumps(client.guarded.crawls.find_one())


@pytest.mark.parametrize("at_once", [7, 30, 1000])
def test_the_fill_rates_are_of_all_that_is_stored_however_it_is_read(
    database: Database, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr("spa5.mongo.census._AT_ONCE", at_once)
    books = [{"id": str(n), "name": "a" * (n % 2), "tags": [1] * (n % 3)} for n in range(30)]
    database.books.insert_many([*books, {"id": "30", "score": 0.0, "comments": []}])

    async def rates() -> dict[str, float]:
        settings = {**get_project_settings(), **database.environment}
        store = Store(Settings(settings), "books", schema_of(Book), lambda *_: None)
        await store.open()
        try:
            return await fill_rates(store)
        finally:
            await store.close()

    found = asyncio.run(rates())
    full = {"name": 15 / 31, "tags": 20 / 31, "score": 1 / 31}
    assert {name: found[name] for name in found if found[name]} == pytest.approx(full)
    assert found.keys() == schema_of(Book).names - {"extra"}


def note(database: Database, name: str, reason: str | None = None, **known: Any) -> dict[str, Any]:
    """Let a worker of a shared crawl write what it knows; return the document."""
    first = {"spider": "books", "began": name}
    whole = known.pop("whole", {})
    worker = {"alive_at": now(), "errors": [{"said": f"{name} $failed"}], "returned": [name]}
    worker |= {"counts": known, "outage_seconds": {"site": known.get("listed", 0)}}
    if reason:
        worker |= {"ended": now(), "reason": reason, "exit_code": 0, "settled": True}
    ledger = database.books.database["crawls"]
    ledger.update_one({"_id": "1"}, update(first, name, worker, whole), upsert=True)
    found = ledger.find_one({"_id": "1"})
    assert found
    return found


def test_workers_of_a_shared_crawl_stand_in_one_document(database: Database) -> None:
    note(database, "a", listed=10, new=3, requests=5)
    for _ in range(2):  # a write that is repeated counts once
        crawl = note(database, "b", new=4, requests=6)
    assert (crawl["spider"], crawl["began"]) == ("books", "a")
    assert {name: crawl["counts"][name] for name in ("listed", "new", "requests", "changed")} == {
        "listed": 10,
        "new": 7,
        "requests": 11,
        "changed": 0,
    }
    assert "missing" not in crawl["counts"]
    assert crawl["outage_seconds"]["site"] == 10
    assert [one["said"] for one in crawl["errors"]] == ["a $failed", "b $failed"]
    assert crawl["returned"] == ["a", "b"]
    crawl = note(database, "b", "shutdown", new=5)
    assert "ended" not in crawl  # the other one goes on
    assert crawl["settled"] is False
    crawl = note(database, "a", "shutdown", new=3)
    assert (crawl["reason"], crawl["counts"]["new"]) == ("shutdown", 8)
    assert crawl["settled"] is True


def test_a_shared_crawl_with_a_verdict_has_ended_though_a_worker_was_killed(
    database: Database,
) -> None:
    note(database, "a", new=3)
    over = {"ended": now(), "reason": "finished", "exit_code": 0, "fill": {"a": 0.5}}
    crawl = note(database, "b", "finished", new=3, whole=over)
    assert (crawl["reason"], crawl["fill"], crawl["settled"]) == ("finished", {"a": 0.5}, False)


def test_a_crawl_of_which_no_process_is_left_here_was_killed() -> None:
    here = {"host": platform.node(), "pid": os.getpid(), "alive_at": now()}
    gone = here | {"pid": int(Path("/proc/sys/kernel/pid_max").read_text()) + 1}
    for workers, expected in (
        ([here], "running"),
        ([here, gone], "running"),
        ([gone], "killed"),
        ([gone, gone | {"host": "elsewhere"}], "running"),
    ):
        crawl = {"alive_at": now(), "workers": {str(n): one for n, one in enumerate(workers)}}
        assert status(crawl, now()) == expected
