"""Fields: what an item's fields are made of, and how the API's values become theirs.

A field of an item carries its cleaner: a function that returns the value to store, and raises
`FieldError` where a value is not of the field's kind.
"""

from __future__ import annotations

import math
import re
from dataclasses import field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Clean: TypeAlias = Callable[[Any], Any]

_INTEGER = re.compile(r"[0-9]{1,20}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,300}(\.[0-9]*)?")
_INT64 = 1 << 63
# MongoDB refuses documents that are nested more than 100 levels deep; `extra` is one of them.
_MOST_LEVELS = 90
# Inside a document these names make a DBRef, which MongoDB checks and drivers decode as such.
_DBREF_NAMES = {"$ref", "$id", "$db"}


class FieldError(ValueError):
    """A value is not of its field's kind; `kept` is the part of it that can be stored."""

    def __init__(self, kept: Any = None):
        super().__init__("not of the field's kind")
        self.kept = kept


def line(*, listed: bool = False) -> Any:
    """Text in one line: trimmed, with inner runs of white space folded. `listed`: see `Item`."""
    return field(default=None, metadata={"clean": clean_line, "listed": listed})


def text(*, listed: bool = False) -> Any:
    """Text that keeps its line breaks, trimmed."""
    return field(default=None, metadata={"clean": clean_text, "listed": listed})


def lines(*, listed: bool = False) -> Any:
    """A list of one-line texts, without blank ones."""
    metadata = {"clean": lambda value: clean_list(value, clean_line), "listed": listed}
    return field(default_factory=list, metadata=metadata)


def integer(*, listed: bool = False) -> Any:
    """A whole number of 64 bits, also where the API spells it as text."""
    return field(default=None, metadata={"clean": clean_integer, "listed": listed})


def number(*, listed: bool = False) -> Any:
    """A number, also where the API spells it as text."""
    return field(default=None, metadata={"clean": clean_number, "listed": listed})


def moment(*, listed: bool = False) -> Any:
    """A date, or a date with a time, as UTC with milliseconds. In feeds it is ISO 8601."""
    return field(
        default=None, metadata={"clean": clean_moment, "listed": listed, "serializer": _iso}
    )


def objects(*, listed: bool = False, **cleaners: Clean) -> Any:
    """A list of objects with these members, each with its cleaner."""

    def clean(value: Any) -> list[dict[str, Any]]:
        return clean_list(value, lambda member: clean_object(member, cleaners))

    return field(default_factory=list, metadata={"clean": clean, "listed": listed})


def clean_text(value: Any) -> str:
    """Text, trimmed; a number is taken as its text."""
    if type(value) in (int, float) and -1e300 < value < 1e300:
        value = str(value)
    # JSON can spell a lone surrogate, BSON can't hold it.
    if not isinstance(value, str) or not _encodable(value):
        raise FieldError
    return value.strip()


def clean_line(value: Any) -> str:
    return " ".join(clean_text(value).split())


def clean_list(value: Any, clean: Clean) -> list[Any]:
    """The usable members of a list; blank ones say nothing and are left out."""
    if not isinstance(value, list):
        raise FieldError([])
    kept, bad = [], False
    for member in value:
        try:
            kept.append(None if member is None else clean(member))
        except FieldError as error:
            bad = True
            kept.append(error.kept)
    kept = [member for member in kept if member]
    if bad:
        raise FieldError(kept)
    return kept


def clean_object(value: Any, cleaners: dict[str, Clean]) -> dict[str, Any]:
    """An object with just these members; those that the API lacks are None."""
    if not isinstance(value, dict):
        raise FieldError
    kept: dict[str, Any] = dict.fromkeys(cleaners)
    bad = bool(value.keys() - kept.keys())
    for name, clean in cleaners.items():
        try:
            kept[name] = None if value.get(name) is None else clean(value[name])
        except FieldError:
            bad = True
    if bad:
        raise FieldError(kept)
    return kept


def clean_integer(value: Any) -> int | None:
    if isinstance(value, str):
        if not value.strip():
            return None
        value = int(value) if _INTEGER.fullmatch(value.strip()) else None
    if type(value) is not int or not -_INT64 <= value < _INT64:
        raise FieldError
    return value


def clean_number(value: Any) -> float | None:
    if isinstance(value, str):
        if not value.strip():
            return None
        value = float(value) if _NUMBER.fullmatch(value.strip()) else None
    if type(value) not in (int, float) or not -1e300 < value < 1e300:
        raise FieldError
    return float(value)


def clean_moment(value: Any) -> datetime | None:
    """ISO 8601; without an offset it is taken as UTC."""
    if not isinstance(value, str):
        raise FieldError
    text = clean_line(value)
    if not text:
        return None
    try:
        # Python 3.10 does not read the "Z".
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        moment = moment.replace(tzinfo=moment.tzinfo or timezone.utc).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise FieldError from None
    return to_milliseconds(moment)


def to_milliseconds(moment: datetime) -> datetime:
    """`moment` cut to the milliseconds that BSON's dates keep."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def now() -> datetime:
    """The time, cut to the milliseconds that MongoDB keeps."""
    return to_milliseconds(datetime.now(timezone.utc))


def is_empty(value: Any) -> bool:
    """True for null, blank text, and a list or an object without anything else in it."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, list):
        return all(map(is_empty, value))
    return value is None or value == {}


def storable(value: Any, levels: int = _MOST_LEVELS) -> bool:
    """True if a JSON value can be stored in MongoDB and reads back equal."""
    if isinstance(value, dict):
        return levels > 0 and all(
            _storable_name(name) and storable(inner, levels - 1) for name, inner in value.items()
        )
    if isinstance(value, list):
        return levels > 0 and all(storable(inner, levels - 1) for inner in value)
    if isinstance(value, str):
        return _encodable(value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or -_INT64 <= value < _INT64


def _storable_name(name: str) -> bool:
    return "\0" not in name and name not in _DBREF_NAMES and _encodable(name)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _iso(moment: Any) -> Any:
    """Return a date as text; what another program stored in its place stays as it is."""
    return moment.isoformat() if isinstance(moment, datetime) else moment
