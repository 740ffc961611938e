"""`scrapy genspider -t catalogue`: from the URL of an API to stored items, in a copy of spa5."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from scrapy.exceptions import UsageError

from spa5.catalogue.layout import Layout
from tests.helpers.http import Handler, listening
from tests.helpers.mongods import reserved_port
from tests.helpers.scrapyds import copy_project
from tests.helpers.warm import Warm
from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.helpers.databases import Database

    Api = Callable[[str, dict[str, str]], Any]  # path, query -> JSON, text, or None: 404

MOST_SECONDS = 300  # then a command hangs
MOST_REQUESTS = 7  # with robots.txt


class Project:
    """A copy of the project."""

    def __init__(self, folder: Path) -> None:
        copy_project(folder)
        self.folder = folder

    def scrapy(self, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run("scrapy", *args, **environment)

    def run(self, module: str, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        own = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        with Warm(
            [module, *args],
            cwd=self.folder,
            env=own | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            output, errors = process.communicate(timeout=MOST_SECONDS)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def generate(self, name: str, url: str) -> str:
        """Return the spider's code, of which nothing had to be filled in."""
        ended = self.scrapy("genspider", "-t", "catalogue", name, url)
        assert (ended.returncode, ended.stderr) == (0, "")
        code = self.code(name)
        assert "fill in" not in code
        return code

    def code(self, name: str) -> str:
        return (self.folder / "spa5" / "spiders" / f"{name}.py").read_text()

    def spiders(self) -> list[str]:
        return self.scrapy("list").stdout.split()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@contextmanager
def serving(api: Api) -> Iterator[tuple[str, list[str]]]:
    """The URL of an API, and what it is asked for, in the order in which that comes."""
    asked: list[str] = []

    class Site(Handler):
        def do_GET(self) -> None:
            asked.append(self.path)
            parts = urlsplit(self.path)
            answer = api(parts.path, dict(parse_qsl(parts.query)))
            body = answer if isinstance(answer, str) else json.dumps(answer)
            self.send_json(body, 404 if answer is None else 200)

    with listening(Site) as port:
        yield f"http://127.0.0.1:{port}", asked


def product(number: int) -> dict[str, Any]:
    return {"sku": f"AB-{number:03}x", "title": f"Thing {number}", "price": f"{number}.50"}


PRODUCTS = [product(number) for number in range(60)]
MORE = {
    "made": "2020-02-03",
    "stock": 5,
    "tags": ["a"],
    "note": "one\ntwo",
    "parts": [{"name": "lid", "grams": 7}],
    "is_new": True,
}


def shop(path: str, query: dict[str, str]) -> Any:
    """Pages by number, at most 25 products each; entries and count within `data`."""
    if path == "/products":
        size = min(int(query.get("per_page", 20)), 25)
        begin = (int(query.get("page", 1)) - 1) * size
        items = PRODUCTS[begin : begin + size]
        return {"data": {"page": 1, "total_pages": 3, "items": items, "total": len(PRODUCTS)}}
    found = [one for one in PRODUCTS if path == f"/products/{one['sku']}"]
    return found[0] | MORE if found else None


def assert_crawls(project: Project, name: str, database: Database) -> list[dict[str, Any]]:
    """A crawl of the new spider is complete; return what it has stored."""
    ended = project.scrapy("crawl", name, **database.environment)
    assert ended.returncode == 0, ended.stderr
    assert "Spider closed (finished)" in ended.stderr
    return list(database.books.database[name].find())


def test_from_genspider_to_every_item_stored_in_a_collection_of_its_own(
    project: Project, database: Database
) -> None:
    with serving(shop) as (url, asked):
        code = project.generate("products", f"{url}/products?page=1")
        assert len(asked) <= MOST_REQUESTS
        stored = assert_crawls(project, "products", database)
    assert len(code.splitlines()) < 65
    assert sorted(one["sku"] for one in stored) == [one["sku"] for one in PRODUCTS]
    assert [stored[0][name] for name in ("stock", "tags", "note")] == [5, ["a"], "one\ntwo"]
    assert stored[0]["price"] == float(product(int(stored[0]["sku"][3:6]))["price"])
    assert stored[0]["made"].isoformat() == "2020-02-03T00:00:00"
    assert stored[0]["parts"] == [{"name": "lid", "grams": 7}]
    assert stored[0]["extra"] == {"is_new": True}


