"""`scrapy shell` without a database, and with what one calls at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scrapy.commands import shell

from spa5 import api
from spa5.commands import only_look
from spa5.items import Book

if TYPE_CHECKING:
    import argparse

HELP = """\
[s]   judge(response)                what is wrong with this answer of the API, or None
[s]   list(parse_index(response))    the requests that an index page leads to
[s]   list(parse_detail(response))   the Book that a detail holds
[s]   Book.from_api(response.json()) the same, without the spider's checks
"""


class Command(shell.Command):
    def process_options(self, args: list[str], opts: argparse.Namespace) -> None:
        super().process_options(args, opts)
        only_look(self.settings)
        self.code = opts.code
        assert self.settings is not None
        if args and args[0].startswith(self.settings["SITE_URL"]):
            opts.spider = opts.spider or "books"

    def update_vars(self, vars: dict[str, Any]) -> None:
        vars |= {"Book": Book, "judge": api.flaw}
        for name in ("parse_index", "parse_detail"):
            if callback := getattr(vars["spider"], name, None):
                vars[name] = callback
        if "parse_index" in vars and self.code is None:
            print(HELP, end="")
