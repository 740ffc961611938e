"""`scrapy parse`, which needs a database with `--pipelines` only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scrapy.commands import parse

from spa5.catalogue.project import spider_for
from spa5.commands import OnlyLooks

if TYPE_CHECKING:
    import argparse


class Command(OnlyLooks, parse.Command):
    def process_options(self, args: list[str], opts: argparse.Namespace) -> None:
        super().process_options(args, opts)
        assert self.settings is not None
        if args and (spider := spider_for(self.settings, args[0])):
            opts.spider = opts.spider or spider.name
            is_index = spider.answers.asked(args[0]) is None
            opts.callback = opts.callback or ("parse_index" if is_index else "parse_detail")
