"""`scrapy crawls`: the last crawls of a catalogue, and how they ended."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from scrapy.commands import ScrapyCommand
from scrapy.exceptions import UsageError

from spa5.catalogue.arguments import positive
from spa5.commands import LooksUp

if TYPE_CHECKING:
    import argparse

    from spa5.catalogue.spider import CatalogueSpider
    from spa5.mongo.store import Store


class Command(LooksUp, ScrapyCommand):
    """Lists the last crawls. The newest is the last line, where a terminal shows it in any case.

    Exit code 1: the last crawl that ended was not complete, or MongoDB can't be reached.
    """

    def short_desc(self) -> str:
        return "List the last crawls, and tell by the exit code if the last one was complete"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument("-n", "--last", default=20, metavar="N", help="how many (20)")

    def check(self, args: list[str], opts: argparse.Namespace) -> None:
        if args:
            raise UsageError("it takes no arguments, but --spider NAME and --last N")
        opts.last = positive("--last", opts.last)

    async def look(
        self, store: Store, spider: type[CatalogueSpider], args: list[str], opts: argparse.Namespace
    ) -> int:
        from spa5.catalogue.fields import now
        from spa5.mongo.crawls import newest_first
        from spa5.screen import crawls

        moment, last = now(), list[dict[str, Any]]()
        is_complete: bool | None = None
        with store.connection.explained():
            async for crawl in newest_first(store, spider.name):
                if len(last) < opts.last:
                    last.append(crawl)
                elif is_complete is not None:
                    break
                if is_complete is None:
                    is_complete = crawls.is_complete(crawl, moment)
        if not last:
            sys.stderr.write(f"there was no crawl yet: `scrapy crawl {spider.name}` is the first\n")
        crawls.show(last[::-1], moment, as_json=opts.json)
        return int(is_complete is False)
