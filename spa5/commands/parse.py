"""`scrapy parse`, which needs a database with `--pipelines` only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scrapy.commands import parse

from spa5 import api
from spa5.commands import only_look

if TYPE_CHECKING:
    import argparse


class Command(parse.Command):
    def process_options(self, args: list[str], opts: argparse.Namespace) -> None:
        super().process_options(args, opts)
        only_look(self.settings, store=opts.pipelines)
        assert self.settings is not None
        if args and args[0].startswith(self.settings["SITE_URL"]):
            opts.spider = opts.spider or "books"
            detail = api.asked_id(args[0])
            opts.callback = opts.callback or ("parse_detail" if detail else "parse_index")
