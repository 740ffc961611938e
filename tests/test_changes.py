"""`scrapy changes`: what a crawl changed, for people and for programs."""

from __future__ import annotations

import json
import time
from collections import Counter
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from scrapy.exceptions import UsageError

from spa5.catalogue.fields import now
from spa5.catalogue.text import Trouble
from spa5.commands.changes import Command
from spa5.mongo.span import parse_since
from spa5.spiders.books import BooksSpider
from spa5.spiders.movies import MoviesSpider
from tests.helpers.crawls import run
from tests.helpers.lookups import CRAWL, add_crawl, add_item, add_version, look, minute
from tests.helpers.stored import content
from tests.helpers.terminal import scrapy_on_terminal
from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymongo.database import Database as MongoDatabase

    from spa5.catalogue.spider import CatalogueSpider
    from tests.helpers.databases import Database

LONG = "满纸荒唐言" * 60


@pytest.fixture
def stored(database: Database) -> MongoDatabase[dict[str, Any]]:
    return database.books.database


@pytest.fixture
def told(stored: MongoDatabase[dict[str, Any]]) -> MongoDatabase[dict[str, Any]]:
    """A crawl that met one book of each kind, and one that it left as it was."""
    add_crawl(stored, returned=["5"], counts={"changed": 1})
    add_crawl(stored, _id="20251118-000000-aaaaaa", began=minute(-10_000), ended=minute(-9_990))
    stored["crawls"].insert_one({"spider": "books", "collection": "books", "ended": minute(20)})
    add_item(stored, id="1", name="same")
    add_item(stored, id="2", name="new\x1b[2J", first_crawled_at=minute(1))
    book: dict[str, Any] = {
        "name": "红楼梦",
        "score": 8.5,
        "introduction": f"{LONG}。",
        "isbn": None,
    }
    add_item(stored, id="3", **book, changed_at=minute(2))
    fields = {"score": 8.0, "introduction": LONG, "isbn": None}
    add_version(stored, "3", (-100_000, 2), fields, absent=["isbn"])
    add_item(stored, id="4", name="gone", delisted_at=minute(9))
    add_item(stored, id="5", name="here again")
    return stored


def changes(
    capsys: pytest.CaptureFixture[str],
    database: Database,
    *given: str,
    spider: type[CatalogueSpider] = BooksSpider,
) -> list[dict[str, Any]]:
    """The objects that `scrapy changes --json` prints."""
    assert look(Command(), spider, database, "--json", *given) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def table(capsys: pytest.CaptureFixture[str], database: Database, *given: str) -> list[str]:
    """The lines that `scrapy changes` prints for people."""
    assert look(Command(), BooksSpider, database, *given) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.usefixtures("told")
def test_people_see_what_the_last_crawl_changed(database: Database) -> None:
    ended = run("changes", **database.environment, TZ="Asia/Shanghai")
    assert (ended.exitcode, ended.log) == (0, "")
    first, *lines = (" ".join(line.split()) for line in ended.output.splitlines())
    assert first == (
        f"Crawl {CRAWL} (2025-11-26 01:06, finished): 1 new, 1 changed, 1 delisted, 1 back again"
    )
    cut = f"…{LONG[-20:]}"
    assert lines == [
        *("", "New", "id name", "2 new\\x1b[2J"),
        *("", "Changed", "id name field before after", "3 红楼梦 score 8.0 8.5"),
        *(f"3 红楼梦 introduction {cut}' {cut}。'", "3 红楼梦 isbn None"),
        *("", "Delisted", "id name", "4 gone", "", "Back again", "id name", "5 here again"),
    ]


