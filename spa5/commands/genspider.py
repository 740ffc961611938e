"""`scrapy genspider`, with `-t catalogue NAME URL` for the index of a JSON API."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import scrapy
from scrapy.commands import genspider
from scrapy.crawler import AsyncCrawlerProcess
from scrapy.exceptions import UsageError

import spa5
from spa5.catalogue.text import brief, plain
from spa5.commands import OnlyLooks, refuse, run_crawl

if TYPE_CHECKING:
    import argparse

    from spa5.catalogue.layout import Layout

_OWN = "catalogue"
_SCRAPYS = Path(scrapy.__path__[0], "templates", "spiders")
_NAME = re.compile("[A-Za-z][A-Za-z0-9_]{0,37}")  # MongoDB has a database of this name


class Command(OnlyLooks, genspider.Command):
    """Scrapy's, with a template for catalogues, for which it looks at the API.

    Exit code 2: the name or the URL can't be used, and nothing is written.
    """

    default_settings: ClassVar[dict[str, Any]] = {
        **genspider.Command.default_settings,
        "TEMPLATES_DIR": str(Path(spa5.__path__[0], "templates")),
    }

    def syntax(self) -> str:
        return "[options] <name> <domain; for -t catalogue the URL of the index>"

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        # Scrapy imports all commands for any of them: the others need not wait for this.
        from spa5.catalogue.layout import Layout

        self.layout: Layout | None = None
        try:
            if Path(opts.template).stem == _OWN and len(args) == 2:
                if not _NAME.fullmatch(args[0]):
                    raise UsageError(f"{brief(args[0])}: use up to 38 letters, digits and _")
                args = [args[0], Layout.at(args[1]).url]
            super().run(args, opts)
        except UsageError as error:
            if not error.args:
                raise
            self.exitcode = refuse(self, error)
            return
        if self.layout and self.layout.trouble:
            line = f"scrapy genspider: {self.layout.trouble}; see `fill in` in the spider"
            sys.stderr.write(plain(f"{line}\n"))
        elif self.layout:
            print(f"Look the fields over. To try them: scrapy crawl {args[0]} -a pages=1")

    def _generate_template_variables(
        self, module: str, name: str, url: str, template_name: str
    ) -> dict[str, Any]:
        variables = super()._generate_template_variables(module, name, url, template_name)
        if Path(template_name).stem != _OWN:
            return variables
        from spa5.catalogue.probe import Probe
        from spa5.catalogue.sketch import sketch

        assert self.settings is not None
        self.settings.set("RETRY_ENABLED", False, priority="cmdline")
        self.crawler_process = AsyncCrawlerProcess(self.settings)
        crawler = run_crawl(self, Probe, url=url)
        if not isinstance(crawler.spider, Probe) or not crawler.spider.layout:
            raise UsageError("it was interrupted, and has written nothing")
        self.layout = crawler.spider.layout
        return variables | sketch(self.layout, variables["classname"])

    def _find_template(self, template: str) -> Path | None:
        theirs = _SCRAPYS / f"{template}.tmpl"
        is_own = Path(self.templates_dir, theirs.name).exists() or not theirs.exists()
        return super()._find_template(template) if is_own else theirs

    def _list_templates(self) -> None:
        super()._list_templates()
        print("\n".join(f"  {file.stem}" for file in sorted(_SCRAPYS.glob("*.tmpl"))))
