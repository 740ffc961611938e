"""`scrapy doctor`: what a crawl needs, checked; a line for each, with what to do."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any, ClassVar

from scrapy.commands import ScrapyCommand
from scrapy.exceptions import UsageError
from scrapy.utils.log import configure_logging

from spa5.catalogue.text import plain
from spa5.commands import add_spider

if TYPE_CHECKING:
    import argparse

    from spa5.doctor.checks import Line


_WIDE = 50  # columns; where there are fewer, an indent would leave too few


class Command(ScrapyCommand):
    """Changes nothing. Exit code 1: something fails; warnings do not count."""

    requires_project = True
    requires_crawler_process = False
    default_settings: ClassVar[dict[str, Any]] = {"LOG_ENABLED": False}

    def short_desc(self) -> str:
        return "Check what a crawl needs, and say what to do"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        add_spider(parser)

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        if args:
            raise UsageError("scrapy doctor takes no arguments", print_help=False)
        try:
            asyncio.run(self._examine(opts.spider))
        except KeyboardInterrupt:
            self.exitcode = 130

    async def _examine(self, name: str | None) -> None:
        from spa5.doctor.examine import examine  # other commands need not wait for it

        assert self.settings is not None
        configure_logging(self.settings)
        failed = False
        async for line in examine(self.settings, name):
            print(_row(line), flush=True)
            failed |= line.status == "FAIL"
        # A thread that waits for DNS can't be ended, and Python would wait for it.
        os._exit(int(failed))


def _row(line: Line) -> str:
    """One line; on a terminal it is folded, so that the table stays one."""
    row = f"{line.status:<6}{line.name:<13}{plain(line.text)}"
    if not sys.stdout.isatty():
        return row
    columns = shutil.get_terminal_size().columns
    return textwrap.fill(
        row,
        columns,
        subsequent_indent=" " * (19 if columns >= _WIDE else 6),
        break_long_words=False,
        break_on_hyphens=False,
    )
