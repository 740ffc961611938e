"""Asks a stand-in of the site as fast as it can: is it the bottleneck?"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def load(url: str, paths: Iterable[str], connections: int = 64) -> float:
    """Ask for each path below /api/book/ once; return the requests a second.

    What the stand-in can do, or more: the asking takes a core too.
    """
    return asyncio.run(_load(url, iter(paths), connections))


async def _load(url: str, paths: Iterator[str], connections: int) -> float:
    began = perf_counter()
    asked = await asyncio.gather(*(_ask(url, paths) for _ in range(connections)))
    return sum(asked) / (perf_counter() - began)


async def _ask(url: str, paths: Iterator[str]) -> int:
    """Ask for what is left of the paths over one connection; return how many it were."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    asked = 0
    for path in paths:
        writer.write(f"GET /api/book/{path} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
        asked += 1
    writer.close()
    return asked
