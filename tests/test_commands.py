"""`scrapy shell`, `fetch`, `view` and `parse`: they look, and need no database to do so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.crawls import run
from tests.site import RunningSite as Site
from tests.site import running_site
from tests.test_crawl import as_stored, content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Database


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running_site(books=30) as site:
        yield site


@pytest.fixture
def nowhere(site: Site, tmp_path: Path) -> dict[str, str]:
    """Settings under which a command that wants a database fails."""
    (tmp_path / "file").touch()
    return {
        "SITE_URL": site.url,
        "MONGO_URI": "embedded",
        "MONGO_DATA_DIR": str(tmp_path / "file" / "below"),
    }


def test_the_shell_has_at_hand_what_one_calls(site: Site, nowhere: dict[str, str]) -> None:
    one = site.catalogue.ids[0]
    code = "judge(response), list(parse_detail(response))[0].id, Book.from_api(response.json()).id"
    shell = run("shell", "--nolog", f"{site.url}/api/book/{one}/", "-c", code, **nowhere)
    assert shell.output.strip() == repr((None, one, one))
    assert (shell.exitcode, shell.log) == (0, "")


def test_the_shell_follows_an_index_page(site: Site, nowhere: dict[str, str]) -> None:
    code = "[request.url for request in parse_index(response)]"
    url = f"{site.url}/api/book/?limit=2&offset=4"
    shell = run("shell", "--nolog", url, "-c", code, **nowhere)
    details = [f"{site.url}/api/book/{one}/" for one in site.catalogue.ids[4:6]]
    assert shell.output.strip() == repr(details)


def test_the_shell_tells_why_a_page_is_no_answer(site: Site, nowhere: dict[str, str]) -> None:
    one = site.catalogue.ids[1]
    site.control(override={f"/api/book/{one}/": {"body": "[]"}})
    url = f"{site.url}/api/book/{one}/"
    shell = run("shell", "--nolog", url, "-s", "RETRY_TIMES=0", "-c", "judge(response)", **nowhere)
    site.control(override={f"/api/book/{one}/": None})
    assert "not an object" in shell.output


def test_fetch_prints_a_page(site: Site, nowhere: dict[str, str]) -> None:
    one = site.catalogue.ids[0]
    fetch = run("fetch", "--nolog", f"{site.url}/api/book/{one}/", **nowhere)
    assert json.loads(fetch.output) == site.catalogue.detail(one)
    assert (fetch.exitcode, fetch.log) == (0, "")


@pytest.mark.parametrize(
    ("path", "callback", "found"),
    [("/api/book/{}/", "parse_detail", "'id': '{}'"), ("/api/book/", "parse_index", "book/{}/")],
)
def test_parse_shows_what_a_callback_makes_of_a_page(
    site: Site, nowhere: dict[str, str], path: str, callback: str, found: str
) -> None:
    one = site.catalogue.ids[0]
    arguments = ("--nolog", "--nocolour", "--spider", "books", "-c", callback)
    parse = run("parse", *arguments, site.url + path.format(one), **nowhere)
    assert found.format(one) in parse.output
    assert parse.exitcode == 0


def test_parse_with_pipelines_ends_when_the_book_is_stored(site: Site, database: Database) -> None:
    one = site.catalogue.ids[0]
    arguments = ("--spider", "books", "-c", "parse_detail", "--pipelines")
    settings = {"SITE_URL": site.url, **database.environment}
    parse = run("parse", *arguments, f"{site.url}/api/book/{one}/", **settings)
    assert parse.exitcode == 0
    assert content(database.stored()[one]) == as_stored(site.catalogue.detail(one))


def test_check_needs_no_database(nowhere: dict[str, str]) -> None:
    assert run("check", **nowhere).exitcode == 0
