"""A real Redis for the tests, on a Unix socket."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from redis import Redis

if TYPE_CHECKING:
    from collections.abc import Iterator

BINARY = shutil.which("redis-server")
needs_redis = pytest.mark.skipif(
    BINARY is None, reason="needs redis-server: apt-get install redis-server"
)


class RedisServer:
    """A server that keeps nothing on disk: when it starts again it is empty."""

    def __init__(self, folder: str, *options: str) -> None:
        self.socket = f"{folder}/redis.sock"
        self.url = f"unix://{self.socket}"
        self._options = options

    def start(self) -> None:
        """Return when it answers."""
        command = [str(BINARY), "--port", "0", "--unixsocket", self.socket, "--save", ""]
        self.process = subprocess.Popen(
            [*command, *self._options], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        for line in self.process.stdout:
            if "Ready to accept connections" in line or "ready to accept connections" in line:
                return
        raise AssertionError("redis-server did not start")

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()

    def client(self) -> Redis:
        return Redis.from_url(self.url, decode_responses=True)


@contextmanager
def running_redis(*options: str) -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory() as folder:  # a socket's path must be short
        server = RedisServer(folder, *options)
        server.start()
        try:
            yield server
        finally:
            server.stop()