def test_where_the_api_is_as_expected_the_spider_has_no_hooks(
    project: Project, database: Database
) -> None:
    with running_site(40) as site:
        code = project.generate("novels", f"{site.url}/api/book/")
        stored = assert_crawls(project, "novels", database)
    assert "def " not in code
    assert sorted(one["id"] for one in stored) == sorted(site.catalogue.ids)
    for line in (
        "id: str = key()",
        "name: str | None = line(listed=True)",
        "authors: list[str] = lines(listed=True)",
        "page_number: int | None = integer()",
        "updated_at: datetime | None = moment()",
    ):
        assert f"    {line}\n" in code


def paged(begin: str, size: str | None, *, by_number: bool) -> Api:
    """An API whose paging parameters have these names. Without `size` a page has seven entries."""

    def answer(path: str, query: dict[str, str]) -> Any:
        key = path.removeprefix("/api/things").strip("/")
        if not key:
            limit = int(query.get(size, 7)) if size else 7
            first = int(query.get(begin, by_number))
            first = (first - 1) * limit if by_number else first
            listed = [{"id": number} for number in range(20)][first : first + limit]
            return {"meta": {"total": 20, "count": len(listed)}, "things": listed}
        return {"id": int(key), "name": f"Thing {key}"} if path.endswith("/") else None

    return answer


@pytest.mark.parametrize(
    ("begin", "size", "by_number", "query"),
    [
        ("offset", "limit", False, "limit={page.limit}&offset={page.offset}"),
        ("skip", "limit", False, "limit={page.limit}&skip={page.offset}"),
        ("page", "limit", True, "page={page.number}&limit={page.limit}"),
        ("page", "per_page", True, "page={page.number}&per_page={page.limit}"),
        ("page", "page_size", True, "page={page.number}&page_size={page.limit}"),
        ("page", None, True, "page={page.number}"),
    ],
)
def test_it_finds_out_how_the_index_is_paged(
    project: Project, begin: str, size: str | None, by_number: bool, query: str
) -> None:
    with serving(paged(begin, size, by_number=by_number)) as (url, asked):
        code = project.generate("things", f"{url}/api/things/")
    assert len(asked) <= MOST_REQUESTS
    assert (f"{{self.path}}?{query}" in code) == (begin != "offset")
    assert "    id: int = key(INTEGER)\n" in code
    assert 'return data["meta"]["total"]' in code


def test_pages_whose_size_the_site_chooses_are_crawled(
    project: Project, database: Database
) -> None:
    with serving(paged("page", None, by_number=True)) as (url, _):
        project.generate("things", f"{url}/api/things")
        stored = assert_crawls(project, "things", database)
    assert sorted(one["id"] for one in stored) == list(range(20))


def test_what_else_stands_in_the_url_is_asked_for_too(project: Project) -> None:
    with serving(paged("offset", "limit", by_number=False)) as (url, asked):
        given = f"kind=small&language=en&{'x' * 30}=1"
        code = project.generate("things", f"{url}/api/things/?{given}&limit=5")
    assert f"/api/things/?{given}&limit=3&offset=0" in asked
    assert f"?{given}&" in code


HOSTILE = [
    *(
        'x"] + __import__("os").system("touch hacked") + ["',
        "a\nimport os",
        "a\\",
        "{self}",
        "${a}",
    ),
    *(
        "class",
        "from_api",
        "unread",
        "extra",
        "__class__",
        "_id",
        "crawled_at",
        "",
        "ｆｕｌｌ",
        "名",
    ),
    *("text", "line", "key", "objects", "str", "list", "Any", "datetime", "x" * 200),
]


def hostile(path: str, query: dict[str, str]) -> Any:
    odd = dict.fromkeys(HOSTILE, 'text" + """ \\ {x} $y')
    entry = {"id": "7", "name": "Fine", **odd}
    if path == "/api/things/":
        return {name: [entry] for name in HOSTILE} | {"data": {"list": [entry], "count": 1}}
    if path != "/api/things/7/":
        return None
    members = [{"listed": "x", name: "y"} for name in HOSTILE]
    return entry | {"good": [{"text": "x"}], "members": members, "deep": [[["x"]]]}


def test_hostile_names_neither_become_code_nor_break_it(
    project: Project, database: Database
) -> None:
    with serving(hostile) as (url, _):
        code = project.generate("things", f"{url}/api/things/")
        (stored,) = assert_crawls(project, "things", database)
    assert code.isascii()
    assert "system" not in code
    assert not (project.folder / "hacked").exists()
    assert stored["name"] == "Fine"
    assert stored["good"] == [{"text": "x"}]
    assert stored["extra"].keys() == {*HOSTILE, "members", "deep"}


