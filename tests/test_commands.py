"""`scrapy shell`, `fetch`, `view` and `parse`: they look, and need no database to do so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.helpers.crawls import run
from tests.helpers.stored import as_stored, content
from tests.standin.site import RunningSite as Site
from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.helpers.databases import Database


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running_site(30) as site:
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


@pytest.mark.parametrize(
    ("path", "found"), [("/api/book/{}/", "'id': '{}'"), ("/api/book/", "{}/")]
)
def test_parse_knows_the_sites_pages(
    site: Site, nowhere: dict[str, str], path: str, found: str
) -> None:
    one = site.catalogue.ids[0]
    parse = run("parse", "--nolog", "--nocolour", site.url + path.format(one), **nowhere)
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


SPIDER_FILE = "spa5/spiders/books.py"


def test_runspider_stores_like_crawl(site: Site, database: Database) -> None:
    environment = {"SITE_URL": site.url, **database.environment}
    ended = run("runspider", SPIDER_FILE, "-a", "pages=1", "-a", "page_size=10", **environment)
    assert ended.exitcode == 0
    assert len(database.stored()) == 10


def test_runspider_tells_by_its_exit_code_that_books_are_missing(
    site: Site, database: Database
) -> None:
    one = site.catalogue.ids[0]
    site.control(override={f"/api/book/{one}/": {"status": 403}})
    arguments = ("-a", f"ids={one}", "-s", "MAX_SWEEPS=1")
    environment = {"SITE_URL": site.url, **database.environment}
    ended = run("runspider", SPIDER_FILE, *arguments, **environment)
    site.control(override={f"/api/book/{one}/": None})
    assert "Spider closed (incomplete)" in ended.log
    assert ended.exitcode == 1


def test_runspider_tells_by_its_exit_code_that_there_is_no_database(
    nowhere: dict[str, str],
) -> None:
    ended = run("runspider", SPIDER_FILE, **nowhere)
    assert "Spider closed (mongo_unavailable)" in ended.log
    assert ended.exitcode == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((SPIDER_FILE, "-a", "pages=x"), "pages='x': use a whole number from 1 on"),
        (("missing.py",), "missing.py: no such file"),
        (("spa5/items.py",), "spa5/items.py holds no spider"),
        (("README.md",), "README.md can't be loaded: Not a Python source file"),
    ],
)
def test_what_runspider_can_not_run_is_one_line(
    nowhere: dict[str, str], arguments: tuple[str, ...], said: str
) -> None:
    ended = run("runspider", *arguments, **nowhere)
    assert ended.log.splitlines()[-1].startswith(f"scrapy runspider: {said}")
    assert "Traceback" not in ended.log
    assert ended.exitcode == 2


def test_runspider_runs_a_spider_of_another_file(nowhere: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(
        "import scrapy\nclass Other(scrapy.Spider):\n    name = 'other'\n"
    )
    ended = run("runspider", str(tmp_path / "other.py"), "-s", "ITEM_PIPELINES={}", **nowhere)
    assert "Spider closed (finished)" in ended.log
    assert ended.exitcode == 0


def test_bench_needs_no_database(nowhere: dict[str, str]) -> None:
    limits = ("-s", "CLOSESPIDER_PAGECOUNT=10", "-s", "CLOSESPIDER_TIMEOUT=0")
    ended = run("bench", *limits, **nowhere)
    assert "Spider closed (closespider_pagecount)" in ended.log
    assert "ERROR" not in ended.log
    assert ended.exitcode == 0


@pytest.mark.parametrize("command", ["fetch", "diff"])
def test_what_looks_opens_no_door(site: Site, nowhere: dict[str, str], command: str) -> None:
    one = site.catalogue.ids[0]
    what = {"fetch": f"{site.url}/api/book/{one}/", "diff": one}[command]
    ended = run(command, "-L", "INFO", what, **nowhere, NOTIFY_URLS="json://127.0.0.1:1/")
    assert "Enabled extensions" in ended.log
    assert "Notify" not in ended.log
    assert "Telnet" not in ended.log
    assert "RemoteControl" not in ended.log
    assert "Books:" not in ended.log  # the summary of a crawl


@pytest.mark.parametrize(
    ("level", "arguments", "shown"),
    [
        ("warning", (), False),
        ("ERROR", ("-L", "INFO"), True),  # the command line comes first
        ("verbose", (), True),  # meant for another program
        ("", (), True),
    ],
)
def test_the_environment_chooses_the_logs_level(
    nowhere: dict[str, str], level: str, arguments: tuple[str, ...], shown: bool
) -> None:
    ended = run("crawl", "books", *arguments, **nowhere, LOG_LEVEL=level)
    assert ended.exitcode == 1
    assert (" INFO: " in ended.log) == shown
    assert " ERROR: " in ended.log