@pytest.mark.usefixtures("told")
def test_programs_get_one_object_a_line(database: Database) -> None:
    ended = run("changes", "--json", "--crawl", "20251125", **database.environment)
    assert (ended.exitcode, ended.log) == (0, "")
    fields = {
        "score": {"before": 8.0, "after": 8.5},
        "introduction": {"before": LONG, "after": f"{LONG}。"},
        "isbn": {"after": None},
    }
    book = {"id": "3", "name": "红楼梦", "fields": fields}
    assert [json.loads(line) for line in ended.output.splitlines()] == [
        {"change": "new", "id": "2", "name": "new\x1b[2J", "at": "2025-11-25T17:07:03Z"}
        | {"crawl": CRAWL},
        {"change": "changed", **book, "at": "2025-11-25T17:08:03Z", "crawl": CRAWL},
        {"change": "delisted", "id": "4", "name": "gone", "at": "2025-11-25T17:15:03Z"}
        | {"crawl": CRAWL},
        {"change": "back", "id": "5", "name": "here again", "at": "2025-11-25T17:16:03Z"}
        | {"crawl": CRAWL},
    ]


@pytest.mark.usefixtures("told")
def test_a_narrow_terminal_shows_all_of_it(database: Database) -> None:
    with scrapy_on_terminal("changes", columns=40, **database.environment) as terminal:
        assert terminal.end() == 0
    shown = str(terminal).replace("\n", " ")
    for words in ("1 changed", "New", "\\x1b[2J", "score", "8.0", "8.5", "红楼梦", "here again"):
        assert words in shown
    assert "\x1b[2J" not in terminal.output.decode()


