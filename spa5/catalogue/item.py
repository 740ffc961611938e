"""Item: what all items share. Their fields say how they are cleaned, see `fields`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from spa5.catalogue.fields import FieldError, clean_line, clean_text, storable
from spa5.catalogue.text import brief

if TYPE_CHECKING:
    from typing import TypeAlias

    from typing_extensions import Self

    from spa5.catalogue.fields import Clean

    Key: TypeAlias = int | str


# What is stored beside an item's fields: dates, and the crawl that listed it last.
DATES = ("first_crawled_at", "crawled_at", "changed_at", "listed_at", "delisted_at")
BOOKKEEPING = (*DATES, "crawl")


class InvalidItem(ValueError):
    """The answer of the API is no item, for it has no usable key."""


@dataclass(frozen=True)
class KeyKind:
    """The form of a key: text that matches `pattern`, kept as text or as a whole number."""

    type: type[int] | type[str]
    pattern: str
    words: str  # for people: "use digits"

    def clean(self, value: Any) -> Key:
        """The key that the API, a person or a file names; `InvalidItem` where it is none."""
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**20:
            value = str(value)
        if not isinstance(value, str) or not re.fullmatch(self.pattern, value):
            raise InvalidItem(f"its key is {brief(value)}")
        return self.type(value)


DIGITS = KeyKind(str, "[0-9]{1,20}", "digits")
INTEGER = KeyKind(int, "[0-9]{1,18}", "whole numbers")
CODE = KeyKind(str, "[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,99}", "letters, digits and - . _ ~")


def key(kind: KeyKind = DIGITS) -> Any:
    """The field by which an item is known: the detail's URL and the unique index are about it."""
    return field(metadata={"key": kind})


@dataclass(frozen=True)
class Schema:
    """The facts that the fields of an item carry in their metadata."""

    noun: str  # for people
    key: str  # the key's name
    kind: KeyKind
    cleaners: dict[str, Clean]  # of all fields but the key and `extra`
    listed: tuple[str, ...]  # the fields that an index page has, too
    names: frozenset[str]  # of all fields but the key

    @property
    def nouns(self) -> str:
        return f"{self.noun}s"

    @property
    def title(self) -> str | None:
        """The text by which people know an item: its `name`, else the first one that is listed."""
        texts = [name for name, one in self.cleaners.items() if one in (clean_line, clean_text)]
        listed = (name for name in texts if name in self.listed)
        return "name" if "name" in texts else next(listed, None)

    def key_of(self, item: Any) -> Key:
        key: Key = getattr(item, self.key)
        return key

    def unread(self, extra: Any) -> frozenset[str]:
        """The names of the fields that could not be read, given an item's `extra`."""
        known = self.cleaners.keys()
        return frozenset(known & extra.keys()) if isinstance(extra, dict) else frozenset()


class Item:
    """An item of a catalogue under the API's own field names. Items are dataclasses.

    One of its fields is the `key`. Of those that an index page lists, too, `listed=True` says so:
    where they differ from what is stored, the item is fetched. The last field is `extra`. It is
    None, or holds fields that the API had and the class does not know, and, under its own name,
    what the API sent for a field that could not be read.
    """

    extra: dict[str, Any] | None

    @classmethod
    def from_api(cls, data: Any, errors: list[str] | None = None) -> Self:
        """Clean one JSON object of the API, a detail or an index page's entry.

        Of a field of the wrong kind the usable part is taken, else None or an empty list; its name
        is appended to `errors`. Raises `InvalidItem` where there is no usable key.
        """
        if not isinstance(data, dict):
            raise InvalidItem(f"not an object but {brief(data)}")
        errors = [] if errors is None else errors
        schema = schema_of(cls)
        item = cls(**{schema.key: schema.kind.clean(data.get(schema.key))})
        extra = data.keys() - schema.cleaners.keys() - {schema.key}
        for name, value in data.items():
            if value is None or name not in schema.cleaners:
                continue
            try:
                setattr(item, name, schema.cleaners[name](value))
            except FieldError as error:
                setattr(item, name, error.kept)
                errors.append(name)
                extra.add(name)
        if extra:
            left = {name: data[name] for name in data if name in extra}
            item.extra = _extra(left, schema, errors)
        return item

    @property
    def unread(self) -> frozenset[str]:
        """The names of the fields that could not be read."""
        return schema_of(type(self)).unread(self.extra)

    def __str__(self) -> str:
        name = getattr(self, "name", None)
        schema = schema_of(type(self))
        return f"{schema.noun} {schema.key_of(self)}" + (f" ({brief(name)})" if name else "")


def schema_of(item_class: type) -> Schema:
    """The schema of an item's class; TypeError where the class is not fit for a catalogue."""
    if item_class not in _schemas:
        _schemas[item_class] = _read_schema(item_class)
    return _schemas[item_class]


def _read_schema(item_class: type) -> Schema:
    own = {one.name: one.metadata for one in fields(item_class)}
    keys = [name for name, metadata in own.items() if "key" in metadata]
    if len(keys) != 1 or "extra" not in own:
        raise TypeError(f"{item_class.__name__} needs one field that is a key(), and an `extra`")
    if taken := own.keys() & {"_id", *BOOKKEEPING}:
        raise TypeError(
            f"{item_class.__name__} has a field {min(taken)!r}, which is stored besides"
        )
    return Schema(
        noun=item_class.__name__.lower(),
        key=keys[0],
        kind=own[keys[0]]["key"],
        cleaners={name: metadata["clean"] for name, metadata in own.items() if "clean" in metadata},
        listed=tuple(name for name, metadata in own.items() if metadata.get("listed")),
        names=frozenset(own) - {keys[0]},
    )


def _extra(data: dict[str, Any], schema: Schema, errors: list[str]) -> dict[str, Any] | None:
    """The values as they are; of a field that could not be read at least a text for people."""
    extra = {}
    for name, value in data.items():
        if storable({name: value}):
            extra[name] = value
        elif name in schema.cleaners:
            extra[name] = brief(value, 200)
        else:
            errors.append("extra")
    return extra or None


ANY = Schema("item", "id", CODE, {}, (), frozenset())  # of other spiders' items
_schemas: dict[type, Schema] = {}
