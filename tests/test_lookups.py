"""What commands print of stored data, and `scrapy crawls`."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from spa5.mongo.status import pid_space, status
from spa5.screen.crawls import is_complete, row
from tests.helpers.crawls import run, scrapy
from tests.helpers.terminal import scrapy_on_terminal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.crawls import Ended
    from tests.helpers.databases import Database

NOW = datetime.now(timezone.utc)
GONE = 2**22 + 1  # no process has this number: it is above Linux' highest
HOSTILE = "三体\x1b\x9b\x7f\u202e"
ZONE = {"TZ": "Asia/Shanghai"}  # eight hours ahead


def crawl_of(number: int, reason: str | None, **more: Any) -> dict[str, Any]:
    """The document of a crawl of 303 seconds; without a reason it has not ended."""
    began = datetime(2026, 11, number, 17, 6, 3, tzinfo=timezone.utc)
    crawl = {
        "_id": f"{began:%Y%m%d-%H%M%S}-0a1b2c",
        "spider": "books",
        "began": began,
        "alive_at": began + timedelta(seconds=303),
        "counts": {"listed": 9040},
        **more,
    }
    return crawl | ({"reason": reason, "ended": crawl["alive_at"]} if reason else {})


def crawls(database: Database, *documents: dict[str, Any]) -> Any:
    """Let these be the crawls of the database."""
    collection = database.books.database["crawls"]
    collection.delete_many({})
    if documents:
        collection.insert_many(documents)


def listed(database: Database, *args: str, **environment: str) -> Ended:
    return run("crawls", *args, **database.environment | ZONE | environment)


def test_the_last_crawls_are_a_table_with_the_newest_last(database: Database) -> None:
    counts = {"listed": 9040, "new": 12, "changed": 3, "delisted": 0, "failed": 5, "missing": 5}
    old = {"spider": "books", "ended": datetime(2026, 10, 1, 1, 2), "reason": "finished"}
    crawls(
        database,
        crawl_of(3, "incomplete", counts=counts),
        crawl_of(2, None),
        crawl_of(4, None, began=NOW, alive_at=NOW + timedelta(hours=1)),
        crawl_of(1, "finished"),
        crawl_of(5, "finished", spider="movies"),
        old | {"_id": 7, "listed": 9000},  # of an earlier version
    )
    ended = listed(database)
    took = ended.output.splitlines()[-1].split()[3]
    began = f"{NOW.astimezone(timezone(timedelta(hours=8))):%Y-%m-%d %H:%M}"
    assert [" ".join(line.split()) for line in ended.output.splitlines()] == [
        "crawl when took ended listed new changed delisted failed",
        "7 2026-10-01 09:02 finished 9000",
        "20261101-170603-0a1b2c 2026-11-02 01:06 5m03s finished 9040",
        "20261102-170603-0a1b2c 2026-11-03 01:06 5m03s killed 9040",
        "20261103-170603-0a1b2c 2026-11-04 01:06 5m03s incomplete 9040 12 3 0 5",
        f"20261104-170603-0a1b2c {began} {took} running 9040",
    ]
    assert (ended.exitcode, ended.log) == (1, "")  # the one that runs is passed over


def test_programs_get_the_documents_whole(database: Database) -> None:
    one = crawl_of(1, "finished", fill={"score": 0.5}, errors=[{"at": NOW, "said": HOSTILE}])
    crawls(database, one, crawl_of(2, "drift"), crawl_of(3, "restored"))
    ended = listed(database, "--json", "-n", "3")
    documents = [json.loads(line) for line in ended.output.splitlines()]
    assert [one["status"] for one in documents] == ["finished", "drift", "restored"]
    assert documents[0]["_id"] == "20261101-170603-0a1b2c"
    assert documents[0]["began"] == "2026-11-01T17:06:03Z"
    assert documents[0]["fill"] == {"score": 0.5}
    assert documents[0]["errors"][0]["said"] == HOSTILE
    assert "三体" in ended.output
    assert not set(HOSTILE) & set(ended.output) - set("三体")
    assert ended.exitcode == 1  # the restore is passed over
    crawls(database, crawl_of(1, "incomplete"), crawl_of(2, "finished"))
    assert listed(database, "--last", "1").exitcode == 0


@pytest.mark.parametrize(
    ("crawl", "complete"),
    [
        (crawl_of(1, "finished"), True),
        (crawl_of(1, "incomplete"), False),
        (crawl_of(1, "shutdown"), False),
        (crawl_of(1, None), False),  # killed
        (crawl_of(1, "finished", exit_code=1), False),
        (crawl_of(1, None, alive_at=NOW), None),
        (crawl_of(1, "restored"), None),
    ],
)
def test_only_a_finished_crawl_was_complete(crawl: dict[str, Any], complete: bool | None) -> None:
    assert is_complete(crawl, NOW) is complete


def test_where_there_is_no_crawl_one_line_says_what_to_type(
    database: Database, tmp_path: Path
) -> None:
    ended = listed(database, "--json")
    assert (ended.exitcode, ended.output) == (0, "")
    assert ended.log == "there was no crawl yet: `scrapy crawl books` is the first\n"
    folder = tmp_path / "data"
    embedded = {"MONGO_URI": "embedded", "MONGO_DATA_DIR": str(folder)}
    ended = run("crawls", "--spider", "movies", **embedded)
    assert (ended.exitcode, ended.output) == (0, "")
    assert ended.log == "nothing is stored yet: `scrapy crawl movies` brings it\n"
    assert not folder.exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("-n", "0"), "--last='0': use a whole number from 1 on"),
        (("books",), "it takes no arguments, but --spider NAME and --last N"),
        (("--spider", "nope"), "there is no catalogue 'nope'"),
    ],
)
def test_wrong_arguments_are_one_line(database: Database, args: tuple[str, ...], said: str) -> None:
    ended = listed(database, *args)
    assert ended.log.startswith(f"scrapy crawls: {said}")
    assert (ended.exitcode, len(ended.log.splitlines()), ended.output) == (2, 1, "")


def test_without_a_database_one_line_says_so() -> None:
    ended = run("crawls", MONGO_URI="mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200")
    assert ended.log.startswith("no MongoDB answers at 127.0.0.1:1")
    assert (ended.exitcode, len(ended.log.splitlines()), ended.output) == (1, 1, "")


def test_a_narrow_terminal_shows_a_few_lines_for_each_crawl(database: Database) -> None:
    crawls(
        database,
        crawl_of(1, "site_unavailable", counts={"listed": 9040, "new": 12, "failed": 3}),
        crawl_of(2, "\x1b[31m三体三体三体三体三体"),
    )
    with scrapy_on_terminal("crawls", columns=40, **database.environment, **ZONE) as terminal:
        assert terminal.end() == 1
    assert terminal.rows == [
        "crawl: 20261101-170603-0a1b2c",
        "  when: 2026-11-02 01:06  took: 5m03s",
        "  ended: site_unavailable  listed: 9040",
        "  new: 12  failed: 3",
        "crawl: 20261102-170603-0a1b2c",
        "  when: 2026-11-03 01:06  took: 5m03s",
        r"  ended: \x1b[31m三体三体三体三体三体",
        "  listed: 9040",
    ]


def test_a_table_folds_long_texts_alone(database: Database) -> None:
    crawls(database, crawl_of(1, "三体" * 20))
    environment = database.environment | ZONE | {"NO_COLOR": "1"}
    with scrapy_on_terminal("crawls", columns=90, **environment) as terminal:
        assert terminal.end() == 1
    assert [row.split() for row in terminal.rows] == [
        ["crawl", "when", "took", "ended", "listed"],
        ["20261101-170603-0a1b2c", "2026-11-02", "01:06", "5m03s", "三体" * 8, "9040"],
        ["三体" * 8],
        ["三体" * 4],
    ]
    assert b"\x1b[3" not in terminal.output  # a color


def test_a_closed_pipe_is_no_error(database: Database) -> None:
    crawls(database, crawl_of(1, "finished"))
    for more in ((), ("--json",)):
        with scrapy("crawls", *more, **database.environment) as process:
            assert process.stdout
            process.stdout.close()  # long before it has anything to write
            assert process.stderr
            assert process.stderr.read() == ""
            assert process.wait() == 0


PRINT = """
import json, sys
from spa5.catalogue.text import show_plainly
from spa5.screen.output import print_table
show_plainly()
print_table(json.loads(sys.argv[1]))
"""


def table(rows: list[dict[str, Any]], **environment: str) -> str:
    """What a pipe gets of these rows."""
    command = [sys.executable, "-W", "error", "-c", PRINT, json.dumps(rows)]
    environment = os.environ | environment
    return subprocess.run(
        command, capture_output=True, check=True, text=True, env=environment
    ).stdout


def test_a_pipe_gets_plain_lines_however_long_they_are() -> None:
    rows: list[dict[str, Any]]
    rows = [{"id": 1, "name": "三体 " * 100, "score": 9.5}, {"id": 20, "name": None, "score": None}]
    name = ("三体 " * 100).strip()
    assert table(rows, COLUMNS="40").splitlines() == [
        f"id  name{' ' * 495}  score",
        f" 1  {name}    9.5",
        "20",
    ]
    assert table([]) == ""


def test_what_others_wrote_stays_in_its_cell() -> None:
    hostile = "a\x1b[2J\r\n\tb [red]c[/red] :smile: \u202e\ud800"
    lines = table([{"id": 1, "text": hostile}]).splitlines()
    assert lines[1] == r" 1  a\x1b[2J\r b [red]c[/red] :smile: \u202e\ud800"
    assert len(lines) == 2


def test_a_number_that_is_not_known_is_not_shown() -> None:
    shown = row({"_id": 1, "counts": {"new": 0}}, NOW)
    assert {name: one for name, one in shown.items() if one not in (None, "")} == {
        "crawl": "1",
        "ended": "killed",
        "new": 0,
    }


@pytest.mark.parametrize(
    ("seconds", "took"),
    [(0, "0s"), (59.9, "59s"), (303, "5m03s"), (7_800, "2h10m"), (274_000, "3d04h"), (-5, "0s")],
)
def test_how_long_it_took_is_in_its_two_largest_units(seconds: float, took: str) -> None:
    crawl = {"_id": 1, "began": NOW, "ended": NOW + timedelta(seconds=seconds)}
    assert row(crawl, NOW)["took"] == took


HERE = {"host": platform.node(), "pid": os.getpid()}
DEAD = HERE | {"pid": GONE}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "running"),
        (HERE, "running"),
        (DEAD, "killed"),
        (DEAD | {"pid_space": pid_space()}, "killed"),
        (DEAD | {"pid_space": 1}, "running"),  # of a container, whose numbers are others
        (DEAD | {"host": "elsewhere"}, "running"),
        (HERE | {"pid": 1}, "running"),  # another user's
        (HERE | {"pid": -1}, "running"),
        (HERE | {"pid": 2**70}, "running"),
        (HERE | {"alive_at": NOW - timedelta(seconds=31)}, "killed"),
        ({"workers": {"a": DEAD, "b": HERE}}, "running"),
        ({"workers": {"a": DEAD, "b": HERE | {"ended": NOW}}}, "killed"),
        ({"workers": {"a": DEAD, "b": DEAD | {"host": "elsewhere"}}}, "running"),
        (DEAD | {"ended": NOW, "reason": "finished"}, "finished"),
    ],
)
def test_a_crawl_whose_processes_are_gone_was_killed(more: dict[str, Any], said: str) -> None:
    assert status({"alive_at": NOW - timedelta(seconds=29), **more}, NOW) == said