def forbidden(path: str, _: dict[str, str]) -> Any:
    return "User-agent: *\nDisallow: /api/\n" if path == "/robots.txt" else {"results": [{"id": 1}]}


UNCLEAR: dict[str, tuple[Api, str]] = {
    "missing": (lambda path, _: None, "answers with status 404"),
    "html": (lambda path, _: "<html>", "is not JSON"),
    "list": (lambda path, _: [{"id": 1}], "is JSON, but not an object"),
    "empty": (lambda path, _: {"results": []}, "lists no objects"),
    "deep": (lambda path, _: '{"a":' * 100_000, "is nested too deeply"),
    "robots": (forbidden, "Forbidden by robots.txt"),
    "one page": (lambda path, _: {"results": [{"id": n} for n in range(9)]}, "in an unknown way"),
    "no detail": (lambda path, query: {"results": [{"id": 1}]} if query else None, "no detail"),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_an_api_that_can_not_be_made_out_gives_a_skeleton_and_one_line(
    project: Project, case: str
) -> None:
    api, words = UNCLEAR[case]
    with serving(api) as (url, asked):
        ended = project.scrapy("genspider", "-t", "catalogue", "things", f"{url}/api/things/")
    assert ended.returncode == 0
    assert words in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert len(asked) <= MOST_REQUESTS
    assert project.code("things").count("# fill in") >= 4
    compile(project.code("things"), "things.py", "exec")


def test_a_site_that_can_not_be_reached_gives_a_skeleton_and_one_line(project: Project) -> None:
    with reserved_port() as port:
        url = f"http://127.0.0.1:{port}/api/things/?key=5ecret"
        ended = project.scrapy("genspider", "-t", "catalogue", "things", url)
    assert (ended.returncode, ended.stderr.count("\n")) == (0, 1)
    assert "can't be asked" in ended.stderr
    assert "5ecret" not in ended.stdout + ended.stderr
    assert 'path = "/api/things/"' in project.code("things")
    assert "things" in project.spiders()


def test_what_it_generates_passes_the_projects_checks(project: Project) -> None:
    """With a long URL, with hostile names, and where there is much to fill in."""
    long = f"/api/things/?kind=small&language=en&{'x' * 30}=1&limit=5"
    cases: list[tuple[str, Api, str]] = [
        ("queried", paged("offset", "limit", by_number=False), long),
        ("hostile", hostile, "/api/things/"),
        ("skeleton", lambda path, _: None, "/api/things/"),
    ]
    for name, api, path in cases:
        with serving(api) as (url, _):
            project.scrapy("genspider", "-t", "catalogue", name, f"{url}{path}")
    assert {"queried", "hostile", "skeleton"} < set(project.spiders())
    for module, *args in (
        ("ruff", "check", "spa5"),
        ("ruff", "format", "--check", "spa5"),
        ("mypy", "spa5/spiders"),
    ):
        ended = project.run(module, *args)
        assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("name", "url"),
    [("../x", "http://127.0.0.1/api/"), ("", "http://127.0.0.1/"), ("x", "http://me:5ecret@x/")],
)
def test_a_name_or_url_that_can_not_be_used_is_one_line_and_nothing_is_written(
    project: Project, name: str, url: str
) -> None:
    before = sorted(project.folder.rglob("*.py"))
    ended = project.scrapy("genspider", "-t", "catalogue", name, url)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert ended.stderr.startswith("scrapy genspider: ")
    assert "5ecret" not in ended.stderr
    assert sorted(project.folder.rglob("*.py")) == before


@pytest.mark.parametrize(
    "url", ["ftp://x/", "http://[/", "http://", "http://x:y@z/", 'http://x"y/', f"x/?{'a' * 99}"]
)
def test_a_url_that_code_can_not_hold_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        Layout.at(url)


def test_a_spider_that_exists_is_left_as_it_is(project: Project) -> None:
    before = project.code("books")
    ended = project.scrapy("genspider", "-t", "catalogue", "books", "http://127.0.0.1/api/")
    assert "already exists" in ended.stdout
    assert project.code("books") == before


def test_scrapys_own_templates_go_on_working(project: Project) -> None:
    listed = project.scrapy("genspider", "--list").stdout.split()
    assert {"catalogue", "basic", "crawl", "csvfeed", "xmlfeed"} < set(listed)
    ended = project.scrapy("genspider", "other", "example.com")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "other" in project.spiders()
    assert "path = $api_path" in project.scrapy("genspider", "--dump", "catalogue").stdout
    assert "$classname" in project.scrapy("genspider", "--dump", "basic").stdout
