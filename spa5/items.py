"""The item: one book, cleaned and validated from what the API answers."""

from __future__ import annotations

import math
import re
import reprlib
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_ID = re.compile(r"[0-9]{1,20}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,300}(\.[0-9]*)?")
_INT64 = 1 << 63
# MongoDB refuses documents that are nested more than 100 levels deep; `extra` is one of them.
_MOST_LEVELS = 90
# Inside a document these names make a DBRef, which MongoDB checks and drivers decode as such.
_DBREF_NAMES = {"$ref", "$id", "$db"}
# What an index page says of a book besides its id: SkipStored compares it with what is stored.
LISTED = ("name", "authors", "cover", "score")


class InvalidBook(ValueError):
    """What the API answered is no book: it has no usable id."""


class FieldError(ValueError):
    """A field's value is not of its kind; `kept` is what of it can be stored."""

    def __init__(self, kept: Any = None):
        super().__init__("not of the field's kind")
        self.kept = kept


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


_DATE = {"serializer": _iso}  # in feeds


@dataclass
class Book:
    """A book under the API's own field names, see `from_api` for the cleaning.

    `published_at` and `updated_at` are UTC, with the milliseconds that MongoDB keeps; in feeds
    they are ISO 8601. `extra` is None, or holds fields that the API had and this class does not
    know, and, under its own name, what the API sent for a field that could not be read.
    """

    id: str
    name: str | None = None
    authors: list[str] = field(default_factory=list)
    translators: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    publisher: str | None = None
    isbn: str | None = None
    price: str | None = None
    url: str | None = None
    cover: str | None = None
    introduction: str | None = None
    catalog: str | None = None
    page_number: int | None = None
    score: float | None = None
    comments: list[dict[str, str | None]] = field(default_factory=list)
    published_at: datetime | None = field(default=None, metadata=_DATE)
    updated_at: datetime | None = field(default=None, metadata=_DATE)
    extra: dict[str, Any] | None = None

    @classmethod
    def from_api(cls, data: Any, errors: list[str] | None = None) -> Book:
        """Clean one JSON object of the API, a detail or an index page's entry.

        Text is trimmed, and inner runs of white space are folded in one-line fields. Of a field
        of the wrong kind the usable part is taken, else None or an empty list; its name is
        appended to `errors`. Raises `InvalidBook` where there is no usable id.
        """
        if not isinstance(data, dict):
            raise InvalidBook(f"not an object but {brief(data)}")
        errors = [] if errors is None else errors
        book = cls(book_id(data.get("id")))
        extra = data.keys() - _KNOWN
        for name, value in data.items():
            clean = _CLEANERS.get(name)
            if clean is None or value is None:
                continue
            try:
                value = clean(value)
            except FieldError as error:
                errors.append(name)
                extra.add(name)
                value = error.kept
            setattr(book, name, value)
        if extra:
            book.extra = _extra({name: data[name] for name in data if name in extra}, errors)
        return book

    @property
    def unread(self) -> frozenset[str]:
        """The names of the fields that could not be read."""
        return unread(self.extra)

    def __str__(self) -> str:
        return f"book {self.id} ({brief(self.name)})"


def brief(value: Any, most: int = 60) -> str:
    """`value` for a line of the log, at most `most` characters of it and never a line break."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = most
    try:
        text = short.repr(value)
    except ValueError:  # an int of thousands of digits
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= most else text[: most - 1] + "…"


def unread(extra: Any) -> frozenset[str]:
    """The names of a book's fields that could not be read, given its `extra`."""
    return frozenset(_CLEANERS).intersection(extra) if isinstance(extra, dict) else frozenset()


def book_id(value: Any) -> str:
    """The id as text: up to 20 ASCII digits. An int is taken as its text."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**20:
        value = str(value)
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise InvalidBook(f"its id is {brief(value)}")
    return value


def _text(value: Any) -> str:
    """Text, trimmed; a number is taken as its text."""
    if type(value) in (int, float) and -1e300 < value < 1e300:
        value = str(value)
    # JSON can spell a lone surrogate, BSON can't hold it.
    if not isinstance(value, str) or not _encodable(value):
        raise FieldError
    return value.strip()


def _line(value: Any) -> str:
    return " ".join(_text(value).split())


def _list(value: Any, clean: Callable[[Any], Any]) -> list[Any]:
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


def _lines(value: Any) -> list[str]:
    return _list(value, _line)


def _comments(value: Any) -> list[dict[str, str | None]]:
    return _list(value, _comment)


def _comment(value: Any) -> dict[str, str | None]:
    if not isinstance(value, dict):
        raise FieldError
    comment: dict[str, str | None] = {"id": None, "content": None}
    bad = bool(value.keys() - comment.keys())
    for name, clean in (("id", _line), ("content", _text)):
        try:
            comment[name] = None if value.get(name) is None else clean(value[name])
        except FieldError:
            bad = True
    if bad:
        raise FieldError(comment)
    return comment


def _integer(value: Any) -> int | None:
    if isinstance(value, str):
        if not value.strip():
            return None
        value = int(value) if _ID.fullmatch(value.strip()) else None
    if type(value) is not int or not -_INT64 <= value < _INT64:
        raise FieldError
    return value


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        if not value.strip():
            return None
        value = float(value) if _NUMBER.fullmatch(value.strip()) else None
    if type(value) not in (int, float) or not -1e300 < value < 1e300:
        raise FieldError
    return float(value)


def _time(value: Any) -> datetime | None:
    """ISO 8601; without an offset it is taken as UTC."""
    if not isinstance(value, str):
        raise FieldError
    text = _line(value)
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


def _extra(data: dict[str, Any], errors: list[str]) -> dict[str, Any] | None:
    """The values as they are; of a field that could not be read at least a text for people."""
    extra = {}
    for name, value in data.items():
        if storable({name: value}):
            extra[name] = value
        elif name in _CLEANERS:
            extra[name] = brief(value, 200)
        else:
            errors.append("extra")
    return extra or None


def storable(value: Any, levels: int = _MOST_LEVELS) -> bool:
    """Whether a JSON value can be stored in MongoDB and reads back equal."""
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


_CLEANERS: dict[str, Callable[[Any], Any]] = {
    "name": _line,
    "authors": _lines,
    "translators": _lines,
    "tags": _lines,
    "publisher": _line,
    "isbn": _line,
    "price": _line,
    "url": _line,
    "cover": _line,
    "introduction": _text,
    "catalog": _text,
    "page_number": _integer,
    "score": _number,
    "comments": _comments,
    "published_at": _time,
    "updated_at": _time,
}
_KNOWN = {"id", *_CLEANERS}
