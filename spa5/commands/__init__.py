"""The project's Scrapy commands, one a module, and what they share."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from typing import TYPE_CHECKING, Any, ClassVar

from scrapy.exceptions import UsageError
from scrapy.utils.log import configure_logging

from spa5.catalogue.text import Trouble, brief, plain, show_plainly

if TYPE_CHECKING:
    import argparse

    from scrapy import Spider
    from scrapy.commands import ScrapyCommand
    from scrapy.crawler import Crawler

    from spa5.catalogue.item import Schema
    from spa5.catalogue.spider import CatalogueSpider
    from spa5.mongo.store import Store

    _Base = ScrapyCommand
else:
    _Base = object  # Scrapy would take a subclass of ScrapyCommand in this package for a command

logger = logging.getLogger(__name__)

show_plainly()  # Scrapy imports this package before it runs any command


class OnlyLooks(_Base):
    """Makes a command show pages: nothing is skipped, swept, summed up or waited for.

    No database is needed, except for `scrapy parse --pipelines`: Scrapy opens the item pipelines
    for each command that fetches.
    """

    def process_options(self, args: list[str], opts: argparse.Namespace) -> None:
        super().process_options(args, opts)
        assert self.settings is not None
        off = dict.fromkeys(("spa5.screen.progress.Progress", "spa5.screen.notify.Notify"))
        self.settings["EXTENSIONS"].update(off, priority="cmdline")
        way = {"spa5.downloadermiddlewares.SiteGate": None, "spa5.catalogue.backoff.Backoff": 550}
        self.settings["DOWNLOADER_MIDDLEWARES"].update(way, priority="cmdline")
        self.settings.set("SPIDER_MIDDLEWARES", {}, priority="cmdline")
        if not getattr(opts, "pipelines", False):
            self.settings.set("ITEM_PIPELINES", {}, priority="cmdline")


class LooksUp(_Base):
    """Makes a command read what is stored, and print it as a table, or with --json for programs.

    Subclasses define `look`. Exit code: what `look` returns; 1: the collection can't be read, which
    is told in one line; 2: the arguments can't be used. An embedded server is started only where
    there is something to read: else one line says so, and the exit code is `nothing_exitcode`.
    """

    requires_project = True
    requires_crawler_process = False
    default_settings: ClassVar[dict[str, Any]] = {"LOG_LEVEL": "WARNING"}
    nothing_exitcode: ClassVar[int] = 0
    read_only = True  # False: it writes, too

    def check(self, args: list[str], opts: argparse.Namespace) -> None:
        """Refuse arguments that can't be used by a UsageError, before anything is opened."""

    async def look(
        self, store: Store, spider: type[CatalogueSpider], args: list[str], opts: argparse.Namespace
    ) -> int:
        """Read from the open `store` and print; return the exit code."""
        raise NotImplementedError

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        add_spider(parser)
        parser.add_argument("--json", action="store_true", help="one JSON object a line")

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        try:
            self.check(args, opts)
            self.exitcode = asyncio.run(self._look(args, opts))
            sys.stdout.flush()
        except UsageError as error:
            self.exitcode = refuse(self, error)
        except Trouble as error:
            sys.stderr.write(plain(f"{error}\n"))
            self.exitcode = 1
        except KeyboardInterrupt:
            self.exitcode = 130
        except BrokenPipeError:  # whoever reads it, such as `head`, has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    async def _look(self, args: list[str], opts: argparse.Namespace) -> int:
        # Other commands need not wait for all this.
        from spa5.catalogue.arguments import check_settings
        from spa5.catalogue.item import schema_of
        from spa5.catalogue.project import spider_named
        from spa5.mongo.directory import data_dir, is_used
        from spa5.mongo.store import Store

        assert self.settings is not None
        configure_logging(self.settings)
        check_settings(self.settings)
        spider = spider_named(self.settings, opts.spider)
        schema = schema_of(spider.item_class)
        store = Store(self.settings, spider.name, schema, lambda *_: None)
        try:
            if await store.connection.uses_embedded() and not is_used(data_dir(self.settings)):
                # Not on stdout, where a program would take it for data.
                said = f"nothing is stored yet: `scrapy crawl {spider.name}` brings it\n"
                sys.stderr.write(said)
                return self.nothing_exitcode
            await store.open(read_only=self.read_only)
            return await self.look(store, spider, args, opts)
        finally:
            await store.close()


def add_spider(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spider", help="the catalogue; the project's first one by name")


def add_span(parser: argparse.ArgumentParser) -> None:
    """Add the options that name changes: of a crawl, or since a moment."""
    parser.add_argument("--crawl", metavar="ID", help="this crawl; its id may be cut short")
    parser.add_argument("--since", metavar="WHEN", help="all since 7d, 12h, or 2026-11-20")


def add_limit(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--limit", metavar="N", default=20, help=f"most {what}; 20")


def check_field(name: str, schema: Schema) -> None:
    """Refuse the name of a field that items do not have."""
    if name not in schema.names:
        fields = ", ".join(sorted(schema.names))
        raise UsageError(f"--field: a {schema.noun} has no {brief(name)}, but {fields}")


def run_spider(
    command: ScrapyCommand, spider: str | type[Spider], arguments: dict[str, str]
) -> int:
    """Run a crawl to its end, and return the exit code that tells whether it did what was asked.

    0: it did, or a limit or signal of the user's ended it; 1: it did not; 2: the spider does not
    exist or refuses its arguments or settings, which is told in one line.
    """
    from spa5.catalogue.outcomes import exit_code
    from spa5.engine import stats_of  # `scrapy doctor` must start without aiohttp

    try:
        stats = stats_of(run_crawl(command, spider, **arguments))
    except (UsageError, KeyError) as error:  # KeyError: no spider of that name
        return refuse(command, error)
    return exit_code(stats.get("finish_reason"), stats)


def refuse(command: ScrapyCommand, error: Exception) -> int:
    """Say in one line what is wrong with the arguments or settings; return the exit code."""
    name = command.__module__.rpartition(".")[2]
    sys.stderr.write(plain(f"scrapy {name}: {error.args[0]}\n"))
    if command.settings and command.settings["LOG_FILE"]:  # scrapyd shows that one
        logger.error("%s", error.args[0])
    return 2


def run_crawl(command: ScrapyCommand, spider: str | type[Spider], **arguments: Any) -> Crawler:
    """Run a crawl to its end; UsageError where the spider refuses its arguments or settings."""
    from spa5.engine import stats_of

    process = command.crawler_process
    assert process
    crawler = process.create_crawler(spider)
    # Scrapy filters at the handler only: each response would make records for nobody.
    logging.getLogger("scrapy").setLevel(crawler.settings["LOG_LEVEL"])
    # What was imported stays: the collector need not look at it each time.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    crawling = process.crawl(crawler, **arguments)
    process.start()
    assert isinstance(crawling, asyncio.Task)
    if not crawling.done() and "start_time" not in stats_of(crawler):
        # A signal came while the crawl was being opened: Scrapy just leaves it so.
        crawling.cancel()
        crawling.get_loop().run_until_complete(asyncio.wait([crawling]))
    if crawling.done() and not crawling.cancelled():
        crawling.result()
    return crawler
