"""A database of one test, and crawls into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.helpers.crawls import STATS, Ended, run

if TYPE_CHECKING:
    from pymongo.collection import Collection


@dataclass
class Database:
    """A database of one test, and crawls into it."""

    uri: str
    name: str
    books: Collection[dict[str, Any]]

    @property
    def environment(self) -> dict[str, str]:
        return {"MONGO_URI": self.uri, "MONGO_DATABASE": self.name}

    def crawl(self, site: str, *args: str, **environment: str) -> Ended:
        """Run `scrapy crawl books` against `site` into this database."""
        settings = self.environment | {"SITE_URL": site} | environment
        return run("crawl", "books", *STATS, *args, **settings)

    def stored(self) -> dict[str, dict[str, Any]]:
        """The stored books by id."""
        return {book["id"]: book for book in self.books.find()}
