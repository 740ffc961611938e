"""Answers that fail, that take the place of the rule's, or that wait."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import socket
import struct
from base64 import b64decode
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

from aiohttp import web

JSON, HTML = "application/json", "text/html"
SHELL = b'<!DOCTYPE html><html lang="en"><title>Scrape | Book</title><div id="app"></div></html>'
CUT_JSON = b'{"count": 9040, "results": [{"id": "7952978", "name": "Won'
WRONG_SHAPES = (b"[]", b'{"results": 5}', b'"book"', b"null")
FAULTS = "500 503 429 408 close reset truncate html broken shape slow"


def reply(
    body: bytes, status: int = 200, kind: str = JSON, headers: dict[str, str] | None = None
) -> web.Response:
    return web.Response(body=body, status=status, headers={"Content-Type": kind, **(headers or {})})


def dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


@dataclass
class Override:
    """A raw answer in place of the rule's, `times` times or until it is removed."""

    status: int = 200
    body: str = ""
    body_base64: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    times: int | None = None

    def response(self) -> web.Response:
        body = b64decode(self.body_base64) or self.body.encode()
        response = web.Response(body=body, status=self.status, headers=self.headers)
        response.headers.setdefault("Content-Type", JSON)
        return response


@dataclass
class Faults:
    """Which API answers fail: a share of all, in ways that the seed picks, or the `first` ones of
    each address, in each way in turn.
    """

    share: float = 0.3
    kinds: list[str] = field(default_factory=FAULTS.split)
    seed: int = 1
    retry_after: str | None = None
    paths: str = ""
    first: int | None = None

    def __post_init__(self) -> None:
        known = re.compile(FAULTS.replace(" ", "|") + r"|[2-5]\d\d")
        wrong = [kind for kind in self.kinds if not known.fullmatch(kind)]
        if wrong or not self.kinds:
            raise ValueError(f"faults: no such kinds {wrong}; known: {FAULTS}, any status")
        self._pattern = re.compile(self.paths)
        self._random = Random(self.seed)
        self._asked: Counter[str] = Counter()
        self._turns = itertools.cycle(self.kinds)

    def pick(self, target: str) -> str | None:
        """The kind of fault that a request for this path and query meets, or None."""
        if not (self.share or self.first) or not self._pattern.search(target):
            return None
        if self.first is None:
            fails = self._random.random() < self.share
        else:
            self._asked[target] += 1
            return next(self._turns) if self._asked[target] <= self.first else None
        return self._random.choice(self.kinds) if fails else None

    async def fail(self, kind: str, request: web.BaseRequest) -> web.Response:
        """Do it; what follows the end of a connection is never sent."""
        if kind == "slow":
            await asyncio.sleep(3600)
        if kind in ("close", "reset") and request.transport:
            _hang_up(request.transport, reset=kind == "reset")
        return self._response(kind)

    def _response(self, kind: str) -> web.Response:
        if kind.isdigit():
            wait = {"Retry-After": self.retry_after} if self.retry_after else {}
            return reply(SHELL, int(kind), HTML, wait if kind in ("429", "503") else {})
        if kind == "shape":
            return reply(self._random.choice(WRONG_SHAPES))
        if kind == "broken":
            return reply(CUT_JSON)
        if kind == "truncate":
            response = reply(CUT_JSON, headers={"Content-Length": str(len(CUT_JSON) + 100)})
            response.force_close()
            return response
        return reply(SHELL, kind=HTML)


@dataclass
class Hold:
    """Lets API answers wait: until `peak` requests were in flight at once, or for another hold.

    The `first` answers do not wait. After `details` requests for details, no request is let in: it
    waits without being counted.
    """

    paths: str = ""
    first: int = 0
    peak: int | None = None
    details: int | None = None

    def __post_init__(self) -> None:
        self._pattern = re.compile(self.paths)
        self._asked = 0
        self._free = asyncio.Event()

    def end(self) -> None:
        self._free.set()

    async def wait(self, target: str, peak: int) -> None:
        if self.peak is not None and peak >= self.peak:
            self.end()
        if self._pattern.search(target):
            self._asked += 1
            if self._asked > self.first and self.details is None:
                await self._free.wait()

    async def let_in(self, details: int) -> None:
        if self.details is not None and details >= self.details:
            await self._free.wait()


def _hang_up(transport: asyncio.Transport, reset: bool) -> None:
    if reset:  # to linger for no time: the peer gets a RST, not a FIN
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()
