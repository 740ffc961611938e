"""Examine: all that a crawl needs, first on this machine, then what it must reach."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from spa5.doctor import machine
from spa5.doctor.checks import CLOSING_SECONDS, LIMIT_SECONDS, Checklist, Line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from typing import Any, TypeAlias

    from scrapy.settings import Settings

    from spa5.catalogue.spider import CatalogueSpider

    Group: TypeAlias = Callable[[CatalogueSpider, Checklist], Coroutine[Any, Any, "str | None"]]

_IMPORT_SECONDS = 60  # a slow disk is no fault


async def examine(
    settings: Settings, name: str | None = None, seconds: float = LIMIT_SECONDS
) -> AsyncIterator[Line]:
    """Yield a line for each check, in order, as soon as it is known.

    `name` is the spider's; None: the first one by name. What must be reached gets `seconds`.
    """
    lines = await _lines_of_machine(settings, name)
    for line in lines:
        yield line
    if lines[-1].status != "ok":
        yield Line("skip", "the rest", "see above")
        return
    from spa5.doctor import site, store  # they can be imported, as is known by now

    spider = machine.spider_of(settings, name)
    groups = {"site": site.site, "MongoDB": store.mongodb, "Redis": store.redis}
    running = [
        asyncio.create_task(_lines(name, group, spider, seconds)) for name, group in groups.items()
    ]
    for one in running:
        for line in await one:
            yield line


async def _lines_of_machine(settings: Settings, name: str | None) -> list[Line]:
    here = Checklist(_IMPORT_SECONDS)
    await here.follow({"Python": machine.python})
    await here.follow({"packages": machine.packages})
    await here.follow({"reactor": partial(machine.reactor, settings)})
    usable = partial(machine.usable, settings, name)
    await here.follow({"modules": machine.modules, "settings": usable})
    return here.lines


async def _lines(name: str, group: Group, spider: CatalogueSpider, seconds: float) -> list[Line]:
    """Return the lines of checks that share something, which may fail itself."""
    own, shared = Checklist(seconds), Checklist(seconds + CLOSING_SECONDS)
    await shared.follow({name: partial(group, spider, own)})
    return own.lines + shared.lines
