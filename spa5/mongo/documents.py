"""Document: an item ready to be written, encoded as BSON."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import bson
from bson import ObjectId
from bson.codec_options import CodecOptions
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

from spa5.catalogue.fields import is_empty
from spa5.catalogue.item import BOOKKEEPING, InvalidItem
from spa5.catalogue.text import brief, one_line

if TYPE_CHECKING:
    from spa5.catalogue.item import Key, Schema

_AWARE: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)
MOST_BYTES = 16 * 1024 * 1024  # MongoDB's limit for a document


class Rejected(Exception):
    """BSON or MongoDB refuses this item. The others of its batch are stored all the same."""


class HeldBack(Exception):
    """This item waits until it is known how many others would lose the same field."""


class Document(NamedTuple):
    """An item ready to be written: its fields as BSON documents, encoded once."""

    schema: Schema
    key: Key
    names: tuple[str, ...]  # of the fields in `content`
    content: bytes
    unread: bytes  # the usable part of fields that could not be read: it replaces nothing
    absent: frozenset[str]  # known fields that disappear, for the item lacks them
    oid: ObjectId  # its `_id` if it is new

    @classmethod
    def from_item(cls, item: dict[str, Any], schema: Schema) -> Document:
        """Encode an item's fields without an empty `extra`; `Rejected` where BSON refuses."""
        content = {name: value for name, value in item.items() if name != "extra" or value}
        names = schema.unread(content.get("extra"))
        try:
            key = schema.kind.clean(content.pop(schema.key, None))
            usable = bson.encode({name: content.pop(name) for name in names & content.keys()})
            encoded = bson.encode(content)
        except (BSONError, InvalidItem, OverflowError, RecursionError, ValueError) as error:
            raise Rejected(one_line(error)) from None
        if bad := [name for name in content.keys() - schema.names if not _is_field_name(name)]:
            raise Rejected(f"a field can't be called {brief(bad[0])}")
        size = len(encoded) + len(usable) - len(bson.encode({}))
        if size > MOST_BYTES:
            raise Rejected(f"{size} bytes are more than MongoDB's 16 MB")
        absent = schema.names.difference(names, content)
        return cls(schema, key, tuple(content), encoded, usable, absent, ObjectId())

    def size(self) -> int:
        """Its bytes, more or less."""
        return len(self.content)

    def equals(self, stored: dict[str, Any]) -> bool:
        """True if a stored document holds this content, to the byte."""
        if not self.absent.isdisjoint(stored):
            return False
        same = {name: stored[name] for name in self.names if name in stored}
        return bson.encode(same) == self.content

    def differing(self, stored: dict[str, Any]) -> list[str]:
        """Return the names of fields that differ, are missing, or exist only in the stored one.

        Fields that could not be read do not count.
        """
        own = bson.decode(self.content, _AWARE)
        return [
            name
            for name in [*own, *sorted(self.absent & stored.keys())]
            if (name in own) != (name in stored)
            or bson.encode({name: own[name]}) != bson.encode({name: stored[name]})
        ]

    def emptied(self, stored: dict[str, Any]) -> list[str]:
        """Return the names of the fields that this document would empty in a stored one.

        Losing `extra` is no loss if another field is filled or can be read again instead: a site
        that renames a field and takes that back mends what it broke.
        """
        own = bson.decode(self.content, _AWARE)
        changes = [
            (name, is_empty(own.get(name)), is_empty(stored.get(name)))
            for name in {*own, *(self.absent & stored.keys())}
        ]
        emptied = {name for name, after, before in changes if after and not before}
        is_mended = any(before and not after for _, after, before in changes)
        if is_mended or self.schema.unread(stored.get("extra")):
            emptied.discard("extra")
        return sorted(emptied)


def joined(*documents: bytes) -> RawBSONDocument:
    """Join the fields of BSON documents: length, fields, a zero byte (bsonspec.org)."""
    fields = b"".join(document[4:-1] for document in documents)
    return RawBSONDocument(struct.pack("<i", len(fields) + 5) + fields + b"\0")


def _is_field_name(name: Any) -> bool:
    """True if this is no path, no operator and no name that the store itself uses."""
    taken = ("", "_id", *BOOKKEEPING)
    return isinstance(name, str) and name not in taken and name[0] != "$" and "." not in name
