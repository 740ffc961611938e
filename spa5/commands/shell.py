"""`scrapy shell` without a database, and with what one calls at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scrapy.commands import shell

from spa5.catalogue.project import spider_for
from spa5.catalogue.spider import CatalogueSpider
from spa5.commands import OnlyLooks

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from scrapy.http import Response

    from spa5.catalogue.answers import Flaw

HELP = """\
[s]   judge(response)                what is wrong with this answer of the API, or None
[s]   list(parse_index(response))    the requests that an index page leads to
[s]   list(parse_detail(response))   the item that a detail holds
[s]   Item.from_api(response.json()) the same, without the spider's checks; Item is {item}
"""


class Command(OnlyLooks, shell.Command):
    def process_options(self, args: list[str], opts: argparse.Namespace) -> None:
        super().process_options(args, opts)
        self.code = opts.code
        assert self.settings is not None
        if args and (spider := spider_for(self.settings, args[0])):
            opts.spider = opts.spider or spider.name

    def update_vars(self, vars: dict[str, Any]) -> None:
        spider = vars["spider"]
        if not isinstance(spider, CatalogueSpider):
            return
        item = spider.item_class
        vars |= {"Item": item, item.__name__: item, "judge": _judge(spider)}
        vars |= {"parse_index": spider.parse_index, "parse_detail": spider.parse_detail}
        if self.code is None:
            print(HELP.format(item=item.__name__), end="")


def _judge(spider: CatalogueSpider) -> Callable[[Response], Flaw | None]:
    return lambda response: spider.answers.flaw(response, response.meta)
