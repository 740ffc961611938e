"""The catalogue spiders of a project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scrapy.crawler import Crawler
from scrapy.exceptions import UsageError
from scrapy.spiderloader import get_spider_loader

from spa5.catalogue.spider import CatalogueSpider

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scrapy.settings import Settings


def spider_named(settings: Settings, name: str | None) -> type[CatalogueSpider]:
    """The spider of this name, or the first one; UsageError where there is none."""
    found = {one.name: one for one in _spiders(settings)}
    for one in found:
        if name in (None, one):
            return found[one]
    raise UsageError(f"there is no catalogue {name!r}, but {', '.join(found) or 'none at all'}")


def spider_for(settings: Settings, url: str) -> CatalogueSpider | None:
    """The spider to whose API a URL belongs; None where it is none of the project's sites."""
    settings = settings.copy()
    for name in ("SITE_USER", "SITE_PASSWORD"):  # nobody logs in to compare URLs
        settings.set(name, settings[name] or "unset", priority="cmdline")
    for one in _spiders(settings):
        spider = one.from_crawler(Crawler(one, settings))
        if spider.answers.is_api(url):
            return spider
    return None


def _spiders(settings: Settings) -> Iterator[type[CatalogueSpider]]:
    loader = get_spider_loader(settings)
    for name in sorted(loader.list()):
        if issubclass(spider := loader.load(name), CatalogueSpider):
            yield spider
