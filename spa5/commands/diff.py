"""`scrapy diff ID… | @FILE`: books on the site against the collection, field by field."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scrapy.commands import ScrapyCommand
from scrapy.exceptions import UsageError

from spa5.commands import only_look, refuse, run_crawl

if TYPE_CHECKING:
    import argparse


class Command(ScrapyCommand):
    """Fetches books and says how they differ from what is stored. It writes nothing.

    Exit code 0: all the same; 1: there are differences; 2: it could not be told.
    """

    requires_project = True

    def syntax(self) -> str:
        return "ID… | @FILE"

    def short_desc(self) -> str:
        return "Compare books on the site with what is stored"

    def process_options(self, args: list[str], opts: argparse.Namespace) -> None:
        assert self.settings is not None
        self.settings.set("LOG_LEVEL", "WARNING", priority="project")
        super().process_options(args, opts)
        only_look(self.settings)
        self.settings.set("ITEM_PIPELINES", {"spa5.compare.Compare": 300}, priority="cmdline")

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        from spa5.compare import Compare  # `scrapy doctor` must start without the driver

        assert self.crawler_process
        try:
            if not args:
                raise UsageError("give the ids of books, or @FILE with one a line")
            crawler = self.crawler_process.create_crawler("books")
            run_crawl(self.crawler_process, crawler, ids=",".join(args))
        except UsageError as error:
            self.exitcode = refuse(self, error)
            return
        compare = crawler.get_item_pipeline(Compare)
        self.exitcode = 2 if compare is None or compare.pending else int(compare.differ)
