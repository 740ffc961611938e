"""`scrapy doctor`: what is wrong is said, with what to do, and nothing is changed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

import pytest
from pymongo import MongoClient
from scrapy.settings import Settings

from spa5.doctor import checks, machine
from spa5.doctor.examine import examine as examined
from spa5.mongo.server import EmbeddedServer
from tests.helpers.crawls import ROOT, run, scrapy
from tests.helpers.disk import small_disk
from tests.helpers.embedded import (
    USER,
    fake_wheel,
    kill,
    next_line,
    ping,
    python,
    servers,
    wait_for_end,
)
from tests.helpers.http import Handler, listening
from tests.helpers.mongods import PASSWORD, replica_set
from tests.helpers.redises import RedisServer, needs_redis, running_redis
from tests.helpers.terminal import scrapy_on_terminal
from tests.helpers.tls import https_site, self_signed
from tests.standin.site import RunningSite as Site
from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from spa5.doctor.checks import Line
    from tests.helpers.databases import Database

NOWHERE = "https://nowhere"  # not valid, which is known at once
PROMISED_SECONDS = 10  # on a machine that has time
MOST_SECONDS = 60  # on any
LOCAL = ("Python", "packages", "reactor", "modules", "settings")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running_site(20) as site:
        yield site


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis("--requirepass", "right") as server:
        yield server


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "mongodb"
    left = servers(tmp_path / "mongodb")
    for pid in left:
        kill(pid)
    assert left == []


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The project, to be broken."""
    shutil.copy(ROOT / "scrapy.cfg", tmp_path)
    shutil.copytree(ROOT / "spa5", tmp_path / "spa5")
    return tmp_path


def examine(site: str, **settings: str) -> dict[str, Line]:
    """What the doctor finds, by name; here in this process, which is quicker."""
    wanted = Settings()
    wanted.setmodule("spa5.settings", priority="project")
    wanted.setdict({"SITE_URL": site, "MONGO_URI": NOWHERE} | settings, priority="cmdline")

    async def collect() -> list[Line]:
        return [line async for line in examined(wanted, seconds=MOST_SECONDS)]

    lines = asyncio.run(collect())
    for line in lines:
        assert "\n" not in line.text
        assert len(line.text) < 500
        assert "hunter2" not in line.text
        assert quote_plus(PASSWORD) not in line.text
    return {line.name: line for line in lines}


def assert_fails(lines: dict[str, Line], name: str, *words: str, skipped: str = "") -> None:
    """That check fails with these words, and the ones that need it are skipped."""
    assert lines[name].status == "FAIL"
    for word in words:
        assert word in lines[name].text
    for one in skipped.split():
        assert lines[one] == ("skip", one, f"see {name}")


def statuses(output: str) -> dict[str, str]:
    return {line[6:19].strip(): line[:6].strip() for line in output.splitlines()}


@contextmanager
def silent() -> Iterator[str]:
    """The address of what accepts, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def refusing_proxy() -> Iterator[str]:
    """The address of a proxy that wants another password."""

    class Proxy(Handler):
        def do_CONNECT(self) -> None:
            self.send_response(407)
            self.end_headers()

    with listening(Proxy) as port:
        yield f"127.0.0.1:{port}"


@contextmanager
def swallowing() -> Iterator[str]:
    """The address of what drops all packets: its backlog is full."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as server,
        socket.create_connection(server.getsockname()),
    ):
        yield f"127.0.0.1:{server.getsockname()[1]}"


# The command


def test_where_all_is_well_it_says_so_and_writes_nothing(site: Site, database: Database) -> None:
    ended = run("doctor", SITE_URL=site.url, **database.environment)
    well = (*LOCAL, "site", "MongoDB", "writes", "index")
    assert statuses(ended.output) == dict.fromkeys(well, "ok") | {"robots": "warn"}
    assert (ended.exitcode, ended.log) == (0, "")
    assert database.books.database.list_collection_names() == []


# A name whose servers swallow what they are asked: the resolver waits, and can't be told to stop.
RESOLVER = """
import socket, time
resolve = socket.getaddrinfo
def getaddrinfo(host, *args, **kwargs):
    if host == "lost.test":
        time.sleep(600)
    return resolve(host, *args, **kwargs)
socket.getaddrinfo = getaddrinfo
"""


