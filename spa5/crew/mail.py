"""Mail: what one worker sends to the others with its beats, and what it gets from them."""

from __future__ import annotations

import logging
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from spa5.catalogue.text import brief
from spa5.crew import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from spa5.catalogue.item import Key, Schema

logger = logging.getLogger(__name__)

T = TypeVar("T")

# A beat sends at most so many.
_MOST_REQUESTS = 1_000
_MOST_OUTCOMES = 500


class Outgoing(NamedTuple):
    """What goes with one beat; it is kept until the beat has succeeded."""

    requests: list[tuple[str, str]]
    outcomes: list[tuple[Key, str, str]]
    wanted: int


class Mail:
    """Requests that were made and taken here, and outcomes that the leader does not know yet."""

    def __init__(self, schema: Schema, count: Callable[[str, int], None]):
        self._names = schema.listed
        self.clean = schema.kind.clean
        self._count = count  # of stats
        # The id, if it is asked for only once in a shared crawl, else ""; and the request.
        self.unsent: deque[tuple[str, str]] = deque()
        self.outcomes: deque[tuple[Key, str, str]] = deque()
        self.taken: deque[tuple[Key, dict[str, Any]]] = deque()
        self.wanted = 0
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

    def outgoing(self, everything: bool) -> Outgoing:
        requests = islice(self.unsent, None if everything else _MOST_REQUESTS)
        outcomes = islice(self.outcomes, None if everything else _MOST_OUTCOMES)
        wanted, self.wanted = 0 if everything else self.wanted, 0
        return Outgoing(list(requests), list(outcomes), wanted)

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
            if request := self.believe(wire.unpack_request, raw, self._names, self.clean):
                self.taken.append(request)

    def believe(self, unpack: Callable[..., T], raw: bytes, *more: Any) -> T | None:
        """What `unpack` makes of it; None, counted and said once, where it is not right."""
        try:
            return unpack(raw, *more)
        except wire.Refused:
            self._refuse(raw)
            return None

    def _refuse(self, raw: bytes) -> None:
        self._count("redis/refused", 1)
        if not self._has_refused:
            self._has_refused = True
            logger.warning(
                "Redis holds what no worker of this crawl wrote, it is not used: %s; further ones "
                "are only counted, as redis/refused",
                brief(raw),
            )
