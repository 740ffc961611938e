"""What people are shown: nothing in it acts upon their terminal, and no encoding stops it."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest

from spa5.catalogue.text import PlainRecord, plain
from tests.helpers.crawls import run
from tests.helpers.terminal import scrapy_on_terminal
from tests.standin.site import running_site

if TYPE_CHECKING:
    from tests.helpers.databases import Database


@pytest.mark.parametrize("text", ["三体 🙂 …", "two\n\tlines", "I’ll be café", ""])
def test_text_stays_as_it_is(text: str) -> None:
    assert plain(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b31mred", r"\x9b31mred"),  # the same in one character
        ("over\rwritten\x07\x7f\0", r"over\rwritten\x07\x7f\x00"),
        ("exe.\u202etxt", r"exe.\u202etxt"),
        ("half \ud83d", r"half \ud83d"),
    ],
)
def test_what_a_terminal_acts_upon_is_escaped(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_a_log_is_plain_in_its_message_and_its_traceback() -> None:
    try:
        raise ValueError("\x1b[2J")
    except ValueError as error:
        exc_info = (type(error), error, error.__traceback__)
    record = PlainRecord("name", logging.ERROR, "", 0, "%s failed", ("\x1b]0;",), exc_info)
    shown = logging.Formatter().format(record)
    assert shown.startswith("\\x1b]0; failed\nTraceback")
    assert shown.endswith("ValueError: \\x1b[2J")


def test_control_characters_of_the_site_reach_no_terminal(database: Database) -> None:
    with running_site(3) as site:
        one = site.catalogue.ids[0]
        path = f"/api/book/{one}/"
        html = {"body": "<p>\x1b[31m", "headers": {"Content-Type": "text/html\x9b31m"}}
        site.control(override={path: html})
        crawl = database.crawl(site.url, "-s", "RETRY_TIMES=0", "-s", "MAX_SWEEPS=1")
        assert f"{path} failed: not JSON (text/html" in crawl.log
        assert r"\x9b31m" in crawl.log
        assert "\x9b" not in crawl.log
        doctor = run("doctor", SITE_URL=site.url, **database.environment)
        assert "FAIL  site" in doctor.output
        assert "\x9b" not in doctor.output
        url = site.url + path
        with scrapy_on_terminal("fetch", "--nolog", url, "-s", "RETRY_TIMES=0") as terminal:
            terminal.end()
        assert terminal.rows == [r"<p>\x1b[31m"]
        fetch = run("fetch", "--nolog", url, "-s", "RETRY_TIMES=0")
        assert fetch.output == "<p>\x1b[31m\n"  # a file or a program gets what the site sent


@pytest.mark.parametrize("encoding", ["ascii", "gbk"])
def test_what_an_encoding_lacks_is_escaped(database: Database, encoding: str) -> None:
    with running_site(3) as site:
        one, other = site.catalogue.ids[:2]
        detail = site.catalogue.detail(one) | {"name": "Café 🙂", "introduction": "🙂" * 500}
        site.control(override={f"/api/book/{one}/": {"body": json.dumps(detail)}})
        assert database.crawl(site.url, PYTHONIOENCODING=encoding).exitcode == 0
        database.books.update_one({"id": one}, {"$set": {"introduction": "🙂" * 500 + "é"}})
        database.books.update_one({"id": other}, {"$set": {"score": 1.5}})
        environment = database.environment | {"SITE_URL": site.url, "PYTHONIOENCODING": encoding}
        diff = run("diff", one, other, **environment)
        doctor = run("doctor", **environment | {"SITE_URL": "三体🙂é"})
    assert (diff.exitcode, diff.log) == (1, "")
    assert r"\U0001f642" in diff.output
    assert "  - score: 1.5" in diff.output
    assert (doctor.exitcode, doctor.log) == (1, "")
    assert r"\U0001f642" in doctor.output
    assert "skip  the rest     see above" in doctor.output
