"""Layout: how an API lays out its catalogue, and which of its names can stand in code."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from scrapy.exceptions import UsageError
from w3lib.url import safe_url_string

from spa5.catalogue.item import BOOKKEEPING, DIGITS, Item, KeyKind
from spa5.catalogue.text import brief
from spa5.catalogue.walk import Page

if TYPE_CHECKING:
    from typing import TypeAlias

    Object: TypeAlias = dict[str, Any]
    Way: TypeAlias = tuple[str, ...]  # the names that lead to a value within a JSON object

_PAGING = {"limit", "offset", "skip", "page", "per_page", "page_size"}
# Only such names are written into code: an API could hide code in others.
PLAIN_NAME = re.compile("[A-Za-z][A-Za-z0-9_]{0,39}")
# They have a meaning of their own in the item's class, or in its document.
_TAKEN = {
    *("extra", "integer", "key", "line", "lines", "moment", "number", "objects", "text"),
    *("Any", "datetime", "dict", "float", "int", "list", "str"),
    *BOOKKEEPING,
}


@dataclass
class Layout:
    """The layout of an API's catalogue. The defaults are those of CatalogueSpider."""

    site: str
    path: str
    query: str = ""  # what index pages are asked for with, besides what pages them
    paging: str = "limit={page.limit}&offset={page.offset}"
    entries: Way = ("results",)
    count: Way = ("count",)  # empty where the API does not tell
    detail: str = "{self.path}{key}/"
    key: str = "id"
    kind: KeyKind = DIGITS
    listed: list[Object] = field(default_factory=list)  # entries of index pages
    details: list[tuple[Object, Object]] = field(default_factory=list)  # each after its entry
    trouble: str = ""  # why not all of this could be found

    @classmethod
    def at(cls, url: str) -> Layout:
        """The layout, as far as an index's URL tells; UsageError where that can't be used."""
        try:
            parts = urlsplit(safe_url_string(url if "://" in url else f"https://{url}"))
        except ValueError:
            parts = urlsplit("")
        if "@" in parts.netloc:
            raise UsageError("leave user and password out of the URL, the spider would show them")
        given = [one for one in parts.query.split("&") if one.partition("=")[0] not in _PAGING]
        query = "".join(f"{one}&" for one in given if one)
        is_usable = re.fullmatch("https?", parts.scheme) and re.fullmatch(
            r"[A-Za-z0-9.:[\]-]+ [A-Za-z0-9_.~%=&+,:-]{0,70}", f"{parts.netloc} {query}"
        )
        if not is_usable:
            raise UsageError(f"{brief(url)}: use an index's URL, https://example.com/api/things/")
        return cls(f"{parts.scheme}://{parts.netloc}", parts.path or "/", query)

    def index_url(self, offset: int, limit: int) -> str:
        paging = self.paging.format(page=Page(offset, limit))
        return f"{self.site}{self.path}?{self.query}{paging}"

    @property
    def url(self) -> str:
        """The index's URL, without what pages it."""
        return f"{self.site}{self.path}" + (f"?{self.query[:-1]}" if self.query else "")


def is_field_name(name: str) -> bool:
    """True if an item can have a field of this name."""
    is_taken = name in _TAKEN or keyword.iskeyword(name) or hasattr(Item, name)
    return bool(PLAIN_NAME.fullmatch(name)) and not is_taken
