"""Listing: the ids that the site listed in this crawl, and what became of each. The verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from spa5.catalogue.walk import Walk, same_entries

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from spa5.catalogue.item import Key

# What becomes of an id. `done`: acknowledged by MongoDB, or found good there; `gone`: the API's own
# 404. The rest leaves it unresolved. `hopeless` ones are the same each time they are asked for.
DONE, GONE = "done", "gone"
FAILED, INVALID, REJECTED, FORBIDDEN, HELD = "failed", "invalid", "rejected", "forbidden", "held"
HOPELESS = {INVALID, REJECTED, FORBIDDEN}
DRIFT = "Drift: "  # so begins the reason of what is held because the crawl ends as drift
# Not believed in one sweep: more than this share of the listed ids gone, and so many of them.
MOST_GONE_SHARE, LEAST_GONE = 0.05, 10
MOST_NAMED = 20  # ids in a line for people
_REPEATS = "The site lists %d different ids, but counts %d: it repeats some"

_DUE, _ASKED, _DONE, _GONE, _LEFT = range(5)  # states of an id; `_LEFT` has a reason beside it


class Listing:
    """Each id that the site listed, over all sweeps of a crawl, and what became of it.

    It takes at most 100 bytes an id: texts that are digits are held as numbers. `is_number`: the
    ids are numbers themselves.
    """

    def __init__(self, *, is_number: bool = False) -> None:
        self._is_number = is_number
        self._states: dict[int | str, int] = {}
        self._reasons: dict[int | str, tuple[str, str]] = {}  # outcome and why

    def __len__(self) -> int:
        """The number of different ids that were listed."""
        return len(self._states)

    def __contains__(self, one: Key) -> bool:
        """True if the id was listed."""
        return _key(one) in self._states

    def meet(self, ids: Iterable[Key]) -> list[Key]:
        """Note that these are listed; return, each once, those whose fate is to be found out."""
        due = []
        for one in ids:
            key = _key(one)
            if self._states.get(key, _DUE) == _DUE:
                self._states[key] = _ASKED
                due.append(one)
        return due

    def settle(self, one: Key, outcome: str, reason: str = "") -> None:
        """Note what became of an id. What nobody listed here is of no concern."""
        key = _key(one)
        if key not in self._states:
            return
        self._reasons.pop(key, None)
        if outcome == DONE:
            self._states[key] = _DONE
        elif outcome == GONE:
            self._states[key] = _GONE
        else:
            self._states[key] = _LEFT
            self._reasons[key] = (outcome, reason)

    def begin_sweep(self) -> None:
        """Have everything that is unresolved asked for again."""
        self._reasons.clear()
        for key, state in self._states.items():
            if state in (_ASKED, _LEFT):
                self._states[key] = _DUE

    def chunks(self, size: int) -> Iterator[list[Key]]:
        """All listed ids, `size` at a time."""
        keys = list(self._states)
        for start in range(0, len(keys), size):
            yield [self._id(key) for key in keys[start : start + size]]

    def check(self, ids: list[Key], held: set[Key]) -> int:
        """Note which of `ids` MongoDB should hold and does not; return how many it holds."""
        for one in ids:
            if one not in held and self._states[key := _key(one)] == _DONE:
                self._leave(key, FAILED, "no longer stored")
        return len(held)

    def end_sweep(self, *, believes_gone: bool = False) -> None:
        """Note what got no answer; do not believe that many are gone at once."""
        gone = self.gone
        doubts = gone >= LEAST_GONE and gone > MOST_GONE_SHARE * len(self) and not believes_gone
        for key, state in self._states.items():
            if state in (_ASKED, _DUE):
                self._leave(key, FAILED, "no answer")
            elif state == _GONE and doubts:
                self._leave(key, GONE, "status 404 like many others")

    @property
    def gone(self) -> int:
        return sum(state == _GONE for state in self._states.values())

    @property
    def drift(self) -> str | None:
        """The line of a worker that shares the crawl and found a drift; None if there is none."""
        lines = (why for outcome, why in self._reasons.values() if outcome == HELD)
        return next((why for why in lines if why.startswith(DRIFT)), None)

    @property
    def unresolved(self) -> dict[Key, tuple[str, str]]:
        """The outcome and the reason of each unresolved id."""
        return {self._id(key): why for key, why in self._reasons.items()}

    def _id(self, key: int | str) -> Key:
        return key if self._is_number else str(key)

    def _leave(self, key: int | str, outcome: str, reason: str) -> None:
        self._states[key] = _LEFT
        self._reasons[key] = (outcome, reason)


class Verdict(NamedTuple):
    """The result of a crawl, if it ended here."""

    reason: str  # `finished`, `incomplete` or `drift`
    missing: int | None  # ids unresolved or never listed; None: it is not known
    may_find_more: bool  # True if another walk could help
    line: str  # for people, why; empty if there is nothing to tell


def judge(listing: Listing, walks: Sequence[Walk], *, whole: bool, others: int) -> Verdict:
    """The verdict after the last of `walks` (none where the crawl was of given ids).

    A crawl is finished if the last walk lost no page, nothing is unresolved, and at least as many
    different ids were listed as the site counts. Fewer are enough where two walks met the same
    entries at the same offsets, which proves that the site repeats some. `whole`: the walks were of
    the whole catalogue. `others`: how many documents MongoDB holds besides the listed ones; if
    there are none, what was not listed can't be stored.
    """
    walk = walks[-1] if walks else Walk(1)
    unresolved, lost, unusable = listing.unresolved, walk.lost_pages, walk.unusable
    short = _short(listing, walk) if whole else 0
    line = ""
    if short and _repeats(listing, walk) and same_entries(walk, walks[:-1]):
        short, line = 0, _REPEATS % (len(listing), walk.count)
    if not (unresolved or unusable or short or lost):
        return Verdict("finished", 0, False, line)
    is_known = not lost or (whole and walk.count is not None and (others == 0 or not short))
    missing = len(unresolved) + unusable + short if is_known else None
    kinds = {outcome for outcome, _ in unresolved.values()}
    passing = kinds - HOPELESS - ({GONE} if len(walks) > 1 else set())
    is_new = all(other.fingerprint != walk.fingerprint for other in walks[:-1])
    more = bool(passing or walk.may_find_more or (short and is_new))
    return Verdict("incomplete", missing, more, _incomplete(unresolved, unusable, short, lost))


def is_drift(listed: int, before: int | None, share: float) -> bool:
    """True if more than `share` of the catalogue of the last complete crawl is gone."""
    return before is not None and before - listed > share * before


def _short(listing: Listing, walk: Walk) -> int:
    """Return how many items the site counts and never listed."""
    return max(0, (walk.count or 0) - len(listing) - walk.unusable)


def _repeats(listing: Listing, walk: Walk) -> bool:
    """True if the walk met as many entries as the site counts, and not the same page for ever."""
    is_stuck = walk.recurred and len(listing) <= walk.step
    return walk.listed >= (walk.count or 0) and not is_stuck


def _incomplete(
    unresolved: dict[Key, tuple[str, str]], unusable: int, short: int, lost: int
) -> str:
    parts = []
    if unresolved:
        parts.append(f"{len(unresolved)} unresolved ({_named(unresolved)})")
    if unusable:
        parts.append(f"{unusable} listed without a usable id")
    if short:
        parts.append(f"{short} counted by the site, but not listed")
    if lost:
        parts.append(f"{lost} index pages lost in the last sweep")
    return "; ".join(parts)


def _named(unresolved: dict[Key, tuple[str, str]]) -> str:
    """The first ids by reason."""
    by_reason: dict[str, list[str]] = {}
    for one, (_, reason) in list(unresolved.items())[:MOST_NAMED]:
        by_reason.setdefault(reason[:60], []).append(str(one))
    more = ", …" if len(unresolved) > MOST_NAMED else ""
    return "; ".join(f"{why}: {', '.join(ids)}" for why, ids in by_reason.items()) + more


def _key(one: Key) -> int | str:
    """Digits as a number, which takes less memory, unless its text would be another one."""
    if isinstance(one, int):
        return one
    is_number = one.isascii() and one.isdigit() and len(one) <= 18
    return int(one) if is_number and (one[0] != "0" or one == "0") else one
