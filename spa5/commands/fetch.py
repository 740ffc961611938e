"""`scrapy fetch` without a database."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from scrapy.commands import fetch

from spa5.catalogue.text import plain
from spa5.commands import OnlyLooks

if TYPE_CHECKING:
    import argparse


class Command(OnlyLooks, fetch.Command):
    """Writes bytes as they are into a file or a pipe, and as plain text on a terminal."""

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        if sys.stdout.isatty():
            from spa5.engine import print_by

            print_by(self, lambda body: print(plain(body.decode(errors="backslashreplace"))))
        super().run(args, opts)
