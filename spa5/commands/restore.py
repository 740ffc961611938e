"""`scrapy restore --crawl ID | --since WHEN`: puts back what was replaced."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from scrapy.commands import ScrapyCommand
from scrapy.exceptions import UsageError

from spa5.catalogue.arguments import keys, positive
from spa5.catalogue.text import brief
from spa5.commands import LooksUp, add_limit, add_span, check_field

if TYPE_CHECKING:
    import argparse

    from spa5.catalogue.spider import CatalogueSpider
    from spa5.mongo.restore import Restore, Selection
    from spa5.mongo.store import Store


_NO_HISTORY = "; no change was ever kept: HISTORY_ENABLED=False keeps none"


class Command(LooksUp, ScrapyCommand):
    """Puts back the values that a crawl, or all crawls since a moment, replaced in stored items.

    Without --yes it shows what it would do. What it does can be undone itself, as a crawl's changes
    can. Exit code 1: some items could not be put back.
    """

    nothing_exitcode = 1

    def syntax(self) -> str:
        return "--crawl ID | --since WHEN"

    def short_desc(self) -> str:
        return "Put back what a crawl replaced"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        several: dict[str, Any] = {"action": "append", "default": []}
        add_span(parser)
        parser.add_argument("--field", metavar="NAME,…", help="only these fields", **several)
        parser.add_argument("--id", metavar="ID,…", help="only these items; or @FILE", **several)
        add_limit(parser, "items in a table")
        parser.add_argument("--yes", action="store_true", help="do it, and do not only show it")

    def check(self, args: list[str], opts: argparse.Namespace) -> None:
        from spa5.mongo.span import parse_since

        if args:
            raise UsageError(f"{brief(args[0])} is unknown; for one item use --id")
        if (opts.crawl is None) == (opts.since is None):
            raise UsageError("use --crawl ID or --since WHEN, one of them")
        opts.limit = positive("--limit", opts.limit)
        opts.since = None if opts.since is None else parse_since(opts.since)
        opts.field = [name.strip() for names in opts.field for name in names.split(",")]
        self.read_only = not opts.yes

    async def look(
        self, store: Store, spider: type[CatalogueSpider], args: list[str], opts: argparse.Namespace
    ) -> int:
        from spa5.mongo.history import History
        from spa5.mongo.note import Note
        from spa5.mongo.restore import Restore
        from spa5.screen.restore import print_json_of

        assert self.settings is not None
        selection, site = await _selection(store, spider.name, opts)
        note = Note(store, spider.name, site, _arguments(selection))
        history = History.from_settings(store, self.settings) if opts.yes else None
        restore = Restore(store, selection, note, history)
        if opts.json:
            refused = await print_json_of(restore.run(), store.schema, opts.yes and store.crawl())
        else:
            refused = await _print(store, spider, restore, opts)
        return int(refused > 0)


async def _selection(
    store: Store, spider_name: str, opts: argparse.Namespace
) -> tuple[Selection, str | None]:
    """Return the changes to undo, and the site that a crawl has from its document."""
    from spa5.mongo.restore import Selection
    from spa5.mongo.span import find_crawl

    schema = store.schema
    for name in opts.field:
        check_field(name, schema)
    chosen = frozenset(opts.field), keys(opts.id, schema.kind) if opts.id else None
    if opts.since is not None:
        return Selection(None, opts.since, *chosen), None
    crawl = await find_crawl(store, spider_name, opts.crawl)
    return Selection(crawl["_id"], None, *chosen), crawl.get("site")


def _arguments(selection: Selection) -> dict[str, str]:
    """Return what the ledger notes of the changes to undo."""
    since, names = selection.since, sorted(selection.names)
    given = {"crawl": selection.crawl, "since": since and since.isoformat()}
    given |= {"field": ",".join(names), "id": ",".join(map(str, selection.keys or ()))}
    return {name: one for name, one in given.items() if one}


async def _print(
    store: Store, spider: type[CatalogueSpider], restore: Restore, opts: argparse.Namespace
) -> int:
    """Restore, and say for people what there was to put back; return how many are refused."""
    from spa5.screen.output import local
    from spa5.screen.restore import Tally, print_tally

    selection = restore.selection
    title = f"Crawl {selection.crawl}" if selection.crawl else f"Since {local(selection.since)}"
    tally = Tally(store.schema, opts.limit, opts.yes)
    async for one in restore.run():
        tally.add(one)
    nothing = "" if tally.items or await restore.has_history() else _NO_HISTORY
    with suppress(BrokenPipeError):  # the exit code is true though nobody reads this
        print_tally(tally, title, nothing)
        if tally.items and opts.yes:
            named = f" --spider {spider.name}" if opts.spider else ""
            print(f"To undo this: scrapy restore --crawl {store.crawl()}{named} --yes")
        elif tally.items:
            print("Nothing is written yet: the same command with --yes does it")
    return tally.refused
