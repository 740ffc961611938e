"""`scrapy bench` without a database: it measures Scrapy, and asks a server of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scrapy.commands import bench

from spa5.commands import only_look

if TYPE_CHECKING:
    import argparse


class Command(bench.Command):
    def process_options(self, args: list[str], opts: argparse.Namespace) -> None:
        super().process_options(args, opts)
        only_look(self.settings)
