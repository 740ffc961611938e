"""What `scrapy doctor` finds out about this machine."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import platform
import sys
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from packaging.requirements import Requirement
from scrapy.crawler import Crawler
from scrapy.exceptions import UsageError

import spa5
from spa5.catalogue.text import Trouble, one_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
    from typing import TypeAlias

    from scrapy.settings import Settings

    from spa5.catalogue.spider import CatalogueSpider

    # Returns what is well; None where it does not apply.
    Check: TypeAlias = Callable[[], Coroutine[Any, Any, "str | None"]]
    Follow: TypeAlias = Callable[[dict[str, Check]], Awaitable[None]]

LIMIT_SECONDS = 5.5  # of all that is reached for, at the same time
_CLOSING_SECONDS = 1.5  # then what does not end is left alone
_OLDEST_PYTHON = (3, 10)
_PACKAGE = Path(spa5.__file__).parent
# The only place that tells versions. An egg does not hold it: there nothing is compared.
_REQUIREMENTS = _PACKAGE.parent / "requirements.txt"
_INSTALL = "pip install -r requirements.txt"
_REACTOR = "twisted.internet.asyncioreactor.AsyncioSelectorReactor"


class Remark(Exception):
    """A crawl would run, but people may want to know this."""


class Line(NamedTuple):
    status: str  # ok, warn, FAIL or skip
    name: str
    text: str


async def examine(settings: Settings, name: str | None = None) -> AsyncIterator[Line]:
    """Check all that a crawl needs; yield the lines in order, as soon as they are known.

    `name` is the spider's; None: the first one.
    """
    now = asyncio.get_running_loop().time
    lines: list[Line] = []
    follow = partial(_follow, lines, now() + LIMIT_SECONDS)
    await follow({"Python": python})
    await follow({"packages": packages})
    await follow({"reactor": partial(reactor, settings)})
    await follow({"modules": modules, "settings": partial(usable, settings, name)})
    for line in lines:
        yield line
    if lines[-1].status != "ok":
        yield Line("skip", "the rest", "see above")
        return
    from spa5.doctor import reach  # it can be imported, as is known by now

    spider, deadline = spider_of(settings, name), now() + LIMIT_SECONDS
    groups = [
        asyncio.create_task(_group(name, partial(group, spider), deadline))
        for name, group in reach.GROUPS.items()
    ]
    for one in groups:
        for line in await one:
            yield line


async def _group(name: str, group: Callable[[Follow], Any], deadline: float) -> list[Line]:
    """The lines of checks that share something, which takes a while to close."""
    lines: list[Line] = []
    follow = partial(_follow, lines, deadline)
    last = await _try(name, partial(group, follow), deadline + _CLOSING_SECONDS)
    return [*lines, last] if last else lines


async def _follow(lines: list[Line], deadline: float, checks: dict[str, Check]) -> None:
    """One check after the other; behind a failure they are skipped."""
    failed = ""
    for name, check in checks.items():
        if failed:
            lines.append(Line("skip", name, f"see {failed}"))
        elif line := await _try(name, check, deadline):
            lines.append(line)
            failed = name if line.status == "FAIL" else ""


async def _try(name: str, check: Check, deadline: float) -> Line | None:
    """A check's outcome, whatever it does and however long it takes."""
    task = asyncio.create_task(check())
    await asyncio.wait({task}, timeout=deadline - asyncio.get_running_loop().time())
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_CLOSING_SECONDS / 2)
        return Line("FAIL", name, f"no answer within {LIMIT_SECONDS:g} s: is it overloaded?")
    try:
        text = task.result()
    except Remark as remark:
        return Line("warn", name, str(remark))
    except Trouble as trouble:
        return Line("FAIL", name, str(trouble))
    except Exception as error:
        return Line("FAIL", name, f"{type(error).__name__}: {one_line(error)}")
    return None if text is None else Line("ok", name, text)


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
    """Whether all can be imported; and whether an egg would hold all: it holds only packages."""
    for file in sorted(_PACKAGE.rglob("*.py")):  # in an egg there are none
        if not (file.parent / "__init__.py").exists():
            raise Trouble(
                f"{file.parent} has no __init__.py: make an empty one, or scrapyd-deploy "
                f"leaves it out"
            )
    for name in [module.name for module in pkgutil.walk_packages(spa5.__path__, "spa5.")]:
        try:
            importlib.import_module(name)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise Trouble(f"{name} can't be imported ({reason}): {_INSTALL}") from None
    return "all can be imported, and none is left out of an egg"


def spider_of(settings: Settings, name: str | None) -> CatalogueSpider:
    """The spider of a crawl with these settings; UsageError where it refuses them."""
    from spa5.catalogue.project import spider_named

    spider_class = spider_named(settings, name)
    return spider_class.from_crawler(Crawler(spider_class, settings))


async def usable(settings: Settings, name: str | None = None) -> str:
    try:
        spider = spider_of(settings, name)
    except UsageError as error:
        raise Trouble(str(error)) from None
    names = ("CONCURRENT_REQUESTS", "REFRESH_AFTER_DAYS", "MAX_SWEEPS")
    return ", ".join(f"{name}={spider.settings[name]}" for name in names)
