"""`scrapy show ID… | @FILE | --find TEXT`: stored items, and the versions that they had."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from scrapy.commands import ScrapyCommand
from scrapy.exceptions import UsageError

from spa5.catalogue.arguments import keys, positive
from spa5.catalogue.text import Trouble, brief, plain, spellable
from spa5.commands import LooksUp, add_limit

if TYPE_CHECKING:
    import argparse

    from spa5.catalogue.item import Key
    from spa5.catalogue.spider import CatalogueSpider
    from spa5.mongo.store import Store


class Command(LooksUp, ScrapyCommand):
    """Shows stored items by their ids, or by a part of their names.

    Exit code 0: all are stored; 1: one is not, or no name holds the text.
    """

    nothing_exitcode = 1

    def syntax(self) -> str:
        return "ID… | @FILE | --find TEXT"

    def short_desc(self) -> str:
        return "Show what is stored of items"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument("--find", metavar="TEXT", help="items whose names hold this text")
        parser.add_argument("--history", action="store_true", help="with the versions they had")
        add_limit(parser, "items found")

    def check(self, args: list[str], opts: argparse.Namespace) -> None:
        if bool(args) == (opts.find is not None):
            raise UsageError("give ids, @FILE with one a line, or --find TEXT")
        opts.limit = positive("--limit", opts.limit)

    async def look(
        self, store: Store, spider: type[CatalogueSpider], args: list[str], opts: argparse.Namespace
    ) -> int:
        asked = keys(args, store.schema.kind) if args else []
        with store.connection.explained():
            if await store.items.find_one({}, {"_id": 1}) is None:
                where = store.connection.place
                raise Trouble(f"nothing is stored in {where} yet: type scrapy crawl {spider.name}")
        if args:
            return await _show(store, asked, opts)
        return await _find(store, opts)


async def _show(store: Store, asked: list[Key], opts: argparse.Namespace) -> int:
    """Show these items; return the exit code."""
    from spa5.mongo.changes import MOST_READ
    from spa5.mongo.store import batches

    missing = False
    for some in batches(asked, MOST_READ):
        stored = await store.get(some)
        await _print(store, [stored[key] for key in some if key in stored], opts)
        for key in some:
            if key not in stored:
                missing = True
                sys.stderr.write(f"{store.schema.noun} {key} is not stored\n")
    return int(missing)


async def _find(store: Store, opts: argparse.Namespace) -> int:
    """Show the items whose names hold the text; return the exit code."""
    from spa5.mongo.changes import chunks
    from spa5.screen.show import print_found

    key, title = store.schema.key, store.schema.title
    if title is None:
        raise UsageError(f"--find: a {store.schema.noun} has no text that index pages list")
    query: dict[str, Any] = {title: {"$regex": re.escape(spellable(opts.find)), "$options": "i"}}
    query[key] = {"$type": "string" if store.schema.kind.type is str else "number"}
    found, count = store.items.find(query, sort=[(key, 1)]), 0
    async for items in chunks(store, found if opts.json else found.limit(opts.limit)):
        count += len(items)
        if opts.json or opts.history or count == 1:
            await _print(store, items, opts)
        else:
            print_found(items, store.schema)
    if not count:
        said = f"no {store.schema.noun} has {brief(opts.find)} in its {title}"
        sys.stderr.write(plain(f"{said}\n"))
    elif not opts.json and count == opts.limit:
        await _say_how_many_more(store, query, count)
    return int(not count)


async def _say_how_many_more(store: Store, query: dict[str, Any], most: int) -> None:
    with store.connection.explained():
        count = await store.items.count_documents(query)
    if count > most:
        print(f"… and {count - most:,} more: --limit {count} shows them all")


async def _print(store: Store, items: list[dict[str, Any]], opts: argparse.Namespace) -> None:
    from spa5.mongo.changes import replaced
    from spa5.mongo.history import entries_of
    from spa5.screen.output import print_json
    from spa5.screen.show import print_item, print_versions

    keys = [item[store.schema.key] for item in items]
    entries = await entries_of(store, keys) if opts.history else {}
    for number, item in enumerate(items):
        steps = replaced(item, entries.get(item[store.schema.key], ()))
        if opts.json:
            own = {name: value for name, value in item.items() if name != "_id"}
            print_json([own | ({"history": steps} if opts.history else {})])
            continue
        if number:
            print()
        print_item(item, store.schema)
        if opts.history:
            print_versions(steps)
