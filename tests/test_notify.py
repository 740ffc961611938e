"""NOTIFY_URLS: who is told what of a crawl's end, by a real HTTP receiver."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from scrapy.exceptions import NotConfigured
from scrapy.settings import Settings
from scrapy.utils.test import get_crawler

from spa5.screen import notify, send
from spa5.screen.message import message_about
from spa5.spiders.books import BooksSpider
from tests.helpers.crawls import run
from tests.helpers.receivers import SECRET, receiving
from tests.helpers.running import crawling
from tests.standin.site import running_site

if TYPE_CHECKING:
    from tests.helpers.databases import Database

NOW = datetime(2026, 11, 25, 17, 0, tzinfo=timezone.utc)
NOWHERE = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200"


def ended(reason: str, hours_ago: float, **more: Any) -> dict[str, Any]:
    """The document of a crawl."""
    began = NOW - timedelta(hours=hours_ago)
    return {
        "_id": f"{began:%Y%m%d-%H%M%S}-0a1b2c",
        "spider": "books",
        "site": "https://site.test",
        "whole": True,
        "began": began,
        "ended": began + timedelta(minutes=5, seconds=3),
        "reason": reason,
        "exit_code": int(reason not in ("finished", "shutdown", "closespider_timeout")),
        "counts": {"listed": 9040, "expected": 9040, "new": 3},
        **more,
    }


def killed(hours_ago: float) -> dict[str, Any]:
    crawl = ended("", hours_ago)
    del crawl["ended"], crawl["reason"], crawl["exit_code"]
    return crawl | {"alive_at": crawl["began"] + timedelta(minutes=1)}


def title(crawl: dict[str, Any], *before: dict[str, Any]) -> Any:
    message = message_about(crawl, list(before), NOW)
    return message and message["title"]


def test_a_crawl_that_is_not_complete_is_told_each_time() -> None:
    counts = {"listed": 9040, "expected": 9040, "missing": 12}
    crawl = ended("incomplete", 1, counts=counts)
    assert title(crawl) == "books: incomplete, 12 of 9040 missing"
    assert title(crawl, ended("incomplete", 25)) == "books: incomplete, 12 of 9040 missing"
    assert title(ended("drift", 1), ended("finished", 25)) == "books: drift"
    assert title(ended("finished", 1, exit_code=1)) == "books: incomplete"
    assert title(ended("incomplete", 1, whole=False)) == "books: incomplete"


def test_a_complete_crawl_is_told_only_after_one_that_was_not() -> None:
    again, good = "books: complete again", ended("finished", 1)
    assert title(good) is None
    assert title(good, ended("finished", 25), ended("incomplete", 49)) is None
    assert title(good, ended("incomplete", 25)) == again
    assert title(good, killed(25)) == again
    # What says nothing of the whole catalogue, or of this one, is passed over.
    passed_over = [
        ended("finished", 3, whole=False),
        ended("restored", 4),
        ended("finished", 5, site="https://other.test"),
        killed(6) | {"alive_at": NOW},  # it runs
    ]
    for one in passed_over:
        assert title(good, one, ended("incomplete", 25)) == again
        assert title(good, one, ended("finished", 25)) is None
    assert title(good, ended("incomplete", 25, site="https://other.test")) is None
    assert title(ended("finished", 1, whole=False), ended("incomplete", 25)) is None


@pytest.mark.parametrize("reason", ["shutdown", "closespider_timeout"])
def test_a_crawl_that_was_stopped_or_limited_is_not_complete(reason: str) -> None:
    """By the machine's end or a time limit at night, for instance."""
    assert title(ended(reason, 1), ended("finished", 25)) == f"books: {reason}"
    assert title(ended("finished", 1), ended(reason, 25)) == "books: complete again"


def test_a_message_holds_the_last_crawls_and_the_first_errors() -> None:
    errors = [{"at": NOW, "said": f"book {number} \x1b[31m\ud800failed"} for number in range(9)]
    crawl = ended("incomplete", 1, errors=errors, counts={"listed": 9040, "failed": 12})
    old = {"_id": 1, "spider": "books", "ended": NOW, "reason": "finished", "listed": 5}
    message = message_about(crawl, [killed(25), old], NOW)
    assert message
    lines = message["body"].splitlines()
    assert lines[0].endswith(
        " incomplete after 5m03s: 9040 listed, 12 failed (20261125-160000-0a1b2c)"
    )
    assert lines[1].endswith(" killed after 1m00s: 9040 listed, 3 new (20261124-160000-0a1b2c)")
    assert lines[2].endswith(" finished: 5 listed (1)")
    assert lines[3] == ""
    assert lines[4:] == [rf"- book {number} \x1b[31m\ud800failed" for number in range(5)]
    assert message["notify_type"] == "failure"


