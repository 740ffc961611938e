"""`scrapy export -o FILE`: the stored collection, through Scrapy's exporters."""

from __future__ import annotations

import codecs
import os
import signal
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from scrapy.commands import ScrapyCommand
from scrapy.exceptions import UsageError

from spa5.catalogue.text import brief, plain
from spa5.commands import LooksUp, add_spider
from spa5.screen.outfile import STDOUT, opened

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from scrapy.exporters import BaseItemExporter

    from spa5.catalogue.spider import CatalogueSpider
    from spa5.mongo.export import Reader
    from spa5.mongo.store import Store


class Command(LooksUp, ScrapyCommand):
    """Writes all stored items as a crawl's feed has them; also those that left the catalogue.

    Settings: those of Scrapy's feeds, such as FEED_EXPORT_FIELDS, which may name what the store
    adds to an item.
    """

    nothing_exitcode = 1  # no file is made

    def syntax(self) -> str:
        return "[options]"

    def short_desc(self) -> str:
        return "Write the stored items to a file"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        ScrapyCommand.add_options(self, parser)  # the file's ending says what others say by --json
        add_spider(parser)
        parser.add_argument(
            "-o",
            "--output",
            metavar="FILE",
            default=STDOUT,
            help="a file whose ending is a format (jsonl, json, csv, xml), or FILE:FORMAT; it is "
            "replaced when all is written; - for stdout, as jsonl",
        )
        parser.add_argument(
            "--since", help="items that are new or changed since then: 7d, 12h or 2026-11-20"
        )
        parser.add_argument(
            "--all-fields",
            action="store_true",
            help="also when an item was first crawled, last changed and listed, and delisted",
        )

    def check(self, args: list[str], opts: argparse.Namespace) -> None:
        from spa5.mongo.span import parse_since  # other commands need not wait for the driver

        if args:
            raise UsageError("it takes no arguments: the file stands behind -o")
        self.path, self.format = self._target(opts.output)
        self._check_encoding()
        self.since = parse_since(opts.since) if opts.since else None

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        # SIGTERM ends it as Ctrl-C does, so that nothing is left behind.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        super().run(args, opts)

    def _check_encoding(self) -> None:
        assert self.settings is not None
        encoding = self.settings["FEED_EXPORT_ENCODING"]
        try:
            codecs.lookup(encoding or "utf-8")
        except (LookupError, TypeError):
            raise UsageError(f"FEED_EXPORT_ENCODING {brief(encoding)} is no encoding") from None

    def _target(self, output: str) -> tuple[str, str]:
        """Return the file and the format that `-o` names, as it does for `scrapy crawl`."""
        from spa5.feeds import formats

        assert self.settings is not None
        known = formats(self.settings)
        path, _, named = output.rpartition(":")
        if path and named in known:
            return path, named
        named = "jsonl" if output == STDOUT else Path(output).suffix.removeprefix(".")
        if named not in known:
            raise UsageError(
                f"-o {brief(output)}: its ending is no format, use {', '.join(sorted(known))} "
                f"as the ending, or FILE:FORMAT"
            )
        return output, named

    async def look(
        self, store: Store, spider: type[CatalogueSpider], args: list[str], opts: argparse.Namespace
    ) -> int:
        from scrapy.crawler import Crawler

        from spa5.feeds import exporter
        from spa5.mongo.export import Reader, with_bookkeeping

        crawler = Crawler(spider, self.settings)
        crawler.spider = spider()  # of its exporters, CsvExporter asks for the item's class
        if opts.all_fields or crawler.settings["FEED_EXPORT_FIELDS"]:
            wide = with_bookkeeping(spider.item_class)
            crawler.spider.item_class = wide  # type: ignore[misc]  # of this one spider
        reader = Reader(store, crawler.spider.item_class, self.since)
        with opened(self.path) as file:
            count = await self._write(reader, exporter(crawler, file, self.format), store)
        words = store.schema.noun if count == 1 else store.schema.nouns
        where = "stdout" if self.path == STDOUT else self.path
        _say(f"{count} {words} of {store.connection.place} went to {where}")
        if reader.spelled:
            _say(
                f"{reader.spelled} of them hold values that {self.format} can't spell, which it "
                f"has as text: for example {reader.example}"
            )
        return 0

    async def _write(self, reader: Reader, writer: BaseItemExporter, store: Store) -> int:
        """Write all items; return how many they are."""
        count, total = 0, await reader.total()
        with _bar(total, store.schema.nouns) if self._is_watched() else nullcontext() as show:
            writer.start_exporting()
            async for items in reader.pages():
                for item in items:
                    writer.export_item(item)
                count += len(items)
                if show:
                    show(reader.looked_at)
            writer.finish_exporting()
        return count

    def _is_watched(self) -> bool:
        """True if somebody looks at stderr, where nothing else is shown."""
        assert self.settings is not None
        is_terminal = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        is_free = self.path != STDOUT or not sys.stdout.isatty()
        return is_terminal and is_free and self.settings.getbool("PROGRESS_ENABLED")


@contextmanager
def _bar(total: int, nouns: str) -> Iterator[Callable[[int], None]]:
    """Show a bar; the function that this gives is told how many documents were looked at."""
    from spa5.screen.bar import Bar

    def show(done: int) -> None:
        most = max(done, total)
        count = f"{done}/{most} {nouns}"
        percent = f"{done * 100 // most if most else 100}%"
        rest = "{rate_noinv_fmt}, {remaining} left"
        bar.show(
            done, most, [f"{percent:>4}|{{bar}}| {count}, {rest}", f"{percent} {count}", percent]
        )

    bar = Bar()
    try:
        yield show
    finally:
        bar.close()


def _say(line: str) -> None:
    sys.stderr.write(plain(f"{line}\n"))
