"""What people see of a crawl: a bar and a table on a terminal, lines of the log elsewhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.redises import needs_redis, running_redis
from tests.helpers.running import crawling
from tests.helpers.terminal import CTRL_C, Terminal, scrapy_on_terminal
from tests.standin.site import RunningSite as Site
from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.helpers.databases import Database

BOOKS = 230
QUIET = ("-s", "LOG_LEVEL=CRITICAL")
DETAILS = r"/book/\d"
NO_TIMEOUT = ("-s", "DOWNLOAD_TIMEOUT=600")  # longer than a test looks on
WIDE = r"^ +\d+%\|.+\| \d+/230 books, [\d.]+/s, \d\d:\d\d left$"


@pytest.fixture(scope="module")
def catalogue() -> Iterator[Site]:
    with running_site(BOOKS) as site:
        yield site


@pytest.fixture
def site(catalogue: Site) -> Iterator[Site]:
    catalogue.reset()
    yield catalogue
    override = dict.fromkeys(map(path, catalogue.catalogue.ids))
    catalogue.control(latency=0, hold=None, faults=None, override=override)


def path(book_id: str) -> str:
    return f"/api/book/{book_id}/"


def refuse(site: Site, books: int, **how: int) -> None:
    """Have the details of so many books fail for good, or so many `times`."""
    refused = {path(one): {"status": 403, **how} for one in site.catalogue.ids[:books]}
    site.control(override=refused)


def fail_once(site: Site, books: int) -> None:
    """Have the details of so many others fail at first."""
    ids = site.catalogue.ids[-books:]
    site.control(faults={"first": 1, "kinds": ["500"], "paths": "|".join(map(path, ids))})


def watch(
    site: Site, database: Database, *args: str, columns: int = 80, **environment: str
) -> AbstractContextManager[Terminal]:
    environment = {"SITE_URL": site.url, **database.environment, **environment}
    return scrapy_on_terminal("crawl", "books", *args, columns=columns, **environment)


def assert_grows_to(total: int, terminal: Terminal) -> None:
    """The bar never went back nor beyond the end, and arrived there."""
    done = [int(bar["done"]) for bar in terminal.bars_seen]
    assert done == sorted(done)
    assert {bar["total"] for bar in terminal.bars_seen} <= {None, str(total)}
    last = terminal.bars_seen[-1]
    assert (last["percent"], last["done"], last["total"]) == ("100", str(total), str(total))


def rows_of_table(terminal: Terminal) -> list[str]:
    """What stands below the bar."""
    return terminal.rows[terminal.rows.index(terminal.bar) + 1 :]


def test_a_bar_shows_books_done_rate_and_time_left(site: Site, database: Database) -> None:
    site.control(latency=0.04)
    with watch(site, database) as terminal:
        terminal.wait_for(WIDE)
        assert len(terminal.bar) == 79
        assert terminal.end() == 0
    assert terminal.most_bars == 1
    assert len({bar["bar"] for bar in terminal.bars_seen}) > 3
    assert_grows_to(BOOKS, terminal)


def test_a_crawl_with_nothing_to_fetch_gets_to_100_percent(site: Site, database: Database) -> None:
    database.crawl(site.url)
    site.control(latency=0.3)
    with watch(site, database, "-a", "page_size=50", *QUIET, CONCURRENT_REQUESTS="1") as terminal:
        terminal.wait_for(r" (50|100|150|200)/230 books, ")
        assert terminal.end() == 0
    assert_grows_to(BOOKS, terminal)
    assert "skipped       230" in rows_of_table(terminal)


def test_the_summary_is_a_table_below_the_bar(site: Site, database: Database) -> None:
    with watch(site, database, "-s", "LOG_ENABLED=False", columns=200) as terminal:
        assert terminal.end() == 0
    bar, ended, stored, speed, *counts = terminal.rows
    assert bar == terminal.bar
    assert re.fullmatch(r"ended      finished after \d+\.\d s", ended)
    assert re.fullmatch(rf"stored in  /.+mongod.sock, {database.name}\.books", stored)
    assert re.fullmatch(r"speed      \d+ books/s, 234 requests", speed)
    assert counts == [
        "listed        230",
        "new           230",
        "changed         0",
        "unchanged       0",
        "skipped         0",
    ]


def test_lines_of_the_log_stand_whole_above_the_bar(site: Site, database: Database) -> None:
    refuse(site, 20)
    site.control(latency=0.02)
    with watch(site, database, "-s", "MAX_SWEEPS=1", columns=200) as terminal:
        assert terminal.end() == 1
    assert terminal.most_bars == 1
    log = terminal.rows[: terminal.rows.index(terminal.bar)]
    failed = re.findall(r"^[-\d]{10} [:\d]{8} \[books\] ERROR: (.+)$", "\n".join(log), re.MULTILINE)
    addresses = [site.url + path(one) for one in site.catalogue.ids[:20]]
    assert sorted(failed) == sorted(f"{one} failed: status 403" for one in addresses)


def test_retries_and_failures_are_shown(site: Site, database: Database) -> None:
    refuse(site, 2)
    fail_once(site, 3)
    with watch(site, database, "-s", "MAX_SWEEPS=1", *QUIET) as terminal:
        assert terminal.end() == 1
    assert re.search(r" 99%\|.+\| 228/230 books, .+, 3 retried, 2 failed$", terminal.bar)
    table = rows_of_table(terminal)
    assert table[0].startswith("ended      incomplete after ")
    assert table[-3:] == ["failed          2", "missing         2", "retries         3"]


def test_at_40_columns_the_bar_is_one_short_line(site: Site, database: Database) -> None:
    refuse(site, 1)
    fail_once(site, 1)
    with watch(site, database, "-s", "MAX_SWEEPS=1", *QUIET, columns=40) as terminal:
        assert terminal.end() == 1
    assert terminal.most_bars == 1
    assert max(len(bar[0]) for bar in terminal.bars_seen) < 40
    assert re.fullmatch(r"229/230, [\d.]+/s, took \d\d:\d\d, 1 failed", terminal.bar)
    assert any(row.endswith(" requests") for row in rows_of_table(terminal))  # it is not folded


def test_the_bar_follows_the_width_of_the_window(site: Site, database: Database) -> None:
    site.control(latency=0.05)
    with watch(site, database, *NO_TIMEOUT, CONCURRENT_REQUESTS="1") as terminal:
        terminal.wait_for(WIDE)
        site.control(hold={"paths": DETAILS})
        terminal.resize(40)
        terminal.wait_for(r"^\d+% \d+/230, .{,20} left$")
        assert terminal.rows[-1] == terminal.bar
        assert "%|" not in str(terminal)  # nothing is left of the folded one
        terminal.resize(100)
        terminal.wait_for(WIDE)
        assert len(terminal.bar) == 99
        assert terminal.rows[-1] == terminal.bar


def wait_for_details(site: Site, most: int, terminal: Terminal) -> None:
    """Return when the site was asked for that many details."""
    while site.stats()["detail"] < most:
        assert terminal.process.poll() is None, f"it has ended:\n{terminal}"


def test_after_ctrl_c_the_bar_says_what_is_under_way(site: Site, database: Database) -> None:
    refuse(site, 1)
    site.control(hold={"paths": DETAILS})
    ids = ",".join(site.catalogue.ids[:7])
    with watch(site, database, *NO_TIMEOUT, "-a", f"ids={ids}") as terminal:
        wait_for_details(site, 5, terminal)
        terminal.type(CTRL_C)
        terminal.wait_for(r"0/7 books, finishing, 5 under way$")
        site.control(hold=None)
        assert terminal.end() == 0
    assert terminal.most_bars == 1
    assert re.search(r" 4/7 books, .+, took \d\d:\d\d, 1 failed$", terminal.bar)
    assert rows_of_table(terminal)[0].startswith("ended      shutdown after ")


def test_a_second_ctrl_c_leaves_the_cursor_below_the_bar(site: Site, database: Database) -> None:
    site.control(hold={"paths": DETAILS})
    with watch(site, database, *NO_TIMEOUT, "-a", f"ids={site.catalogue.ids[0]}") as terminal:
        wait_for_details(site, 1, terminal)
        terminal.type(CTRL_C)
        terminal.wait_for("finishing, 1 under way")
        terminal.type(CTRL_C)
        terminal.end()
    assert terminal.rows[-1] == terminal.bar
    assert (terminal.screen.cursor.x, terminal.screen.cursor.y) == (0, len(terminal.rows))


def test_a_second_sweep_counts_no_book_twice(site: Site, database: Database) -> None:
    refuse(site, 3, times=1)
    with watch(site, database, columns=200) as terminal:
        assert terminal.end() == 0
    assert "Walking again" in str(terminal)
    assert_grows_to(BOOKS, terminal)
    assert terminal.bar.endswith(", 3 failed")


def test_a_limit_of_pages_is_what_the_bar_grows_to(site: Site, database: Database) -> None:
    site.control(latency=0.2)
    with watch(site, database, "-a", "pages=2", "-a", "page_size=10", *QUIET) as terminal:
        terminal.wait_for(r" \d+/20 books, .+ left$")
        assert terminal.end() == 0
    assert_grows_to(20, terminal)


@pytest.mark.parametrize("setting", ["PROGRESS_ENABLED=False", "TERM=dumb"])
def test_a_terminal_may_show_the_log_alone(site: Site, database: Database, setting: str) -> None:
    name, _, value = setting.partition("=")
    with watch(site, database, "-a", "pages=1", columns=200, **{name: value}) as terminal:
        assert terminal.end() == 0
    assert b"\x1b" not in terminal.output
    assert terminal.most_bars == 0
    assert "INFO: Books: 100 listed, " in terminal.rows[-2]


def test_with_a_log_file_a_terminal_stays_empty(
    site: Site, database: Database, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with watch(site, database, "-a", "pages=1", "-s", f"LOG_FILE={log}") as terminal:
        assert terminal.end() == 0
    assert terminal.output == b""
    assert "INFO: Books: 100 listed, " in log.read_text()


def test_elsewhere_nothing_but_the_log_is_written(site: Site, database: Database) -> None:
    crawl = database.crawl(site.url, "-a", "pages=1", TERM="xterm")
    assert not re.search(r"[\r\x1b]|\d%|Traceback", crawl.log)
    assert "INFO: Books: 100 listed, " in crawl.log.splitlines()[-2]
    assert crawl.output == ""


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"CRAWL_ID": "a"}, "redis_unavailable"),
        ({"MONGO_URI": "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200"}, "mongo_unavailable"),
    ],
)
def test_a_crawl_that_can_not_start_shows_no_bar(
    site: Site, database: Database, environment: dict[str, Any], reason: str
) -> None:
    with watch(site, database, **environment) as terminal:
        assert terminal.end() == 1
    assert terminal.most_bars == 0
    assert terminal.rows[-1].endswith(f"INFO: Spider closed ({reason})")


def test_a_command_that_only_looks_shows_no_bar(site: Site) -> None:
    url = site.url + path(site.catalogue.ids[0])
    command = ("fetch", "--spider", "books", "-s", "LOG_LEVEL=ERROR", url)
    with scrapy_on_terminal(*command, SITE_URL=site.url) as terminal:
        assert terminal.end() == 0
    assert terminal.rows[0].startswith('{"id": ')
    assert "ended" not in str(terminal)


@needs_redis
def test_a_worker_shows_its_own_share_and_the_whole_crawl(site: Site, database: Database) -> None:
    site.control(latency=1)
    with running_redis() as redis:
        shared: dict[str, Any] = {"REDIS_URL": redis.url, "CRAWL_ID": "a"}
        shared["CONCURRENT_REQUESTS"] = "4"
        with crawling(site.url, **database.environment, **shared) as other:
            other.wait_for("Worker of")
            with watch(site, database, **shared) as terminal:
                terminal.wait_for(r" [1-9]\d+/230 books, [1-9]\d* own, ")
                site.control(latency=0)
                assert terminal.end() == 0
            crawl = other.end()
    own = int(terminal.bars_seen[-1]["own"])
    assert 0 < own < BOOKS
    assert own + crawl.stats["item_scraped_count"] == BOOKS
    assert_grows_to(BOOKS, terminal)
    table = rows_of_table(terminal)
    whole = "230 of 230 books, 2 workers"
    assert f"crawl      {whole}" in table
    assert table.index(f"new        {own:6}") > table.index("own share")
    fetched = ["230 new", "0 changed", "0 unchanged"]
    assert f"The whole crawl: {whole}; {', '.join(fetched)}. Of this worker:" in crawl.log
    assert [row.strip() for row in table[table.index(f"crawl      {whole}") + 1 :][:3]] == fetched
