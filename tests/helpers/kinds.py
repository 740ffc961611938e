"""The catalogues that are to keep the same promises, each with a site of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bson.codec_options import CodecOptions

from tests.helpers.crawls import STATS, run
from tests.helpers.stored import as_stored, movie_as_stored, product_as_stored

if TYPE_CHECKING:
    from collections.abc import Callable

    from pymongo import MongoClient
    from pymongo.collection import Collection

    from tests.helpers.crawls import Ended
    from tests.standin.catalogue import Entry, Key
    from tests.standin.site import RunningSite


@dataclass(frozen=True)
class Kind:
    """A catalogue: its spider, and what the tests have to know of its items."""

    spider: str
    noun: str
    listed: str  # a field that an edit changes, and that index pages have
    hidden: str  # a field that an edit changes, and that details alone have
    as_stored: Callable[[Entry], Entry]
    options: tuple[str, ...] = ()  # with which `scrapy` knows the spider


OTHERS = ("-s", "SPIDER_MODULES=spa5.spiders,tests.helpers.products")
KINDS = (
    Kind("books", "book", "score", "price", as_stored),
    Kind("movies", "movie", "score", "drama", movie_as_stored),
    Kind("products", "product", "price", "description", product_as_stored, OTHERS),
)


@dataclass
class World:
    """One kind's site, and a server whose database is named as a spider names it."""

    kind: Kind
    site: RunningSite
    uri: str
    client: MongoClient[dict[str, Any]]

    @property
    def environment(self) -> dict[str, str]:
        return {"SITE_URL": self.site.url, "MONGO_URI": self.uri}

    @property
    def key(self) -> str:
        return self.site.catalogue.key

    @property
    def keys(self) -> list[Any]:
        return self.site.catalogue.ids

    @property
    def items(self) -> Collection[dict[str, Any]]:
        aware = CodecOptions[dict[str, Any]](tz_aware=True)
        return self.client[self.kind.spider].get_collection(self.kind.spider, codec_options=aware)

    def crawl(self, *args: str, **environment: str) -> Ended:
        given = (*STATS, *self.kind.options, *args)
        return run("crawl", self.kind.spider, *given, **self.environment | environment)

    def scrapy(self, command: str, *args: str, **environment: str) -> Ended:
        """Another command of the project."""
        return run(command, *self.kind.options, *args, **self.environment | environment)

    def stored(self) -> dict[Key, Entry]:
        """The documents by their keys, under whichever type."""
        return {document[self.key]: document for document in self.items.find()}

    def expected(self, key: Key) -> Entry:
        """What is to be stored of an item."""
        return self.kind.as_stored(self.site.catalogue.detail(key))

    def path(self, key: Key) -> str:
        return self.site.catalogue.detail_path(key)

    def answer(self, *keys: Key, **answer: Any) -> None:
        """Let these details be answered otherwise."""
        self.site.control(override={self.path(key): answer for key in keys})

    def cut_short(self, offset: int, limit: int, held: int) -> None:
        """Let an index page hold fewer entries than were asked for, once."""
        site = self.site.catalogue
        entries = [site.summary(key) for key in site.ids[offset : offset + held]]
        body = json.dumps(site.page(entries, len(site.ids)))
        self.site.control(override={site.page_path(offset, limit): {"body": body, "times": 1}})

    def edit(self, keys: list[Key], *, hidden: bool = False) -> None:
        """Edit items of the site, and of the catalogue that the test knows."""
        if hidden:
            self.site.control(edit_hidden=keys)
            self.site.catalogue.edit_hidden(keys)
        else:
            self.site.control(edit=keys)
            self.site.catalogue.edit(keys)
