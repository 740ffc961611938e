"""`python -m tests.standin`: a stand-in, to be asked by hand."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from aiohttp import web

from tests.standin.server import Site
from tests.standin.site import CATALOGUES


async def serve(site: Site, host: str, port: int, until_stdin_closes: bool) -> None:
    """Say where it listens, and serve until a signal or the end of stdin."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if until_stdin_closes:
        loop.add_reader(sys.stdin, stop.set)  # nobody writes to it: readable means closed
    server = web.Server(site.handle, access_log=None, handler_cancellation=True)
    listener = await loop.create_server(server, host, port, backlog=1024)
    print(f"http://{host}:{listener.sockets[0].getsockname()[1]}", flush=True)
    await stop.wait()
    listener.close()
    await server.shutdown(timeout=0.1)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.standin")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    kinds = parser.add_mutually_exclusive_group()
    for kind in CATALOGUES:
        kinds.add_argument(f"--{kind}", type=int, metavar="N", help=f"serve so many {kind}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--latency", type=float, default=0, help="seconds before an API answer")
    parser.add_argument("--cap", type=int, help="the most results on an index page")
    parser.add_argument("--prerender", action="store_true", help="make all details beforehand")
    parser.add_argument("--until-stdin-closes", action="store_true")
    return parser.parse_args()


def main() -> None:
    given = options()
    sizes = {kind: vars(given)[kind] for kind in CATALOGUES if vars(given)[kind] is not None}
    kind, items = next(iter(sizes.items()), ("books", 9040))
    site = Site(CATALOGUES[kind](items, given.seed), given.latency, given.cap)
    if given.prerender:
        site.prerender()
    asyncio.run(serve(site, given.host, given.port, given.until_stdin_closes))


if __name__ == "__main__":
    main()
