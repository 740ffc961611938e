"""The versions of books, put together from what is stored without the project's own code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bson.codec_options import CodecOptions

from tests.helpers.stored import as_stored, content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeAlias

    from tests.helpers.databases import Database

    Book: TypeAlias = dict[str, Any]

AWARE: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)


class Versions:
    """Follows what becomes of the books of a site, whose contents change between crawls alone.

    `served` tells what the site answers for a book now.
    """

    def __init__(self, database: Database, served: Callable[[str], Book]) -> None:
        self._database = database
        self._served = served
        self.known: dict[str, list[Book]] = {}  # as they were read last, oldest first
        self.unreal: list[Book] = []  # entries of the history that lead to no version
        self._forgotten: set[str] = set()

    def read(self) -> dict[str, list[Book]]:
        """Put together the versions of each stored book, oldest first."""
        history = self._database.books.database.get_collection(
            f"{self._database.books.name}_history", codec_options=AWARE
        )
        entries: dict[str, dict[Any, Book]] = {}
        for entry in history.find():
            own = entries.setdefault(entry["id"], {})
            assert own.setdefault(entry["until"], entry) is entry, "a version is there twice"
        found: dict[str, list[Book]] = {}
        for one, book in self._database.stored().items():
            found[one] = _versions(book, entries.get(one, {}))
        forgotten = self._forgotten
        left = {one: own for one, own in entries.items() if one not in forgotten}
        self.unreal = [entry for own in left.values() for entry in own.values()]
        return found

    def forget(self, keys: Iterable[str]) -> None:
        """These were deleted: what the history has of them leads to no version any more."""
        for one in keys:
            self._forgotten.add(one)
            self.known.pop(one, None)

    def follow(self, *, is_complete: bool = False) -> None:
        """Read them, and assert that a crawl at most added what the site answers now, once.

        After a complete crawl the last version of each is what the site answers, and no entry is
        left that leads nowhere.
        """
        found = self.read()
        assert found.keys() >= self.known.keys(), "a book is lost"
        for one, versions in found.items():
            earlier, served = self.known.get(one, []), as_stored(self._served(one))
            added = earlier if earlier[-1:] == [served] else [*earlier, served]
            assert versions == added or (versions == earlier and not is_complete), (one, versions)
        assert not (is_complete and self.unreal), self.unreal
        self.known = found

    def behind(self) -> list[str]:
        """The books whose last version is not what the site answers now."""
        return [
            one for one, known in self.known.items() if known[-1] != as_stored(self._served(one))
        ]


def _versions(book: Book, entries: dict[Any, Book]) -> list[Book]:
    """Go back from the stored version; what is left of the entries leads nowhere."""
    found, changed_at = [content(book)], book["changed_at"]
    while entry := entries.pop(changed_at, None):
        older = {**found[0], **entry["fields"]}
        for name in entry.get("absent", ()):
            assert older.pop(name) is None
        found.insert(0, older)
        changed_at = entry["from"]
    assert changed_at == book["first_crawled_at"], "the oldest versions are lost"
    return found
