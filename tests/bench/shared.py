"""What Redis holds and costs: scrapy-redis's queues and duplicate filter, with our requests."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from scrapy_redis.dupefilter import RFPDupeFilter
from scrapy_redis.queue import FifoQueue, LifoQueue, PriorityQueue

from spa5.spiders.books import BooksSpider
from spa5.workers import Json
from tests.site import Catalogue

if TYPE_CHECKING:
    from redis import Redis
    from scrapy import Request

SITE = "https://spa5.scrape.center"
QUEUES = (FifoQueue, LifoQueue, PriorityQueue)


class Shared:
    """The requests for a catalogue's details, and a Redis to put them into."""

    def __init__(self, redis: Redis, books: int) -> None:
        self.redis = redis
        self.spider = BooksSpider()
        self.spider.site = SITE
        catalogue = Catalogue(books)
        self.requests = [self._request(catalogue.summary(one)) for one in catalogue.ids]

    def _request(self, summary: dict[str, object]) -> Request:
        one = str(summary.pop("id"))
        return self.spider.detail_request(one, summary)

    def seconds_a_request(self, kind: type[FifoQueue]) -> float:
        """To push and pop one, which is two round trips."""
        queue = kind(self.redis, self.spider, "queue", Json)
        began = perf_counter()
        for request in self.requests:
            queue.push(request)
        for _ in self.requests:
            queue.pop()
        return (perf_counter() - began) / len(self.requests)

    def bytes_a_request(self) -> float:
        queue = FifoQueue(self.redis, self.spider, "queue", Json)
        for request in self.requests:
            queue.push(request)
        return self._bytes("queue")

    def bytes_a_fingerprint(self) -> float:
        dupefilter = RFPDupeFilter(self.redis, "dupefilter")
        for request in self.requests:
            dupefilter.request_seen(request)
        return self._bytes("dupefilter")

    def _bytes(self, key: str) -> float:
        held = self.redis.memory_usage(key, samples=0) / len(self.requests)
        self.redis.delete(key)
        return float(held)
