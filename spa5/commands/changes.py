"""`scrapy changes`: what the last crawl changed, another one, or all crawls since a moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scrapy.commands import ScrapyCommand
from scrapy.exceptions import UsageError

from spa5.catalogue.arguments import positive
from spa5.catalogue.text import brief
from spa5.commands import LooksUp, add_limit, add_span, check_field

if TYPE_CHECKING:
    import argparse

    from spa5.catalogue.spider import CatalogueSpider
    from spa5.mongo.changes import Span
    from spa5.mongo.store import Store


class Command(LooksUp, ScrapyCommand):
    """Says which items are new, changed, delisted, or back again after they had been delisted."""

    nothing_exitcode = 1

    def syntax(self) -> str:
        return "[--crawl ID | --since WHEN]"

    def short_desc(self) -> str:
        return "Say what the last crawl changed"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        add_span(parser)
        parser.add_argument("--field", metavar="NAME", help="only changes of this field")
        add_limit(parser, "items of a kind in a table")

    def check(self, args: list[str], opts: argparse.Namespace) -> None:
        from spa5.mongo.span import parse_since

        if args:
            raise UsageError(f"{brief(args[0])} is unknown; for one item use scrapy show --history")
        if opts.since is not None and opts.crawl is not None:
            raise UsageError("use --crawl or --since, not both")
        opts.limit = positive("--limit", opts.limit)
        opts.since = None if opts.since is None else parse_since(opts.since)

    async def look(
        self, store: Store, spider: type[CatalogueSpider], args: list[str], opts: argparse.Namespace
    ) -> int:
        from spa5.mongo.changes import changes
        from spa5.screen.changes import print_changes
        from spa5.screen.output import print_json

        if opts.field is not None:
            check_field(opts.field, store.schema)
        span = await _span(store, spider, opts)
        found = changes(store, span, opts.field)
        if not opts.json:
            await print_changes(found, span, opts.field, opts.limit)
            return 0
        async for change in found:
            print_json([change])
        return 0


async def _span(store: Store, spider: type[CatalogueSpider], opts: argparse.Namespace) -> Span:
    from spa5.mongo.changes import Span
    from spa5.mongo.span import find_crawl

    if opts.since is not None:
        return Span.since(opts.since)
    return Span.of_crawl(await find_crawl(store, spider.name, opts.crawl))
