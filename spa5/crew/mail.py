"""Mail: what one worker sends to the others with its beats, and what it gets from them."""

from __future__ import annotations

import logging
from collections import Counter, deque
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from spa5.catalogue.text import brief
from spa5.crew import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from spa5.catalogue.item import Key, Schema

logger = logging.getLogger(__name__)

T = TypeVar("T")

# A beat sends at most so many.
_MOST_REQUESTS = 1_000
_MOST_OUTCOMES = 500


class Outgoing(NamedTuple):
    """The things that go with one beat. They are kept until the beat has succeeded."""

    requests: list[tuple[str, str]]
    outcomes: list[tuple[Key, str, str]]
    wanted: int
    totals: dict[str, int]

    def packed(self) -> list[Any]:
        """The arguments of `scripts.BEAT`."""
        outcomes = wire.pack(self.outcomes) if self.outcomes else ""
        return [self.wanted, wire.pack(self.totals), outcomes, *chain(*self.requests)]


class Mail:
    """Requests that were made and taken here, outcomes that the leader does not know yet, and what
    the workers have counted. `own_totals` tells what this one has, by stat.
    """

    def __init__(
        self,
        schema: Schema,
        own_totals: Callable[[], dict[str, int]],
        count: Callable[[str, int], None],
    ):
        self._names = schema.listed
        self.clean = schema.kind.clean
        self._own_totals = own_totals
        self._before: dict[str, int] = {}  # own totals from an earlier run
        self._count = count  # of stats
        # The id, if it is asked for only once in a shared crawl, else ""; and the request.
        self.unsent: deque[tuple[str, str]] = deque()
        self.outcomes: deque[tuple[Key, str, str]] = deque()
        self.taken: deque[tuple[Key, dict[str, Any]]] = deque()
        self.wanted = 0  # requests
        self.totals: dict[str, int] = {}  # of all workers
        self.expected = 0  # items
        self._has_refused = False

    @property
    def has_to_send(self) -> bool:
        return bool(self.unsent or self.outcomes)

    def share(self, one: Key, listed: dict[str, Any], once: bool) -> None:
        self.unsent.append((str(one) if once else "", wire.pack_request(one, listed)))

    def give_back(self) -> None:
        """Send what was taken to the others."""
        for one, listed in self.taken:
            self.share(one, listed, once=False)
        self.taken.clear()

    def begin_anew(self) -> None:
        """Count from 0 for another run."""
        self._before = self._own_totals()

    def outgoing(self, everything: bool) -> Outgoing:
        requests = islice(self.unsent, None if everything else _MOST_REQUESTS)
        outcomes = islice(self.outcomes, None if everything else _MOST_OUTCOMES)
        wanted, self.wanted = 0 if everything else self.wanted, 0
        own, before = self._own_totals(), self._before
        totals = {name: max(0, value - before.get(name, 0)) for name, value in own.items()}
        return Outgoing(list(requests), list(outcomes), wanted, totals)

    def sent(self, outgoing: Outgoing, known: int) -> None:
        """Forget what the others have got; `known` requests they had been asked for before."""
        for queue, gone in ((self.unsent, outgoing.requests), (self.outcomes, outgoing.outcomes)):
            for _ in gone:
                queue.popleft()
        if known:
            self._count("dupefilter/filtered", known)
            self._count("scheduler/enqueued", -known)

    def take(self, requests: Iterable[bytes]) -> None:
        for raw in requests:
            if request := self._believe(wire.unpack_request, raw, self._names, self.clean):
                self.taken.append(request)

    def read_outcomes(self, batches: Iterable[bytes]) -> Iterator[tuple[Key, str, str]]:
        for raw in batches:
            yield from self._believe(wire.unpack_outcomes, raw, self.clean) or ()

    def add_up(self, totals: Iterable[bytes]) -> None:
        """Take these totals, one of each worker, for those of all."""
        sums: Counter[str] = Counter()
        for raw in totals:
            counts = self._believe(wire.unpack_totals, raw) or {}
            self.expected = max(self.expected, counts.pop("catalogue/expected", 0))
            sums.update(counts)
        self.totals = dict(sums)

    def _believe(self, unpack: Callable[..., T], raw: bytes, *more: Any) -> T | None:
        """Return what `unpack` reads; None if it is not right, which is counted, and said once."""
        try:
            return unpack(raw, *more)
        except wire.Refused:
            self._count("redis/refused", 1)
        if not self._has_refused:
            self._has_refused = True
            logger.warning(
                "Redis holds what no worker of this crawl wrote, it is not used: %s; further ones "
                "are only counted, as redis/refused",
                brief(raw),
            )
        return None