def test_an_incomplete_crawl_is_told_and_no_secret_reaches_the_log(database: Database) -> None:
    with running_site(5) as site, receiving() as receiver:
        one = site.catalogue.ids[0]
        site.control(override={f"/api/book/{one}/": {"status": 403}})
        urls = [receiver.url, f"json://me:{SECRET}@127.0.0.1:1/{SECRET}", f"nope://{SECRET}"]
        environment = database.environment | {"NOTIFY_URLS": f"{urls[0]}, {urls[1]}\n{urls[2]}"}
        given = ("-s", "MAX_SWEEPS=1", "-s", "LOG_LEVEL=DEBUG")
        with crawling(site.url, *given, **environment) as running:
            running.wait_for("NOTIFY_URLS: Apprise can't use URL 3 (nope://)")
            crawl = running.end()
    assert (crawl.exitcode, crawl.reason) == (1, "incomplete")
    (message,) = receiver.messages
    assert message["title"] == "books: incomplete, 1 of 5 missing"
    assert message["type"] == "failure"
    assert " incomplete after " in message["message"]
    assert "5 listed, 4 new" in message["message"]
    assert crawl.log.count("no message reached URL 2 (json://)") == 1
    assert "NOTIFY_URLS: a message reached 1 of 3" in crawl.log
    assert crawl.log.count("NOTIFY_URLS: ") == 3
    (noted,) = database.books.database["crawls"].find()
    assert SECRET not in crawl.log + json.dumps([crawl.stats, noted], default=str)
    assert "Traceback" not in crawl.log


def test_a_crawl_without_mongodb_is_told_once() -> None:
    with receiving() as receiver:
        crawl = run("crawl", "books", MONGO_URI=NOWHERE, NOTIFY_URLS=receiver.url)
    assert crawl.exitcode == 1
    (message,) = receiver.messages
    assert message["title"] == "books: mongo_unavailable"
    assert "no MongoDB answers at 127.0.0.1:1" in message["message"]
    assert "Traceback" not in crawl.log


def test_a_complete_crawl_is_told_once_after_one_that_was_not(database: Database) -> None:
    with running_site(3) as site, receiving() as receiver:
        before = ended("incomplete", 24, site=site.url)
        database.books.database["crawls"].insert_one(before)
        for _ in range(2):
            assert database.crawl(site.url, NOTIFY_URLS=receiver.url).exitcode == 0
    (message,) = receiver.messages
    assert message["title"] == "books: complete again"
    assert message["type"] == "success"
    own, other = message["message"].splitlines()
    assert " finished after " in own
    assert ": 3 listed, 3 new (" in own
    assert " incomplete after 5m03s: 9040 listed, 3 new (" in other


def test_a_receiver_that_does_not_answer_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "MOST_SECONDS", 3)
    hold = threading.Event()
    with receiving(hold) as receiver:
        try:
            sent = asyncio.run(notify.run([f"{receiver.url}?rto=600"], {"body": "too late"}))
        finally:
            hold.set()
    assert sent == {}


def test_each_url_is_told_whatever_becomes_of_the_others() -> None:
    with receiving() as receiver:
        urls = ["nope://x", receiver.url, "json://127.0.0.1:1/"]
        outcomes = asyncio.run(notify.run(urls, {"title": "三体", "body": "🙂"}))
    assert outcomes == {0: send.WRONG, 1: send.SENT, 2: send.FAILED}
    assert [one["title"] for one in receiver.messages] == ["三体"]


def test_without_apprise_one_line_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    settings = {"NOTIFY_URLS": f"json://{SECRET}"}
    with pytest.raises(NotConfigured), caplog.at_level(logging.WARNING):
        notify.Notify(get_crawler(BooksSpider, settings))
    (record,) = caplog.records
    assert "pip install apprise" in record.getMessage()
    assert SECRET not in record.getMessage()


@pytest.mark.parametrize(
    ("given", "urls"),
    [
        (None, []),
        (" \n", []),
        ("json://a", ["json://a"]),
        ("json://a,xml://b\n xml://c , ntfy://d,", ["json://a", "xml://b", "xml://c", "ntfy://d"]),
        ("mailto://a@b?to=c,d json://e", ["mailto://a@b?to=c,d", "json://e"]),
        (["json://a", "xml://b"], ["json://a", "xml://b"]),
    ],
)
def test_urls_are_separated_by_white_space_or_commas(given: Any, urls: list[str]) -> None:
    assert notify.urls_in(Settings({"NOTIFY_URLS": given})) == urls
