"""The project's Scrapy commands, one a module."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scrapy.settings import Settings


def only_look(settings: Settings | None, *, store: bool = False) -> None:
    """Let a command show pages: nothing is skipped or swept, and no database is needed.

    With `store` the item pipelines stay. Scrapy opens them for each command that fetches.
    """
    assert settings is not None
    settings.set("SPIDER_MIDDLEWARES", {}, priority="cmdline")
    if not store:
        settings.set("ITEM_PIPELINES", {}, priority="cmdline")
