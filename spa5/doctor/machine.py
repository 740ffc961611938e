"""What `scrapy doctor` finds out about this machine."""

from __future__ import annotations

import importlib
import pkgutil
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from scrapy.crawler import Crawler

import spa5
from spa5.catalogue.text import Trouble, one_line

if TYPE_CHECKING:
    from scrapy.settings import Settings

    from spa5.catalogue.spider import CatalogueSpider

_OLDEST_PYTHON = (3, 10)
# The only place that tells versions. An egg does not hold it: there nothing is compared.
_REQUIREMENTS = Path(spa5.__file__).parents[1] / "requirements.txt"
_INSTALL = "pip install -r requirements.txt"
_REACTOR = "twisted.internet.asyncioreactor.AsyncioSelectorReactor"


async def python() -> str:
    found = f"{platform.python_version()} in {sys.prefix}"
    if sys.version_info < _OLDEST_PYTHON:
        raise Trouble(f"{found} is too old: use 3.10 or later")
    return found


async def packages() -> str:
    """The versions of what requirements.txt asks for."""
    if not _REQUIREMENTS.is_file():
        return f"Scrapy {version('scrapy')}; here is no requirements.txt to compare with"
    lines = [line.partition("#")[0] for line in _REQUIREMENTS.read_text().splitlines()]
    wanted = [Requirement(line) for line in lines if line.strip()]
    wanted = [one for one in wanted if not one.marker or one.marker.evaluate()]
    if wrong := list(filter(None, map(_mismatch, wanted))):
        raise Trouble(f"{', '.join(wrong)}: {_INSTALL}")
    return ", ".join(f"{one.name} {version(one.name)}" for one in wanted)


def _mismatch(wanted: Requirement) -> str | None:
    try:
        found = version(wanted.name)
    except PackageNotFoundError:
        return f"{wanted.name} is not installed"
    if wanted.specifier.contains(found, prereleases=True):
        return None
    return f"{wanted.name} {found} is not {wanted.specifier}"


async def reactor(settings: Settings) -> str:
    if settings["TWISTED_REACTOR"] != _REACTOR:
        raise Trouble(
            f"TWISTED_REACTOR={settings['TWISTED_REACTOR']}: leave it as it is in "
            f"spa5/settings.py, motor needs asyncio"
        )
    return "asyncio"


async def modules() -> str:
    for _, name, _ in pkgutil.walk_packages(spa5.__path__, "spa5."):
        try:
            importlib.import_module(name)
        except Exception as error:
            reason = one_line(f"{type(error).__name__}: {error}")
            raise Trouble(f"{name} can't be imported ({reason}): {_INSTALL}") from None
    return "all can be imported"


def spider_of(settings: Settings, name: str | None) -> CatalogueSpider:
    """The spider of a crawl with these settings; UsageError where it refuses them."""
    from spa5.catalogue.project import spider_named

    spider_class = spider_named(settings, name)
    return spider_class.from_crawler(Crawler(spider_class, settings))


async def usable(settings: Settings, name: str | None) -> str:
    spider = spider_of(settings, name)
    names = ("CONCURRENT_REQUESTS", "REFRESH_AFTER_DAYS", "MAX_SWEEPS")
    return ", ".join(f"{name}={spider.settings[name]}" for name in names)
