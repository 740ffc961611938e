"""A crawl from a script or a notebook, as the README shows it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.helpers.crawls import OWN, ROOT
from tests.standin.site import RunningSite as Site
from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.databases import Database

SCRIPT = """
from scrapy.crawler import AsyncCrawlerProcess
from scrapy.utils.project import get_project_settings

process = AsyncCrawlerProcess(get_project_settings())
crawler = process.create_crawler("books")
process.crawl(crawler, pages=1, page_size=7)
process.start()
print(crawler.stats.get_value("finish_reason"))
"""

CELL = """
from scrapy.crawler import AsyncCrawlerRunner
from scrapy.utils.project import get_project_settings

settings = get_project_settings()
settings["TWISTED_REACTOR_ENABLED"] = False  # the notebook's own loop runs the crawl
runner = AsyncCrawlerRunner(settings)
crawler = runner.create_crawler("books")
await runner.crawl(crawler, ids=IDS)
print(crawler.stats.get_value("finish_reason"))
"""

# What a notebook does with its cells: it runs them one after the other on a loop that runs already.
NOTEBOOK = """
import ast, asyncio, inspect

async def main():
    names = {"IDS": ids}
    for cell in cells:
        running = eval(compile(cell, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        assert inspect.iscoroutine(running)
        await running

asyncio.run(main())
"""

WITHOUT_SETTINGS = """
from scrapy.crawler import {process}
from spa5.spiders.books import BooksSpider

process = {process}()
process.crawl(BooksSpider)
process.start()
"""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running_site(20) as site:
        yield site


def python(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in OWN}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=ROOT,
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("process", ["AsyncCrawlerProcess", "CrawlerProcess"])
def test_a_script_crawls_with_the_projects_settings(
    site: Site, database: Database, process: str
) -> None:
    script = SCRIPT.replace("AsyncCrawlerProcess", process)
    ended = python(script, SITE_URL=site.url, **database.environment)
    assert (ended.returncode, ended.stdout) == (0, "finished\n")
    assert len(database.stored()) == 7


def test_a_notebook_crawls_on_its_own_loop_as_often_as_it_likes(
    site: Site, database: Database
) -> None:
    ids = site.catalogue.ids[:5]
    script = f"cells, ids = {[CELL] * 2}, {ids}\n{NOTEBOOK}"
    ended = python(script, SITE_URL=site.url, **database.environment)
    assert (ended.returncode, ended.stdout) == (0, "finished\nfinished\n"), ended.stderr
    assert set(database.stored()) == set(ids)


@pytest.mark.parametrize("process", ["AsyncCrawlerProcess", "CrawlerProcess"])
def test_without_the_projects_settings_the_last_line_says_what_is_missing(process: str) -> None:
    ended = python(WITHOUT_SETTINGS.format(process=process))
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("scrapy.exceptions.UsageError: the project's settings are missing")
    assert "get_project_settings()" in last
