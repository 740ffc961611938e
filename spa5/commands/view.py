"""`scrapy view` without a database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scrapy.commands import view

from spa5.commands import only_look

if TYPE_CHECKING:
    import argparse


class Command(view.Command):
    def process_options(self, args: list[str], opts: argparse.Namespace) -> None:
        super().process_options(args, opts)
        only_look(self.settings)
