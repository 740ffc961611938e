"""`scrapy show`: stored items and their versions, for people and for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from scrapy.exceptions import UsageError

from spa5.catalogue.text import Trouble
from spa5.commands.show import Command
from spa5.spiders.books import BooksSpider
from spa5.spiders.movies import MoviesSpider
from tests.helpers.crawls import run
from tests.helpers.lookups import CRAWL, add_item, add_version, look, minute
from tests.helpers.products import ProductsSpider
from tests.helpers.terminal import scrapy_on_terminal

if TYPE_CHECKING:
    from pathlib import Path

    from pymongo.database import Database as MongoDatabase

    from spa5.catalogue.spider import CatalogueSpider
    from tests.helpers.databases import Database

TEXT = "满纸荒唐言，一把辛酸泪。" * 10


@pytest.fixture
def stored(database: Database) -> MongoDatabase[dict[str, Any]]:
    mongo = database.books.database
    book: dict[str, Any] = {"name": "红楼梦\x1b[2J", "authors": ["曹雪芹", "高鹗"], "isbn": None}
    book |= {"score": 8.5, "introduction": f"{TEXT}  \r\n\r\n都云作者痴", "published_at": minute(0)}
    book |= {"comments": [{"id": "1", "content": "好"}, {"id": "2", "content": "很好"}]}
    book |= {"delisted_at": minute(9), "extra": {"edition": 2}, "cover": "https://site.example/1"}
    add_item(mongo, id="1", changed_at=minute(2), **book)
    add_version(mongo, "1", (-100_000, 2), {"score": 8.0, "extra": None}, absent=["extra"])
    add_version(mongo, "1", (2, 3), {"score": 1.0})  # left of a write that never happened
    add_item(mongo, id="2", name="Café (a.b)", authors=["A"], score=7.0, cover="https://x/2")
    add_item(mongo, id="3", name="CAFÉ (aXb)", authors=[], score=None, cover=None)
    return mongo


def show(
    capsys: pytest.CaptureFixture[str],
    database: Database,
    *given: str,
    spider: type[CatalogueSpider] = BooksSpider,
    exitcode: int = 0,
) -> tuple[list[str], str]:
    """The lines that `scrapy show` prints, with single blanks, and what it says of trouble."""
    assert look(Command(), spider, database, *given) == exitcode
    printed = capsys.readouterr()
    return [" ".join(line.split()) for line in printed.out.splitlines()], printed.err


@pytest.mark.usefixtures("stored")
def test_people_see_each_field_the_bookkeeping_and_the_history(database: Database) -> None:
    ended = run("show", "9", "1", "--history", **database.environment, TZ="Asia/Shanghai")
    assert (ended.exitcode, ended.log) == (1, "book 9 is not stored\n")
    lines = [" ".join(line.split()) for line in ended.output.splitlines()]
    assert lines == [
        *("id 1", "name 红楼梦\\x1b[2J", "authors 曹雪芹, 高鹗", "isbn"),
        *("cover https://site.example/1", f"introduction {TEXT}", "", "都云作者痴", "score 8.5"),
        *("comments id: 1, content: 好", "id: 2, content: 很好"),
        *("published_at 2025-11-25T17:06:03+00:00", "extra edition: 2"),
        *("first crawled 2025-09-17 14:26", "last crawled 2025-09-17 14:26"),
        *("changed 2025-11-26 01:08", "last seen 2025-09-17 14:26", "delisted 2025-11-26 01:15"),
        *(f"crawl {CRAWL}", "", "History", ""),
        f"From 2025-09-17 14:26 until 2025-11-26 01:08 (crawl {CRAWL})",
        *("field before after", "score 8.0 8.5", "extra {'edition': 2}"),
    ]


@pytest.mark.usefixtures("stored")
def test_programs_get_the_whole_document(database: Database, tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_text("3\n1, 3\n")
    ended = run("show", f"@{file}", "--json", "--history", **database.environment)
    assert (ended.exitcode, ended.log) == (0, "")
    third, first = (json.loads(line) for line in ended.output.splitlines())
    own = database.books.find_one({"id": "1"}, {"_id": 0})
    assert own
    assert first.keys() == {*own, "history"}
    assert (first["name"], first["published_at"]) == ("红楼梦\x1b[2J", "2025-11-25T17:06:03Z")
    assert first["comments"] == own["comments"]
    fields = {"score": {"before": 8.0, "after": 8.5}, "extra": {"after": {"edition": 2}}}
    times = {"from": "2025-09-17T06:26:03Z", "until": "2025-11-25T17:08:03Z"}
    assert first["history"] == [{**times, "crawl": CRAWL, "fields": fields}]
    assert (third["id"], third["history"]) == ("3", [])


@pytest.mark.usefixtures("stored")
def test_a_narrow_terminal_folds_long_texts_beside_the_names(database: Database) -> None:
    with scrapy_on_terminal("show", "1", columns=40, **database.environment) as terminal:
        assert terminal.end() == 0
    rows = terminal.rows
    begin = next(number for number, row in enumerate(rows) if row.startswith("introduction"))
    text = ""
    while rows[begin].startswith(("introduction", "  ")):
        text += rows[begin].removeprefix("introduction").strip().replace(" ", "")
        begin += 1
    assert text == TEXT
    assert "\x1b[2J" not in terminal.output.decode()


@pytest.mark.usefixtures("stored")
def test_names_are_searched_for_a_text_in_any_case(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    database.books.insert_one({"name": "Café (another program's)"})
    lines, said = show(capsys, database, "--find", "café (a")
    assert lines == ["id name authors score", "2 Café (a.b) A 7.0", "3 CAFÉ (aXb)"]
    assert said == ""


@pytest.mark.usefixtures("stored")
def test_a_text_to_find_is_no_pattern(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, _ = show(capsys, database, "--find", "a.b)")  # one: it is shown whole
    assert lines[:3] == ["id 2", "name Café (a.b)", "authors A"]
    for text in (".*", "^", "(a|b)", "\udcff", "高鹗"):  # the last is an author
        lines, said = show(capsys, database, "--find", text, exitcode=1)
        assert lines == []
        assert said.startswith("no book has ")
        assert said.endswith(" in its name\n")


def test_only_the_first_found_are_shown_to_people(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(25):
        add_item(database.books.database, id=f"{number:02}", name=f"Novel {number}")
    lines, _ = show(capsys, database, "--find", "novel")
    assert lines[0] == "id name authors cover score"
    assert [line[:2] for line in lines[1:-1]] == [f"{number:02}" for number in range(20)]
    assert lines[-1] == "… and 5 more: --limit 25 shows them all"
    assert len(show(capsys, database, "--find", "novel", "--limit", "25")[0]) == 26
    assert len(show(capsys, database, "--find", "novel", "--json")[0]) == 25
    blocks, _ = show(capsys, database, "--find", "novel", "--limit", "2", "--history")
    assert blocks.count("No history: no change of it was recorded") == 2
    assert blocks[-1] == "… and 23 more: --limit 25 shows them all"


def test_movies_have_whole_numbers_as_ids(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    mongo = database.books.database
    add_item(mongo, "movies", id=7, name="霸王别姬", minute=171, changed_at=minute(2))
    add_version(mongo, 7, (0, 2), {"minute": 170}, "movies")
    lines, said = show(capsys, database, "07", "8", "--history", spider=MoviesSpider, exitcode=1)
    assert lines[:3] == ["id 7", "name 霸王别姬", "minute 171"]
    assert lines[-1] == "minute 170 171"
    assert said == "movie 8 is not stored\n"
    ended = run("show", "--spider", "movies", "--find", "别姬", "--json", **database.environment)
    assert json.loads(ended.output)["id"] == 7


def test_a_catalogue_without_names_is_searched_by_its_first_listed_text(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    mongo = database.books.database
    mongo["products"].insert_one({"sku": "a-1", "title": "Tea", "price": 2.0, "other": "name"})
    lines, _ = show(capsys, database, "--find", "tea", spider=ProductsSpider)
    assert lines == ["sku a-1", "title Tea", "price 2.0", "other name"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "give ids, @FILE with one a line, or --find TEXT"),
        (("1", "--find", "a"), "give ids, @FILE with one a line, or --find TEXT"),
        (("1", "$ne"), "use digits"),
        (("@missing.txt",), "No such file"),
        (("--find", "a", "--limit", "x"), "--limit='x': use a whole number"),
    ],
)
@pytest.mark.usefixtures("stored")
def test_odd_input_is_refused(database: Database, given: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        look(Command(), BooksSpider, database, *given)
    assert said in str(refused.value)


def test_where_nothing_is_stored_it_says_what_to_type(database: Database) -> None:
    for given in (("1",), ("--find", "a")):
        with pytest.raises(Trouble, match=r"^nothing is stored in .* yet: type scrapy crawl books"):
            look(Command(), BooksSpider, database, *given)
    assert database.books.database.list_collection_names() == []


def test_many_items_are_one_query_by_the_index(database: Database, tmp_path: Path) -> None:
    mongo = database.books.database
    for number in range(300):
        add_item(mongo, id=f"{number}", name="a")
    file = tmp_path / "ids.txt"
    file.write_text("\n".join(f"{number}" for number in range(0, 300, 2)))
    mongo.command("profile", 2)
    assert look(Command(), BooksSpider, database, f"@{file}") == 0
    mongo.command("profile", 0)
    asked = {"ns": database.books.full_name, "op": "query", "command.filter.id": {"$exists": True}}
    (query,) = mongo["system.profile"].find(asked)
    assert (query["docsExamined"], query["planSummary"]) == (150, "IXSCAN { id: 1 }")


def test_what_goes_wrong_is_one_line_with_an_exit_code(database: Database) -> None:
    empty = run("show", "1", **database.environment)
    assert (empty.exitcode, empty.output) == (1, "")
    assert empty.log.startswith("nothing is stored in ")
    odd = run("show", "$ne", **database.environment)
    assert odd.exitcode == 2
    assert odd.log.startswith("scrapy show: ids='$ne': ")
    away = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200"
    nobody = run("show", "1", **database.environment | {"MONGO_URI": away})
    assert nobody.exitcode == 1
    assert "no MongoDB answers at 127.0.0.1:1" in nobody.log
    assert [len(one.log.splitlines()) for one in (empty, odd, nobody)] == [1, 1, 1]
