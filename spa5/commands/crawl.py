"""`scrapy crawl`, with an exit code that tells whether the crawl did what was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scrapy.commands import crawl

from spa5.commands import run_spider

if TYPE_CHECKING:
    import argparse


class Command(crawl.Command):
    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        if len(args) == 1:
            self.exitcode = run_spider(self, args[0], opts.spargs)
        else:
            super().run(args, opts)  # says what is wrong