def test_real_crawls_between_which_the_site_changed_are_told_apart(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_site(30) as site:
        one, gone, back, *_ = site.catalogue.ids
        assert database.crawl(site.url).exitcode == 0
        assert [change["change"] for change in changes(capsys, database)] == ["new"] * 30
        database.books.update_one({"id": back}, {"$set": {"delisted_at": now()}})
        before = database.stored()[one]
        site.control(insert=1, remove=[gone], edit=[one])
        site.catalogue.insert(1)
        assert database.crawl(site.url).exitcode == 0
    after = database.stored()
    found = changes(capsys, database)
    assert [(change["change"], change["id"], change["name"]) for change in found] == [
        (kind, key, after[key]["name"])
        for kind, key in (
            *(("new", site.catalogue.ids[0]), ("changed", one)),
            *(("delisted", gone), ("back", back)),
        )
    ]
    assert {change["crawl"] for change in found} == {after[one]["crawl"]}
    differ = {name for name in content(before) if before[name] != after[one][name]}
    assert "score" in differ
    assert found[1]["fields"] == {
        name: {"before": before[name], "after": after[one][name]} for name in differ
    }
    since = changes(capsys, database, "--since", "1h")
    counts = {"new": 31, "changed": 1, "delisted": 1, "back": 1}
    assert Counter(change["change"] for change in since) == counts


@pytest.mark.parametrize(
    ("spider", "key"), [(BooksSpider, "7"), (MoviesSpider, 7)], ids=["books", "movies"]
)
def test_each_change_of_an_item_is_told_and_writes_that_never_happened_are_not(
    database: Database,
    stored: MongoDatabase[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    spider: type[CatalogueSpider],
    key: int | str,
) -> None:
    name = spider.name
    add_crawl(stored, name)
    add_item(stored, name, id=key, name="d", score=3.0, changed_at=minute(20))
    add_version(stored, key, (-50, 2), {"name": "a"}, name)
    add_version(stored, key, (2, 3), {"score": 1.0}, name)
    add_version(stored, key, (3, 5), {"name": "b", "score": 2.0}, name)
    add_version(stored, key, (3, 4), {"name": "killed between"}, name)
    add_version(stored, key, (5, 6), {"name": "killed last"}, name)
    add_version(stored, key, (-90, -50), {"name": "before"}, name, crawl="20251101-0")
    add_version(stored, key, (5, 20), {"name": "c"}, name, crawl="20251125-2")
    found = changes(capsys, database, spider=spider)
    assert [change["id"] for change in found] == [key] * 3
    assert [change["at"][14:16] for change in found] == ["08", "09", "11"]
    assert [change["fields"] for change in found] == [
        {"name": {"before": "a", "after": "b"}},
        {"score": {"before": 1.0, "after": 2.0}},
        {"name": {"before": "b", "after": "c"}, "score": {"before": 2.0, "after": 3.0}},
    ]
    assert [
        list(change["fields"])
        for change in changes(capsys, database, "--field", "score", spider=spider)
    ] == [["score"]] * 2


def test_a_value_that_a_version_lacked_is_left_out(
    database: Database, stored: MongoDatabase[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    add_crawl(stored)
    add_item(stored, id="1", name="a", changed_at=minute(3))
    add_version(stored, "1", (2, 3), {"extra": {"a": 1}})
    add_version(stored, "1", (1, 2), {"extra": None}, absent=["extra"])
    assert [change["fields"] for change in changes(capsys, database)] == [
        {"extra": {"after": {"a": 1}}},
        {"extra": {"before": {"a": 1}}},
    ]


def test_nothing_is_lost_or_told_twice_where_there_is_more_than_one_question_asks_for(
    database: Database,
    stored: MongoDatabase[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("spa5.mongo.changes.MOST_READ", 2)
    add_crawl(stored, returned=[f"back {number}" for number in range(5)])
    for number in range(5):
        add_item(stored, id=f"{number}", first_crawled_at=minute(1), changed_at=minute(3))
    for end in (2, 3):
        for number in range(5):
            add_version(stored, f"{number}", (end - 1, end), {"score": float(end)})
    found = [(one["change"], one["id"], one["at"]) for one in changes(capsys, database)]
    assert len(found) == len(set(found)) == 5 + 10 + 5


@pytest.mark.usefixtures("told")
def test_a_span_of_time_holds_what_all_crawls_changed_in_it(
    database: Database, stored: MongoDatabase[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    add_crawl(stored, _id="20251125-180000-bbbbbb", ended=minute(70), returned=["1"])
    add_version(stored, "1", (-100_000, -5), {"name": "before"}, crawl="20251118-000000-aaaaaa")
    stored["books"].update_one({"id": "1"}, {"$set": {"changed_at": minute(-5)}})
    since = minute(-6).isoformat()
    found = [(one["change"], one["id"]) for one in changes(capsys, database, "--since", since)]
    assert sorted(found) == [
        *(("back", "1"), ("back", "5"), ("changed", "1"), ("changed", "3")),
        *(("delisted", "4"), ("new", "2")),
    ]
    (first, *_, last) = table(capsys, database, "--since", since, "--field", "score")
    assert first.endswith(": 1 changed in score")
    assert last.startswith("3 红楼梦 2025-11-2")
    (only,) = changes(capsys, database, "--since", minute(60).isoformat())
    assert (only["change"], only["id"]) == ("back", "1")


@pytest.mark.parametrize("ending", ["running", "killed"])
def test_a_crawl_that_has_not_ended_counts_to_when_its_next_sign_of_life_is_due(
    database: Database,
    stored: MongoDatabase[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    ending: str,
) -> None:
    alive_at = minute(10) if ending == "killed" else now() + timedelta(hours=1)
    add_crawl(stored, ended=None, reason=None, alive_at=alive_at)
    for seconds in (-1, 9, 11):
        at = alive_at + timedelta(seconds=seconds)
        add_item(stored, id=f"{seconds}", first_crawled_at=at)
    found = changes(capsys, database, "--crawl", CRAWL)
    assert [change["id"] for change in found] == ["-1", "9"]
    assert f", {ending}): 2 new, 0 changed" in table(capsys, database, "--crawl", CRAWL)[0]


def test_where_nothing_changed_one_line_says_so(
    database: Database, stored: MongoDatabase[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    add_crawl(stored)
    add_item(stored, id="1", name="a")
    assert changes(capsys, database) == []
    (line,) = table(capsys, database)
    assert line.startswith(f"Crawl {CRAWL} (")
    assert line.endswith(", finished): nothing changed")
    (line,) = table(capsys, database, "--since", "2026-11-20", "--field", "score")
    assert line == "Since 2026-11-20 00:00: no score changed"


def test_people_see_the_first_ones_and_how_to_see_all(
    database: Database, stored: MongoDatabase[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    add_crawl(stored)
    for number in range(21):
        add_item(stored, id=f"{number}", first_crawled_at=minute(1))
    lines = table(capsys, database)
    assert lines[2:4] == ["New", "id name"]
    assert len(lines[4:-1]) == 20
    assert lines[-1] == "… and 1 more: --limit 21 shows them all"
    assert len(table(capsys, database, "--limit", "21")) == 4 + 21
    assert len(changes(capsys, database)) == 21


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--crawl", "2027"), f"--crawl: no crawl '2027'; there are {CRAWL}, 20251118-"),
        (("--crawl", "2025"), f"several crawls begin with '2025'; there are {CRAWL}, 20251118-"),
        (("--crawl", ".*"), "no crawl '.*'"),
        (("--crawl", "\udcff"), "no crawl"),
        (("--since", "7 days"), "--since '7 days': use 7d, 12h, a date"),
        (("--since", "2126-11-20"), "'2126-11-20' lies in the future"),
        (("--since", "7d", "--crawl", CRAWL), "not both"),
        (("--field", "price$"), "a book has no 'price$', but authors, catalog, "),
        (("--limit", "0"), "--limit='0': use a whole number from 1 on"),
        (("1",), "'1' is unknown; for one item use scrapy show --history"),
    ],
)
@pytest.mark.usefixtures("told")
def test_odd_input_is_refused_with_what_there_is(
    database: Database, given: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UsageError) as refused:
        look(Command(), BooksSpider, database, *given)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_last_crawl_is_of_this_catalogue_and_no_restore(
    database: Database, stored: MongoDatabase[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    add_crawl(stored, "movies")
    with pytest.raises(Trouble, match="was recorded to its end yet: type scrapy crawl books"):
        look(Command(), BooksSpider, database)
    add_crawl(stored, _id="20261001-1")
    add_crawl(stored, _id="20261001-12", ended=minute(20))
    add_crawl(stored, _id="20261001-2", ended=minute(15))
    add_crawl(stored, _id="20261002-1", ended=minute(30), reason="restored")
    add_crawl(stored, _id="20261002-2", ended=minute(30), collection="others")
    assert "Crawl 20261001-12 (" in table(capsys, database)[0]
    assert "Crawl 20261001-1 (" in table(capsys, database, "--crawl", "20261001-1")[0]
    assert ", restored)" in table(capsys, database, "--crawl", "20261002")[0]


def test_what_goes_wrong_is_one_line_with_an_exit_code(database: Database) -> None:
    ended = run("changes", **database.environment)
    assert (ended.exitcode, ended.output) == (1, "")
    assert ended.log.endswith(
        f"{database.name}.books was recorded to its end yet: type scrapy crawl books\n"
    )
    ended = run("changes", "--since", "soon", **database.environment)
    assert ended.exitcode == 2
    assert ended.log.startswith("scrapy changes: --since 'soon': use 7d")
    away = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200"
    nobody = run("changes", **database.environment | {"MONGO_URI": away})
    assert nobody.exitcode == 1
    assert "no MongoDB answers at 127.0.0.1:1" in nobody.log
    assert [len(one.log.splitlines()) for one in (ended, nobody)] == [1, 1]


@pytest.fixture
def shanghai(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Shanghai")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("shanghai")
@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-20", datetime(2026, 11, 19, 16, tzinfo=timezone.utc)),
        ("2026-11-20T18:30", datetime(2026, 11, 20, 10, 30, tzinfo=timezone.utc)),
        ("2026-11-20T18:30Z", datetime(2026, 11, 20, 18, 30, tzinfo=timezone.utc)),
        ("2026-11-20T18:30+02:00", datetime(2026, 11, 20, 16, 30, tzinfo=timezone.utc)),
    ],
)
def test_dates_are_in_local_time_unless_they_say_otherwise(text: str, moment: datetime) -> None:
    assert parse_since(text) == moment


@pytest.mark.parametrize(("text", "ago"), [("7d", timedelta(7)), ("12h", timedelta(hours=12))])
def test_a_span_may_be_named_by_its_length(text: str, ago: timedelta) -> None:
    before = now()
    assert before <= parse_since(text) + ago <= now()


@pytest.mark.parametrize("text", ["", "7", "d", "-7d", "7w", "1e3d", "999999d", "0001-01-01", "x"])
def test_no_other_words_name_a_span(text: str) -> None:
    with pytest.raises(UsageError, match="use 7d, 12h, a date"):
        parse_since(text)
