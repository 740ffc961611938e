"""What a shared crawl's Redis holds and costs, with our requests."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Any

from spa5.catalogue.item import schema_of
from spa5.crew import wire
from spa5.crew.crew import Crew
from spa5.crew.link import Link
from spa5.crew.mail import Mail
from spa5.items import Book
from tests.standin.books import Books

if TYPE_CHECKING:
    from redis import Redis

AT_A_TIME = 32  # requests: twice as many as a worker has in flight


class Shared:
    """The requests for a catalogue's details, and a Redis to put them into."""

    def __init__(self, redis: Redis, url: str, books: int) -> None:
        self.redis = redis
        self.url = url
        catalogue = Books(books)
        self.requests = [self._request(catalogue.summary(one)) for one in catalogue.ids]

    def _request(self, summary: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        return str(summary.pop("id")), summary

    def seconds_a_request(self) -> float:
        """To share one and to take it."""
        return asyncio.run(self._pass_on()) / len(self.requests)

    async def _pass_on(self) -> float:
        mail = Mail(schema_of(Book), dict, _ignore)
        crew = Crew(Link(self.url, "bench:a", "0" * 16, _ignore), mail, lambda: True)
        await crew.join(lambda: None)
        began = perf_counter()
        for one, listed in self.requests:
            crew.share(one, listed, once=True)
        taken = 0
        while taken < len(self.requests):
            crew.want(AT_A_TIME)
            await crew.beats.next()
            taken += len(mail.taken)
            mail.taken.clear()
        seconds = perf_counter() - began
        await crew.end("finished", None, None)
        await crew.leave()
        return seconds

    def bytes_a_request(self) -> float:
        for one, listed in self.requests:
            self.redis.lpush("requests", wire.pack_request(one, listed))
        return self._bytes("requests")

    def bytes_an_id(self) -> float:
        for one, _ in self.requests:
            self.redis.sadd("asked", one)
        return self._bytes("asked")

    def _bytes(self, key: str) -> float:
        held = self.redis.memory_usage(key, samples=0)
        self.redis.delete(key)
        assert held
        return held / len(self.requests)


def _ignore(stat: str, by: Any) -> None:
    pass