def test_with_everything_down_it_ends_in_time_and_tells_no_secret(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(RESOLVER)
    with silent() as quiet, swallowing() as lost:
        environment = {
            "SITE_URL": f"http://{quiet}",
            "MONGO_URI": f"mongodb://me:hunter2@{lost}/?serverSelectionTimeoutMS=600000",
            "REDIS_URL": "redis://:hunter2@lost.test",
            "CRAWL_ID": "a",
            "PYTHONPATH": str(tmp_path),
        }
        with scrapy("doctor", **environment) as process:
            assert process.stdout
            first = process.stdout.readline()  # how long Python takes to start is not ours
            output, log = process.communicate(timeout=MOST_SECONDS)
    assert checks.LIMIT_SECONDS + checks.CLOSING_SECONDS < PROMISED_SECONDS
    down = dict.fromkeys(("site", "MongoDB", "Redis"), "FAIL")
    assert down.items() <= statuses(first + output).items()
    assert f"http://{quiet}/api/book/?limit=1&offset=0 can't be reached" in output
    assert "MongoDB      no answer within 5.5 s" in output
    assert "no Redis answers at lost.test:6379" in output
    assert "hunter2" not in output
    assert (process.returncode, log) == (1, "")


@pytest.mark.parametrize(("columns", "indent"), [(50, 19), (40, 6)])
def test_on_a_terminal_the_table_is_folded(columns: int, indent: int) -> None:
    settings = ("-s", "SITE_URL=nowhere")
    with scrapy_on_terminal("doctor", *settings, columns=columns, COLUMNS="") as terminal:
        assert terminal.end() == 1
    rows = terminal.rows
    assert rows[0].startswith("ok    Python       3.")
    packages = next(number for number, row in enumerate(rows) if row.startswith("ok    packages"))
    assert rows[packages + 1].startswith(" " * indent)
    assert rows[packages + 1][indent] != " "
    assert "SITE_URL='nowhere':" in " ".join(" ".join(rows).split())
    assert rows[-1].split() == ["skip", "the", "rest", "see", "above"]


def test_an_egg_is_examined_where_there_is_no_project(tmp_path: Path, site: Site) -> None:
    egg = tmp_path / "spa5.egg"
    with zipfile.ZipFile(egg, "w") as archive:
        for file in (ROOT / "spa5").rglob("*.py"):
            archive.write(file, file.relative_to(ROOT))
    ended = run_at(tmp_path, PYTHONPATH=str(egg), SCRAPY_SETTINGS_MODULE="spa5.settings")
    found = statuses(ended.stdout)
    assert dict.fromkeys(LOCAL, "ok").items() <= found.items()
    assert found["MongoDB"] == "FAIL"
    assert "no requirements.txt to compare with" in ended.stdout
    assert ended.stderr == ""


@pytest.mark.parametrize("package", ["motor", "aiohttp"])
def test_without_a_package_it_says_what_to_install(copy: Path, package: str) -> None:
    (copy / f"{package}.py").write_text("raise ModuleNotFoundError('it is gone')")
    ended = run_at(copy)
    assert "can't be imported (ModuleNotFoundError: it is gone): pip install" in ended.stdout
    assert statuses(ended.stdout)["the rest"] == "skip"
    assert (ended.returncode, ended.stderr) == (1, "")


def run_at(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scrapy", "doctor", "-s", f"MONGO_URI={NOWHERE}"],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


# The spider

INDEX_OF_MOVIES = {"count": 104, "results": [{"id": 1, "name": "A"}]}


@pytest.fixture
def movies(site: Site) -> Iterator[Site]:
    """A site that has a movie, too."""
    pages = {"/api/movie/": INDEX_OF_MOVIES, "/api/movie/1/": {"id": 1, "name": "A"}}
    site.control(override={path: {"body": json.dumps(page)} for path, page in pages.items()})
    yield site
    site.control(override=dict.fromkeys(pages))


def test_a_spider_may_be_named(movies: Site, database: Database) -> None:
    settings = {"SITE_URL": movies.url, "MONGO_URI": database.uri}
    ended = run("doctor", "--spider", "movies", **settings)
    assert f"{movies.url} answers, with 104 movies" in ended.output
    assert "movies.movies" in ended.output
    assert ended.exitcode == 0


def test_a_spider_that_does_not_exist_is_one_line() -> None:
    ended = run("doctor", "--spider", "nope")
    assert "FAIL  settings     there is no catalogue 'nope', but books" in ended.output
    assert (ended.exitcode, ended.log) == (1, "")


# This machine


def test_packages_are_compared_with_the_requirements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(
        "# Comment\n\nScrapy>=2  # another\nmotor>=99\nnot-there\nnor-this; sys_platform == 'no'\n"
    )
    monkeypatch.setattr(machine, "_REQUIREMENTS", requirements)
    lines = examine("http://127.0.0.1:1")
    assert_fails(lines, "packages", "motor 3", "is not >=99", "not-there is not installed")
    assert_fails(lines, "packages", "pip install -r requirements.txt")
    assert "crapy" not in lines["packages"].text
    assert "nor-this" not in lines["packages"].text


def test_another_reactor_fails() -> None:
    lines = examine(
        "http://127.0.0.1:1", TWISTED_REACTOR="twisted.internet.pollreactor.PollReactor"
    )
    assert_fails(lines, "reactor", "TWISTED_REACTOR", "asyncio")


@pytest.mark.parametrize("name", ["SITE_URL", "CONCURRENT_REQUESTS", "MONGO_RETRY_SECONDS"])
def test_settings_that_a_crawl_refuses_fail(name: str) -> None:
    lines = examine("http://127.0.0.1:1", **{name: "x"})
    assert_fails(lines, "settings", f"{name}='x'")
    assert lines["the rest"].status == "skip"


# The site


def test_a_site_that_can_not_be_reached_fails() -> None:
    lines = examine("http://127.0.0.1:1")
    assert_fails(lines, "site", "Connection refused", "SITE_URL", skipped="robots")


INDEX, DETAIL = "/api/book/", "/api/book/{one}/"
FIRST = f"{INDEX}?limit=1&offset=0"


@pytest.mark.parametrize(
    ("path", "answer", "status", "said"),
    [
        (INDEX, {"status": 503}, "FAIL", "status 503"),
        (INDEX, {"status": 301, "headers": {"Location": "https://a/"}}, "FAIL", "'https://a/'"),
        (INDEX, {"status": 301, "headers": {"Location": FIRST}, "times": 1}, "ok", "20 books"),
        (INDEX, {"body": "<p>", "headers": {"Content-Type": "text/html"}}, "FAIL", "(text/html)"),
        (INDEX, {"body": '{"results": 5}'}, "FAIL", "an index page without entries"),
        (INDEX, {"body": '{"results": [5]}'}, "FAIL", "no usable book"),
        (INDEX, {"body": '{"count": 0, "results": []}'}, "warn", "lists no book"),
        (INDEX, {"body": '{"results": [{"id": "{one}"}]}'}, "ok", "without a usable count"),
        (DETAIL, {"status": 404}, "FAIL", "status 404"),
        (DETAIL, {"body": '{"id": "7"}'}, "FAIL", "answers with book 7"),
        (DETAIL, {"body": "{}"}, "FAIL", "book without id"),
    ],
)
def test_answers_are_judged_as_a_crawl_judges_them(
    site: Site, path: str, answer: dict[str, Any], status: str, said: str
) -> None:
    one = site.catalogue.ids[0]
    path = path.replace("{one}", one)
    answer = answer | {"body": answer.get("body", "").replace("{one}", one)}
    site.control(override={path: answer})
    lines = examine(site.url)
    site.control(override={path: None})
    assert lines["site"].status == status
    assert said in lines["site"].text


def test_the_site_is_asked_for_little_and_as_a_crawl_asks(site: Site) -> None:
    site.reset()
    examine(site.url)
    asked = site.stats()
    assert (asked["index"], asked["detail"], asked["other"]) == (1, 1, 1)
    assert asked["user_agents"] == ["spa5 (Scrapy)"]


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        ({"body": "User-agent: *\nDisallow: /api/"}, "FAIL", "forbids the API to 'spa5"),
        ({"body": "User-agent: *\nDisallow: /admin/"}, "ok", "allowed"),
        ({"status": 404, "body": "<html>"}, "ok", "there is none"),
        ({"body": " <!DOCTYPE html>"}, "warn", "HTML"),
        ({"body": "#" * 600_000}, "warn", "A crawl goes on without"),
    ],
)
def test_robots_txt_is_read(site: Site, answer: dict[str, Any], status: str, said: str) -> None:
    site.control(override={"/robots.txt": answer})
    lines = examine(site.url)
    site.control(override={"/robots.txt": None})
    assert lines["robots"].status == status
    assert said in lines["robots"].text


