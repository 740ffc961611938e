"""`scrapy runspider`, with the exit code of `scrapy crawl`."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from scrapy.commands import runspider
from scrapy.exceptions import UsageError
from scrapy.utils.spider import iter_spider_classes

import spa5
from spa5.commands import refuse, run_spider

if TYPE_CHECKING:
    import argparse

    from scrapy import Spider

_ROOT = Path(spa5.__file__).parents[1]


class Command(runspider.Command):
    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        if len(args) != 1:
            super().run(args, opts)  # says what is wrong
            return
        try:
            spider = _spider_in(Path(args[0]))
        except UsageError as error:
            self.exitcode = refuse(self, error)
            return
        self.exitcode = run_spider(self, spider, opts.spargs)


def _spider_in(file: Path) -> type[Spider]:
    """Return the last spider of a Python file.

    A file of the project is imported under its own name, so that its spider is known here.
    """
    path = file.resolve()
    if not path.exists():
        raise UsageError(f"{file}: no such file")
    if path.suffix not in (".py", ".pyw"):
        raise UsageError(f"{file} can't be loaded: Not a Python source file")
    folder = _ROOT if path.is_relative_to(_ROOT / "spa5") else path.parent
    sys.path.insert(0, str(folder))
    try:
        module = import_module(".".join(path.relative_to(folder).with_suffix("").parts))
    except (ImportError, ValueError) as error:
        raise UsageError(f"{file} can't be loaded: {error}") from None
    finally:
        sys.path.remove(str(folder))
    if spiders := list(iter_spider_classes(module)):
        return spiders[-1]
    raise UsageError(f"{file} holds no spider")
