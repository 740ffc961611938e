"""MongoDB servers of other kinds than the session's: one with users, one that is too old, and
some to be killed, stopped and filled up.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import socketserver
import struct
import subprocess
from contextlib import ExitStack, contextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

import bson
from pymongo import MongoClient

from spa5.mongo.mongod import find_binary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PASSWORD = "hunter2/p@ss:w%rd"  # of the users below, as a URI may not hold it
OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013
READY = 23016  # the number of "Waiting for connections" in a mongod's log


@contextmanager
def mongod_with_users(folder: Path, database: str, password: str) -> Iterator[str]:
    """The host of a server that lets `reader` only read and `writer` also write one database."""
    with running_mongod(folder, "--auth") as server:
        host = f"127.0.0.1:{server.port}"
        with MongoClient[dict[str, Any]](server.uri) as client:
            # The first user may be made without one.
            client.admin.command("createUser", "root", pwd=password, roles=["root"])
        root = f"mongodb://root:{quote_plus(password)}@{host}/"
        with MongoClient[dict[str, Any]](root) as client:
            for user, role in (("reader", "read"), ("writer", "readWrite")):
                roles = [{"role": role, "db": database}]
                client.admin.command("createUser", user, pwd=password, roles=roles)
        yield host


@contextmanager
def old_server(version: str, wire_version: int) -> Iterator[str]:
    """The host of what answers each command as an old server does `hello` and `buildInfo`."""
    answer = bson.encode(
        {
            "ok": 1,
            "ismaster": True,
            "minWireVersion": 0,
            "maxWireVersion": wire_version,
            "maxBsonObjectSize": 1 << 24,
            "maxMessageSizeBytes": 48_000_000,
            "maxWriteBatchSize": 100_000,
            "version": version,
            "versionArray": [*map(int, version.split(".")), 0],
        }
    )

    class Connection(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(ConnectionError):
                while header := self.rfile.read(16):
                    self.reply(*struct.unpack("<iiii", header))

        def reply(self, length: int, request: int, _: int, kind: int) -> None:
            self.rfile.read(length - 16)
            if kind == OP_QUERY:
                kind, body = OP_REPLY, struct.pack("<iqii", 0, 0, 0, 1) + answer
            else:
                kind, body = OP_MSG, struct.pack("<ib", 0, 0) + answer
            self.wfile.write(struct.pack("<iiii", 16 + len(body), 0, request, kind) + body)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection) as server:
        Thread(target=server.serve_forever).start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


class Mongod:
    """A server on a port of 127.0.0.1 (0: any), which it has again when it starts again."""

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.options = options
        self.port = port
        self.pid = 0  # 0: it does not run
        self._cut = 0  # failures before those of `cut_off`

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Return when it answers."""
        self.data.mkdir(parents=True, exist_ok=True)
        log, pid_file = self.folder / "mongod.log", self.folder / "pid"
        command = [str(find_binary()), "--fork", "--quiet", "--dbpath", str(self.data)]
        command += ["--logpath", str(log), "--pidfilepath", str(pid_file)]
        command += ["--bind_ip", "127.0.0.1", "--port", str(self.port), "--nounixsocket"]
        command += ["--wiredTigerCacheSizeGB", "0.25"]
        command += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
        command += ["--setParameter", "enableTestCommands=1", *self.options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        entries = map(json.loads, log.read_text().splitlines())
        self.port = next(entry["attr"]["port"] for entry in entries if entry["id"] == READY)
        self.pid = int(pid_file.read_text())

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Send the signal, also to one that is paused, and return when it has ended."""
        with suppress(ProcessLookupError):
            self._send(number)
            self._send(signal.SIGCONT)
        self.wait_for_end()

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def pause(self) -> None:
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def _send(self, number: int) -> None:
        assert self.pid, "it does not run"  # to 0 it would be sent to the tests themselves
        os.kill(self.pid, number)

    def stand_again(self) -> None:
        """Let the only member of a set, which has stepped down, be its primary again."""
        with MongoClient[dict[str, Any]](self.uri, directConnection=True) as client:
            client.admin.command("replSetFreeze", 0)

    def wait_for_crawls(self) -> None:
        """Return when no crawl is connected: what one has sent, it is done by then."""
        crawls = {"$match": {"appName": "spa5"}}
        operations = {"$currentOp": {"allUsers": True, "idleConnections": True}}
        with MongoClient[dict[str, Any]](self.uri) as client:
            while list(client.admin.aggregate([operations, crawls])):
                pass

    def wait_for_end(self) -> None:
        with suppress(ProcessLookupError):
            pidfd = os.pidfd_open(self.pid)
            try:
                assert select.select([pidfd], [], [], 120)[0], f"mongod {self.pid} does not end"
            finally:
                os.close(pidfd)
        self.pid = 0

    def fail(self, commands: str, times: int | None = None, **how: Any) -> None:
        """Let such commands of crawls fail, as MongoDB's failCommand takes it; None: all."""
        mode = "alwaysOn" if times is None else {"times": times}
        data = {"failCommands": commands.split(), "appName": "spa5", **how}
        self._set_failures(mode, data=data)

    def cut_off(self, commands: str, collection: str, passing: int) -> None:
        """Close the connections of crawls that send such commands, after so many of them.

        `collection` is named with its database.
        """
        data = {"failCommands": commands.split(), "appName": "spa5", "namespace": collection}
        self._cut = self._set_failures({"skip": passing}, data=data | {"closeConnection": True})

    def wait_until_cut_off(self) -> None:
        """Return when the first connection has been closed."""
        times = self._cut + 1
        with MongoClient[dict[str, Any]](self.uri) as client:
            client.admin.command(
                "waitForFailPoint", "failCommand", timesEntered=times, maxTimeMS=60_000
            )

    def fail_no_more(self) -> None:
        self._set_failures("off")

    def _set_failures(self, mode: str | dict[str, int], **data: Any) -> int:
        """Return how often the failures so far have happened."""
        with MongoClient[dict[str, Any]](self.uri) as client:
            set_so = client.admin.command("configureFailPoint", "failCommand", mode=mode, **data)
        return int(set_so["count"])


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port that the kernel gives to nobody else: only who asks for it by number gets it."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@contextmanager
def running_mongod(folder: Path, *options: str) -> Iterator[Mongod]:
    """One whose port nobody else gets while it is down."""
    with reserved_port() as port:
        server = Mongod(folder, *options, port=port)
        server.start()
        try:
            yield server
        finally:
            if server.pid:
                server.kill()


class ReplicaSet:
    """Servers that hold the same books, and elect the one of them that takes the writes."""

    def __init__(self, members: list[Mongod], election_seconds: float) -> None:
        self.members = members
        hosts = [f"127.0.0.1:{member.port}" for member in members]
        self.uri = f"mongodb://{','.join(hosts)}/?replicaSet=test"
        config = {
            "_id": "test",
            "members": [{"_id": number, "host": host} for number, host in enumerate(hosts)],
            "settings": {
                "electionTimeoutMillis": int(election_seconds * 1000),
                "heartbeatIntervalMillis": 200,
            },
        }
        with MongoClient[dict[str, Any]](members[0].uri, directConnection=True) as client:
            client.admin.command("replSetInitiate", config)
        with MongoClient[dict[str, Any]](self.uri, w=len(members)) as client:
            client.test.ready.insert_one({})  # acknowledged when all members hold it

    def primary(self) -> Mongod:
        """The one that takes the writes; waits for an election."""
        with MongoClient[dict[str, Any]](self.uri) as client:
            client.admin.command("ping")
            address = client.primary
        return next(one for one in self.members if address and one.port == address[1])

    def step_down(self, seconds: int) -> None:
        """Let the primary hand over and be none for so long."""
        with MongoClient[dict[str, Any]](self.uri) as client:
            client.admin.command(
                "replSetStepDown", seconds, secondaryCatchUpPeriodSecs=1, force=True
            )


@contextmanager
def replica_set(folder: Path, members: int, election_seconds: float = 1) -> Iterator[ReplicaSet]:
    with ExitStack() as stack:
        servers = [
            stack.enter_context(running_mongod(folder / str(number), "--replSet", "test"))
            for number in range(members)
        ]
        yield ReplicaSet(servers, election_seconds)
