"""What workers write into Redis, and what they believe of what they read there.

Others can write there too: everything is checked, and what is not right is `Refused`.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from spa5.catalogue.item import InvalidItem

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import TypeAlias

    from spa5.catalogue.item import Key

    Clean: TypeAlias = Callable[[Any], Key]  # `KeyKind.clean`

OUTCOMES = frozenset(("done", "gone", "failed", "invalid", "rejected", "forbidden", "held"))
MOST_BYTES = 1 << 20  # of one value; of what is longer, Redis sends nothing
_MOST_REASON = 200  # characters
_REASON = re.compile(r"[a-z_]{1,40}")
_RUN = re.compile(r"[0-9a-f]{32} (\S{10,40}) [0-9a-f]{16}")


class Refused(ValueError):
    """No worker of this crawl wrote what Redis holds."""


def pack(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def pack_request(one: Key, listed: dict[str, Any]) -> str:
    """A request for the detail of item `one`; an index entry that is too long is left out."""
    packed = pack([one, listed])
    return packed if len(packed) <= MOST_BYTES else pack([one, {}])


def unpack_request(raw: bytes, names: Collection[str], clean: Clean) -> tuple[Key, dict[str, Any]]:
    """An id and its index entry, which has no other fields than `names`."""
    match _unpack(raw):
        case [one, dict() as listed] if all(name in names for name in listed):
            return _id(one, clean), listed
    raise Refused


def outcome(clean: Clean, one: Any, outcome: Any, reason: Any) -> tuple[Key, str, str]:
    """Return the outcome of an item as it is sent; the reason becomes one short line."""
    if not isinstance(outcome, str) or outcome not in OUTCOMES or not isinstance(reason, str):
        raise Refused
    line = "".join(c if c.isprintable() else " " for c in reason[:_MOST_REASON])
    return _id(one, clean), outcome, line


def unpack_outcomes(raw: bytes, clean: Clean) -> list[tuple[Key, str, str]]:
    match _unpack(raw):
        case [*all_of_them] if all(isinstance(each, list) for each in all_of_them):
            try:
                return [outcome(clean, *each) for each in all_of_them]
            except TypeError:  # not three
                pass
    raise Refused


def unpack_totals(raw: bytes) -> dict[str, int]:
    """Return the counts of one worker by stat."""
    return _counts(_unpack(raw))


def unpack_ended(raw: bytes) -> dict[str, Any]:
    """Return `reason`, `expected`, `missing` (may be None) and `totals` of a crawl that ended."""
    match _unpack(raw):
        case {"reason": str(reason), "expected": _, "missing": _, "totals": totals} as ended:
            if _REASON.fullmatch(reason):
                numbers = {"expected": ended["expected"], "missing": ended["missing"]}
                _counts({name: n for name, n in numbers.items() if n is not None})
                return {"reason": reason, **numbers, "totals": _counts(totals)}
    raise Refused


def unpack_run(raw: bytes) -> str:
    """The name of a run: a random number, when it began, and a hash of what it crawls."""
    try:
        run = raw.decode()
        match = _RUN.fullmatch(run)
        if match and datetime.fromisoformat(match[1]).tzinfo:
            return run
    except ValueError:
        pass
    raise Refused


def _unpack(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise Refused from None


def _id(value: Any, clean: Clean) -> Key:
    try:
        return clean(value)
    except InvalidItem:
        raise Refused from None


def _counts(value: Any) -> dict[str, int]:
    if not isinstance(value, dict) or any(type(n) is not int or n < 0 for n in value.values()):
        raise Refused
    return value
