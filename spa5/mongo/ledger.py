"""Ledger: writes a document for each crawl, from its first second on."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import secrets
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pymongo.errors import PyMongoError

from spa5.catalogue.fields import now
from spa5.catalogue.outcomes import exit_code
from spa5.catalogue.spider import catalogue_of
from spa5.catalogue.text import plain
from spa5.mongo.crawls import MOST, OUTAGES, counts_of, newest_first, update
from spa5.mongo.errors import StoreError, reason
from spa5.mongo.status import BEAT_SECONDS, status, this_process

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from scrapy.crawler import Crawler

    from spa5.catalogue.item import Key
    from spa5.mongo.store import Store

logger = logging.getLogger(__name__)

_END_SECONDS = 10.0  # the most that the end of a crawl waits for its document
_RECENT = 5
_SETTINGS = (
    *("CONCURRENT_REQUESTS", "DOWNLOAD_DELAY", "DOWNLOAD_TIMEOUT", "RETRY_TIMES", "USER_AGENT"),
    *("ROBOTSTXT_OBEY", "SITE_RETRY_SECONDS", "REFRESH_AFTER_DAYS", "MAX_SWEEPS", "DRIFT_SHARE"),
    *("MONGO_DATABASE", "MONGO_COLLECTION", "MONGO_RETRY_SECONDS", "CRAWL_ID"),
    *("HISTORY_ENABLED", "HISTORY_KEEP_DAYS", "CLOSESPIDER_TIMEOUT", "CLOSESPIDER_ITEMCOUNT"),
    *("CLOSESPIDER_PAGECOUNT", "CLOSESPIDER_ERRORCOUNT"),
)
_PACKAGES = ("scrapy", "twisted", "motor", "pymongo")


class FirstErrors(logging.Handler):
    """Keeps the first errors of the log."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.errors) < MOST["errors"]:
            self.errors.append({"at": now(), "said": record.getMessage()[:500]})


class Ledger:
    """Writes a crawl's document in `crawls`: at its start, every ten seconds, and at its end.

    Workers of a shared crawl write the same one. A crawl goes on if it can't be written.
    """

    def __init__(self, crawler: Crawler, store: Store):
        self._crawler = crawler
        self._store = store
        self._began = now()
        self._worker = secrets.token_hex(4)
        self._beating: asyncio.Task[None] | None = None
        self._log = FirstErrors()
        self._is_silent = False  # that it can't be written has been said
        self.earlier: set[Any] = set()  # crawls of this catalogue that were over before this one
        self.counts: dict[str, int] = {}  # that the verdict knows better than the stats
        self.whole: dict[str, Any] = {}  # what else is known with the verdict
        self.has_verdict = False  # then the crawl has ended, if other workers know it or not
        self.returned: list[Key] = []  # items that are listed again
        self.is_unsure = False  # True if a write of an item may have stopped half way
        self.recent: list[dict[str, Any]] = []  # at the end, the last crawls, this one first

    async def begin(self) -> None:
        logging.getLogger().addHandler(self._log)
        if self._is_whole:
            await self._try(self._store.persist(self._read_earlier))
        await self._try(self._store.persist(self._write, {}))
        self._beating = asyncio.create_task(self._beat_on())

    async def end(self, reason: str) -> None:
        logging.getLogger().removeHandler(self._log)
        if self._beating:
            self._beating.cancel()
            await asyncio.wait([self._beating])
        stats = self._crawler.stats.get_stats()
        ended = {"ended": now(), "reason": reason, "exit_code": exit_code(reason, stats)}
        ended["settled"] = not self.is_unsure
        # Where MongoDB was given up, it may be back by now: one more try.
        writing = self._write(ended) if self.is_unsure else self._store.persist(self._write, ended)
        await self._try(asyncio.wait_for(writing, _END_SECONDS))
        if self._crawler.settings["NOTIFY_URLS"]:
            await self._try(asyncio.wait_for(self._read_recent(), _END_SECONDS))

    async def _beat_on(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            await self._try(self._write({}))

    async def _try(self, work: Awaitable[None]) -> None:
        try:
            await work
        except (PyMongoError, StoreError, asyncio.TimeoutError) as error:
            if not self._is_silent and not self.is_unsure:
                said = reason(error) if isinstance(error, PyMongoError) else str(error)
                logger.warning("This crawl can't be noted in `crawls`: %s", said or "no answer")
            self._is_silent = True

    async def _write(self, ended: dict[str, Any]) -> None:
        whole = dict(self.whole)
        if self.has_verdict:
            whole |= {name: ended[name] for name in ended if name != "settled"}
        elif ended.get("reason") == "finished":  # `scrapy parse` walks nothing
            whole["whole"] = False
        change = update(self._first, self._worker, self._own() | ended, whole)
        await self._store.crawls.update_one({"_id": self._store.crawl()}, change, upsert=True)

    @cached_property
    def _first(self) -> dict[str, Any]:
        """What is known of a crawl when it begins. No URI is in it, and no other secret."""
        spider, settings = catalogue_of(self._crawler), self._crawler.settings
        versions = {name: version(name) for name in _PACKAGES}
        versions |= {"python": platform.python_version(), "mongodb": self._store.connection.version}
        given = {name: settings[name] for name in _SETTINGS if settings[name] is not None}
        return self.catalogue | {
            "whole": self._is_whole,
            "arguments": spider.given if spider else {},
            "settings": {name: _plain(value) for name, value in given.items()},
            "versions": versions,
            "host": platform.node(),
            "began": self._began,
        }

    @property
    def _is_whole(self) -> bool:
        spider = catalogue_of(self._crawler)
        return spider is None or spider.arguments.is_whole

    @property
    def catalogue(self) -> dict[str, Any]:
        """What is crawled, and where to."""
        spider = self._crawler.spider
        site, items = getattr(spider, "site", None), self._store.connection.items_name
        return {"spider": getattr(spider, "name", None), "site": site, "collection": items}

    def _own(self) -> dict[str, Any]:
        """What this process is, and what it has done so far."""
        stats = self._crawler.stats.get_stats()
        outages = {name: stats.get(f"{name}/outage_seconds", 0) for name in OUTAGES}
        own = this_process() | {"began": self._began, "alive_at": now()}
        if job := os.environ.get("SCRAPY_JOB"):  # scrapyd's
            own["job"] = job
        own |= {"counts": counts_of(stats) | self.counts, "outage_seconds": outages}
        return own | {"errors": self._log.errors, "returned": self.returned[: MOST["returned"]]}

    async def _read_earlier(self) -> None:
        workers = {"$cond": [{"$gt": ["$ended", None]}, "$$REMOVE", "$workers"]}
        names = {"ended": 1, "alive_at": 1, "workers": workers}
        crawls, moment = self._store.crawls.find(self.catalogue, names), now()
        self.earlier = {one["_id"] async for one in crawls if status(one, moment) != "running"}

    async def _read_recent(self) -> None:
        found = newest_first(self._store, self.catalogue["spider"], _RECENT)
        self.recent = [crawl async for crawl in found]


def _plain(value: object) -> Any:
    """A setting's value; those of the environment are text."""
    if isinstance(value, (bool, int, float)):
        return value
    text = plain(str(value))[:200]
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text
