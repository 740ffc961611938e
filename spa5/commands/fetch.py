"""`scrapy fetch` without a database."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from scrapy.commands import fetch

from spa5.catalogue.text import plain
from spa5.commands import only_look

if TYPE_CHECKING:
    import argparse


class Command(fetch.Command):
    def process_options(self, args: list[str], opts: argparse.Namespace) -> None:
        super().process_options(args, opts)
        only_look(self.settings)

    def _print_bytes(self, bytes_: bytes) -> None:
        """Write bytes as they are into a file or a pipe, and as plain text on a terminal."""
        if sys.stdout.isatty():
            print(plain(bytes_.decode(errors="backslashreplace")))
        else:
            super()._print_bytes(bytes_)
