"""`scrapy mongod`: the embedded MongoDB server in the foreground, to look at the items."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Any, ClassVar

from scrapy.commands import ScrapyCommand
from scrapy.exceptions import UsageError

if TYPE_CHECKING:
    import argparse

    from spa5.mongo.server import EmbeddedServer


class Command(ScrapyCommand):
    """Runs the embedded server (MONGO_DATA_DIR) until Ctrl-C, and says how to connect to it."""

    requires_project = True
    requires_crawler_process = False
    default_settings: ClassVar[dict[str, Any]] = {"LOG_ENABLED": False}

    def short_desc(self) -> str:
        return "Run the embedded MongoDB server until Ctrl-C"

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        # Scrapy imports all commands for any of them: the others need not wait for the driver.
        from spa5.mongo.directory import MongodError, data_dir
        from spa5.mongo.server import EmbeddedServer

        if args:
            raise UsageError("scrapy mongod takes no arguments", print_help=False)
        assert self.settings is not None
        try:
            asyncio.run(_serve(EmbeddedServer(data_dir(self.settings))))
        except MongodError as error:
            print(error, file=sys.stderr)
            self.exitcode = 1


async def _serve(server: EmbeddedServer) -> None:
    interrupted = asyncio.Event()
    if sys.platform == "linux":  # elsewhere start() says why it can't
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(signum, interrupted.set)
    await server.start()
    try:
        print(f'MongoDB is ready. Ctrl-C stops it.\n\n    mongosh "{server.uri}"\n')
        print("Compass takes the same URI.", flush=True)
        await interrupted.wait()
    finally:
        if not await server.stop():
            print("Crawls still use the server: it stays until the last of them ends.")
