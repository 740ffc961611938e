"""Who is told of crawls, by HTTP."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.helpers.http import Handler, listening

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

SECRET = "hunter2"


class Receiver:
    """A server that keeps the messages it gets, for a token in the URL and a password."""

    def __init__(self, port: int, messages: list[dict[str, Any]]) -> None:
        self.messages = messages
        self.url = f"json://me:{SECRET}@127.0.0.1:{port}/{SECRET}"


@contextmanager
def receiving(hold: threading.Event | None = None) -> Iterator[Receiver]:
    messages: list[dict[str, Any]] = []

    class Keep(Handler):
        def do_POST(self) -> None:
            said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if hold:
                hold.wait()
            messages.append(said)
            self.send_json("{}")

    with listening(Keep) as port:
        yield Receiver(port, messages)
