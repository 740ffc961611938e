"""`scrapy diff ID… | @FILE`: items on the site against the collection, field by field."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scrapy.commands import ScrapyCommand
from scrapy.exceptions import UsageError

from spa5.catalogue.project import spider_named
from spa5.commands import OnlyLooks, add_spider, refuse, run_crawl

if TYPE_CHECKING:
    import argparse


class Command(OnlyLooks, ScrapyCommand):
    """Fetches items and says how they differ from what is stored. It writes nothing.

    Exit code 0: all the same; 1: there are differences; 2: it could not be told.
    """

    requires_project = True

    def syntax(self) -> str:
        return "ID… | @FILE"

    def short_desc(self) -> str:
        return "Compare items on the site with what is stored"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        add_spider(parser)

    def process_options(self, args: list[str], opts: argparse.Namespace) -> None:
        assert self.settings is not None
        self.settings.set("LOG_LEVEL", "WARNING", priority="project")
        super().process_options(args, opts)
        self.settings.set("ITEM_PIPELINES", {"spa5.screen.diff.Diff": 300}, priority="cmdline")

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        from spa5.screen.diff import Diff  # `scrapy doctor` must start without the driver

        assert self.settings is not None
        try:
            if not args:
                raise UsageError("give ids, or @FILE with one a line")
            spider = spider_named(self.settings, opts.spider)
            crawler = run_crawl(self, spider, ids=",".join(args))
        except UsageError as error:
            self.exitcode = refuse(self, error)
            return
        diff = crawler.get_item_pipeline(Diff)
        self.exitcode = 2 if diff is None or diff.pending else int(diff.differ)
