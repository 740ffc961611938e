"""Document: a book ready to be written, and what becomes of a batch of them."""

from __future__ import annotations

import struct
from dataclasses import fields
from datetime import datetime, timezone
from typing import Any, Literal, NamedTuple

import bson
from bson import ObjectId
from bson.codec_options import CodecOptions
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

from spa5.items import Book, InvalidBook, book_id, brief, to_milliseconds

Outcome = Literal["inserted", "changed", "unchanged"]

_FIELDS = frozenset(field.name for field in fields(Book)) - {"id"}
_TIMES = ("crawled_at", "listed_at", "changed_at", "first_crawled_at")
_AWARE: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)
MOST_BYTES = 16 * 1024 * 1024  # MongoDB's limit for a document


class Rejected(Exception):
    """One book that BSON or MongoDB refuses; its neighbours are not concerned."""

    def __init__(self, reason: str, *, is_duplicate: bool = False):
        super().__init__(reason)
        self.is_duplicate = is_duplicate  # its id is in the collection already


class Document(NamedTuple):
    """A book ready to be written: its fields as one BSON document, encoded once."""

    id: str
    names: tuple[str, ...]
    content: bytes
    oid: ObjectId  # its `_id` if it is new

    @classmethod
    def from_item(cls, item: dict[str, Any]) -> Document:
        """Encode an item's fields, an empty `extra` left out; `Rejected` where BSON refuses."""
        content = {name: value for name, value in item.items() if name != "extra" or value}
        try:
            one = book_id(content.pop("id", None))
            encoded = bson.encode(content)
        except (BSONError, InvalidBook, OverflowError, RecursionError, ValueError) as error:
            raise Rejected(brief(str(error), 200)) from None
        if bad := [name for name in content.keys() - _FIELDS if not _is_field_name(name)]:
            raise Rejected(f"a field can't be called {brief(bad[0])}")
        if len(encoded) > MOST_BYTES:
            raise Rejected(f"{len(encoded)} bytes are more than MongoDB's 16 MB")
        return cls(one, tuple(content), encoded, ObjectId())

    @property
    def absent(self) -> frozenset[str]:
        """The fields of a Book that this one lacks, which thus disappear from the collection."""
        return _FIELDS.difference(self.names)

    def equals(self, stored: dict[str, Any]) -> bool:
        """Whether a stored document holds this content, to the byte."""
        if not self.absent.isdisjoint(stored):
            return False
        same = {name: stored[name] for name in self.names if name in stored}
        return bson.encode(same) == self.content

    def differing(self, stored: dict[str, Any]) -> list[str]:
        """The names of the fields that a stored document holds otherwise, lacks or has too many."""
        own = bson.decode(self.content, _AWARE)
        return [
            name
            for name in [*own, *sorted(self.absent & stored.keys())]
            if (name in own) != (name in stored)
            or bson.encode({name: own[name]}) != bson.encode({name: stored[name]})
        ]

    def as_new(self, moment: datetime) -> RawBSONDocument:
        """The whole document, to be inserted."""
        ids = bson.encode({"_id": self.oid, "id": self.id})
        return _joined(ids, self.content, bson.encode(dict.fromkeys(_TIMES, moment)))


class Update(NamedTuple):
    """One book's update_one: `change` as an upsert, or of what is stored alone."""

    id: str
    change: dict[str, Any]
    upsert: bool


def plan(
    documents: list[Document], stored: dict[str, dict[str, Any]], moment: datetime
) -> tuple[list[Outcome], list[Update]]:
    """Each document's outcome, and one update for each id, given what is stored of these ids.

    Of two with one id the last one wins. What is stored already is not written again: then only
    the bookkeeping moves. One that is stored under its own `_id` was inserted by a try whose
    answer was lost.
    """
    outcomes: list[Outcome] = []
    latest: dict[str, Document] = {}
    rewrite: set[str] = set()
    for document in documents:
        one = document.id
        before, known = latest.get(one), stored.get(one)
        if before is not None:
            same = before.content == document.content
        else:
            same = known is not None and document.equals(known)
        is_new = before is None and (known is None or known["_id"] == document.oid)
        outcomes.append("inserted" if is_new else "unchanged" if same else "changed")
        if not same or not isinstance((known or {}).get("changed_at"), datetime):
            rewrite.add(one)
        latest[one] = document
    updates = [
        _update(document, stored.get(one, {}), moment, content=one in rewrite)
        for one, document in latest.items()
    ]
    return outcomes, updates


def now() -> datetime:
    """The time, cut to the milliseconds that MongoDB keeps."""
    return to_milliseconds(datetime.now(timezone.utc))


def _update(
    document: Document, known: dict[str, Any], moment: datetime, *, content: bool
) -> Update:
    moved = [*_TIMES[:2], *_TIMES[2:3] * content]
    if not isinstance(known.get("first_crawled_at"), datetime):
        moved.append("first_crawled_at")
    times = bson.encode(dict.fromkeys(moved, moment))
    change: dict[str, Any] = {"$set": RawBSONDocument(times)}
    if content:
        change["$set"] = _joined(document.content, times)
        change["$unset"] = dict.fromkeys(document.absent, "")
    return Update(document.id, change, upsert=content)


def _joined(*documents: bytes) -> RawBSONDocument:
    """The fields of BSON documents in one: its length, the fields, a zero byte (bsonspec.org)."""
    fields = b"".join(document[4:-1] for document in documents)
    return RawBSONDocument(struct.pack("<i", len(fields) + 5) + fields + b"\0")


def _is_field_name(name: Any) -> bool:
    """Not what MongoDB takes as a path, an operator, or that a book's document has already."""
    taken = ("", "_id", *_TIMES)
    return isinstance(name, str) and name not in taken and name[0] != "$" and "." not in name