def test_a_certificate_that_nobody_signed_fails_and_nothing_is_asked(tmp_path: Path) -> None:
    with https_site(self_signed(tmp_path)) as (url, asked):
        lines = examine(url)
        assert asked == []
        trusting = examine(url, DOWNLOAD_VERIFY_CERTIFICATES="0")
    assert_fails(lines, "site", "(self-signed certificate)", skipped="certificate robots")
    assert trusting["certificate"].status == "warn"
    assert "DOWNLOAD_VERIFY_CERTIFICATES" in trusting["certificate"].text


def test_a_certificate_that_ends_soon_is_a_warning(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    with https_site(certificate) as (url, _):
        ended = run("doctor", SITE_URL=url, MONGO_URI=NOWHERE, SSL_CERT_FILE=str(certificate))
    assert statuses(ended.output)["certificate"] == "warn"
    assert "verified, valid until 20" in ended.output
    assert ended.log == ""


def test_a_proxy_is_used_and_its_password_told_to_nobody(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://me:hunter2@127.0.0.1:1")
    assert_fails(examine(site.url), "site", "Connection refused", "the proxy")
    monkeypatch.setenv("http_proxy", "http://me:hunter2@127.0.0.1:no")
    assert_fails(examine(site.url), "site", "InvalidURL: http://127.0.0.1:no", "the proxy")
    with refusing_proxy() as address:
        monkeypatch.setenv("https_proxy", f"http://me:hunter2@{address}")
        assert_fails(examine("https://site.test"), "site", "407", "the proxy")
        fetch = ("fetch", "-L", "DEBUG", "-s", "RETRY_TIMES=0", "https://site.test/api/book/1/")
        ended = run(*fetch, SITE_URL="https://site.test")
    assert f"http://{address}" in ended.log
    assert "hunter2" not in ended.log


# MongoDB


def test_who_may_write_is_told_so(site: Site, guarded: str) -> None:
    uri = f"mongodb://writer:{quote_plus(PASSWORD)}@{guarded}/?authSource=admin"
    lines = examine(site.url, MONGO_URI=uri, MONGO_DATABASE="guarded")
    assert lines["writes"] == ("ok", "writes", "acknowledged with w=majority, j=true")
    assert lines["index"].status == "ok"


@pytest.mark.parametrize(
    ("user", "name", "said"),
    [
        (f"writer:{quote_plus(PASSWORD)}x@", "MongoDB", "password is wrong"),
        (f"reader:{quote_plus(PASSWORD)}@", "writes", "not authorized"),
        ("", "writes", "not authorized"),
    ],
)
def test_who_may_not_write_fails(site: Site, guarded: str, user: str, name: str, said: str) -> None:
    uri = f"mongodb://{user}{guarded}/?authSource=admin"
    lines = examine(site.url, MONGO_URI=uri, MONGO_DATABASE="guarded")
    assert_fails(lines, name, said, "MONGO_URI", skipped="index")


def test_copies_in_the_way_of_the_index_fail(site: Site, database: Database) -> None:
    database.books.insert_many([{"id": "7"}, {"id": "8"}, {"id": "7"}])
    lines = examine(site.url, **database.environment)
    assert_fails(lines, "index", f"{database.name}.books holds books twice", "README, Duplicates")
    database.books.delete_one({"id": "7"})
    assert "the first crawl makes it" in examine(site.url, **database.environment)["index"].text
    assert list(database.books.index_information()) == ["_id_"]


def test_an_index_that_is_not_unique_fails(site: Site, database: Database) -> None:
    database.books.create_index("id")
    lines = examine(site.url, **database.environment)
    assert_fails(lines, "index", "not unique", "dropIndex('id_1')")


def test_a_unique_index_is_well(site: Site, database: Database) -> None:
    database.books.create_index("id", unique=True, name="mine")
    lines = examine(site.url, **database.environment)
    assert lines["index"] == ("ok", "index", "unique on id")


def test_one_acknowledgement_of_a_replica_set_is_a_warning(site: Site, tmp_path: Path) -> None:
    with replica_set(tmp_path, members=1) as members:
        lines = examine(site.url, MONGO_URI=f"{members.uri}&w=1")
    assert lines["writes"].status == "warn"
    assert "w=1, j=true" in lines["writes"].text


# The embedded server


def test_where_no_books_are_yet_no_server_is_started(site: Site, directory: Path) -> None:
    lines = examine(site.url, MONGO_URI="embedded", MONGO_DATA_DIR=str(directory))
    embedded = ("mongod", "disk", "MongoDB")
    assert [lines[name].status for name in embedded] == ["ok"] * 3
    assert not directory.exists()


def test_where_books_are_the_server_is_started_and_stopped(site: Site, directory: Path) -> None:
    async def use() -> dict[str, Line]:
        server = EmbeddedServer(directory)
        await server.start()
        await server.stop()
        assert servers(directory) == []
        alone = await asyncio.to_thread(examine, site.url, **embedded)
        assert servers(directory) == []
        await server.start()
        try:
            await asyncio.to_thread(examine, site.url, **embedded)
            with MongoClient[dict[str, Any]](server.uri) as client:
                assert client.list_database_names()  # it was left to its other user
        finally:
            assert await server.stop()
        return alone

    embedded = {"MONGO_URI": "embedded", "MONGO_DATA_DIR": str(directory)}
    lines = asyncio.run(use())
    for name in ("mongod", "disk", "MongoDB", "writes", "index"):
        assert lines[name].status == "ok"
    assert str(directory) in lines["MongoDB"].text


def test_a_server_without_a_crawl_is_named_and_left_so(site: Site, directory: Path) -> None:
    def about_the_server() -> Line | None:
        lines = examine(site.url, MONGO_URI="embedded", MONGO_DATA_DIR=str(directory))
        assert "FAIL" not in [line.status for line in lines.values()]
        return lines.get("server")

    with python("-c", USER, directory) as crawl:
        uri = next_line(crawl)
        (pid,) = servers(directory)
        assert about_the_server() is None
        kill(crawl.pid)
    for _ in range(2):
        line = about_the_server()
        assert line
        assert line.status == "warn"
        assert f"process {pid} serves {directory}, but no crawl uses it" in line.text
        assert f"`kill {pid}`" in line.text
        assert ping(uri)
    os.kill(pid, signal.SIGTERM)  # as it says
    wait_for_end(pid)
    assert about_the_server() is None
    assert servers(directory) == []


def test_a_library_that_is_missing_is_named(
    site: Site, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "error while loading shared libraries: libcurl.so.4: cannot open shared object file"
    wheel = fake_wheel(tmp_path / "wheel", f"#!/bin/sh\necho 'mongod: {said}' >&2\nexit 127\n")
    monkeypatch.syspath_prepend(wheel)
    lines = examine(site.url, MONGO_URI="embedded", MONGO_DATA_DIR=str(directory))
    assert_fails(lines, "mongod", "libcurl.so.4", "libcurl 4", "MONGO_URI", skipped="disk MongoDB")


def test_a_disk_without_room_fails(site: Site, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 60) as disk:
        data = disk / "below" / "mongodb"
        lines = examine(site.url, MONGO_URI="embedded", MONGO_DATA_DIR=str(data))
        assert_fails(lines, "disk", "60 MB free", "MONGO_DATA_DIR", skipped="MongoDB")
        assert list(disk.iterdir()) == []


def test_a_directory_that_can_not_be_made_fails(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    data = tmp_path / "file" / "mongodb"
    lines = examine(site.url, MONGO_URI="embedded", MONGO_DATA_DIR=str(data))
    assert_fails(lines, "disk", f"{tmp_path / 'file'} can't be written", "MONGO_DATA_DIR")


# Redis


@needs_redis
def test_a_redis_that_answers_is_well(site: Site, redis: RedisServer) -> None:
    lines = examine(site.url, REDIS_URL=f"unix://:right@{redis.socket}", CRAWL_ID="nightly")
    assert lines["Redis"] == ("ok", "Redis", f"answers at {redis.socket}; CRAWL_ID=nightly")


@needs_redis
@pytest.mark.parametrize("user", [":hunter2@", ""])
def test_a_redis_that_refuses_the_password_fails(site: Site, redis: RedisServer, user: str) -> None:
    lines = examine(site.url, REDIS_URL=f"unix://{user}{redis.socket}", CRAWL_ID="a")
    assert_fails(lines, "Redis", "refuses user or password", "REDIS_URL")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"REDIS_URL": "redis://127.0.0.1:1"}, "needs REDIS_URL and CRAWL_ID"),
        ({"CRAWL_ID": "a"}, "needs REDIS_URL and CRAWL_ID"),
        ({"REDIS_URL": "redis://:hunter2@127.0.0.1:1", "CRAWL_ID": "a"}, "no Redis answers at"),
        ({"REDIS_URL": "redis://localhost:hunter2/0", "CRAWL_ID": "a"}, "REDIS_URL is not valid"),
    ],
)
def test_a_redis_that_can_not_be_used_fails(
    site: Site, settings: dict[str, str], said: str
) -> None:
    assert_fails(examine(site.url, **settings), "Redis", said)
