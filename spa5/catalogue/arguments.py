"""What a crawl is given: spider arguments and settings, read and checked before any request.

Whatever is wrong is a `UsageError`: one line that says what to use instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from scrapy.exceptions import UsageError
from w3lib.url import safe_url_string

from spa5.catalogue.item import InvalidItem
from spa5.catalogue.text import brief

if TYPE_CHECKING:
    from scrapy.settings import BaseSettings

    from spa5.catalogue.item import Key, KeyKind

_NUMBERS = (
    *("REFRESH_AFTER_DAYS", "MAX_SWEEPS", "MONGO_RETRY_SECONDS", "SITE_RETRY_SECONDS"),
    "DRIFT_SHARE",
)
REFRESH = ("changed", "missing", "all")


@dataclass(frozen=True)
class Arguments:
    """The arguments of a CatalogueSpider, checked."""

    pages: int | None = None  # index pages at the most
    page_size: int = 100  # entries
    refresh: str = "changed"  # which stored items to fetch again
    ids: list[Key] | None = None  # just these, and no index
    accepts_drift: bool = False

    @property
    def is_whole(self) -> bool:
        """True if the crawl is of the whole catalogue."""
        return self.ids is None and self.pages is None

    @classmethod
    def parse(cls, given: dict[str, Any], kind: KeyKind) -> Arguments:
        """Read what a person gave; `UsageError` for what can't be used.

        scrapyd adds arguments of its own, whose names begin with an underscore.
        """
        known = ("pages", "page_size", "refresh", "ids", "accept")
        if unknown := sorted(name for name in given if name not in known and name[0] != "_"):
            raise UsageError(
                f"no spider argument {unknown[0]!r}; there are {', '.join(known[:-1])} and accept"
            )
        refresh = given.get("refresh", "changed")
        if refresh not in REFRESH:
            raise UsageError(f"refresh={brief(refresh)}: use one of {', '.join(REFRESH)}")
        if given.get("accept") not in (None, "drift"):
            raise UsageError(f"accept={brief(given['accept'])}: there is only accept=drift")
        pages, ids = given.get("pages"), given.get("ids")
        return cls(
            pages=None if pages is None else positive("pages", pages),
            page_size=positive("page_size", given.get("page_size", cls.page_size)),
            refresh=refresh,
            ids=None if ids is None else keys(ids, kind),
            accepts_drift="accept" in given,
        )


def site_root(url: Any) -> str:
    """Return the root of a site, without a slash at its end."""
    site = str(url).rstrip("/")
    if "@" in site:
        raise UsageError("SITE_URL: leave user and password out, logs would show them")
    parts = urlsplit(site)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise UsageError(f"SITE_URL={brief(site)}: use http(s)://host")
    return safe_url_string(site)


def positive(name: str, value: Any) -> int:
    """Return a whole number from 1 on."""
    text = str(value)
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise UsageError(f"{name}={brief(value)}: use a whole number from 1 on")
    return int(text)


def check_number(name: str, value: Any) -> None:
    """Refuse what is not a number from 0 on."""
    try:
        usable = 0 <= float(value) < 1e9
    except (TypeError, ValueError):
        usable = False
    if not usable:
        raise UsageError(f"{name}={brief(value)}: use a number from 0 on")


def check_settings(settings: BaseSettings) -> None:
    """Refuse settings with which no crawl can do what was asked."""
    if any(settings[name] is None for name in _NUMBERS):
        raise UsageError(
            "the project's settings are missing: a script passes get_project_settings() to "
            "CrawlerProcess, see README, Scripts"
        )
    if settings["JOBDIR"]:
        raise UsageError(
            "leave JOBDIR out: the collection itself tells what is stored, so the same command, "
            "run again, does what is left"
        )
    for name in _NUMBERS:
        check_number(name, settings[name])
    if (days := settings["HISTORY_KEEP_DAYS"]) is not None:
        check_number("HISTORY_KEEP_DAYS", days)


def keys(value: Any, kind: KeyKind) -> list[Key]:
    """Return the keys of a comma-separated list, each once; `@FILE` reads them from a file.

    A script may pass a list.
    """
    text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    if text.startswith("@"):
        return _keys_of_file(text[1:], kind)
    try:
        found = [kind.clean(one.strip()) for one in text.split(",")]
    except InvalidItem as error:
        raise UsageError(
            f"ids={brief(text)}: {error}; use {kind.words}, separated by commas"
        ) from None
    return list(dict.fromkeys(found))


def _keys_of_file(name: str, kind: KeyKind) -> list[Key]:
    """Return what stands in the file one a line, or separated by commas. Blanks are ignored."""
    where = f"ids={brief('@' + name, 200)}"
    found: dict[Key, None] = {}
    for number, line in enumerate(_text_of(Path(name), where).splitlines(), 1):
        try:
            found |= {kind.clean(one.strip()): None for one in line.split(",") if one.strip()}
        except InvalidItem:  # which quotes the line: the file may be one of secrets
            raise UsageError(
                f"{where}, line {number}: use ids of {kind.words}, one a line or separated by "
                f"commas"
            ) from None
    if not found:
        raise UsageError(f"{where} holds no id: put ids into it, one a line")
    return list(found)


def _text_of(file: Path, where: str) -> str:
    try:
        if file.exists() and not file.is_file():  # reading a device or a pipe might never end
            raise UsageError(f"{where} is no file: use a file of ids, one a line")
        return file.read_text(encoding="utf-8-sig")
    except UnicodeError:
        raise UsageError(f"{where} is no text in UTF-8: use ids, one a line") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{where} can't be read: {reason}") from None
