"""Stats: Scrapy's own, at the price of a dictionary."""

from __future__ import annotations

from scrapy.statscollectors import MemoryStatsCollector


class Stats(MemoryStatsCollector):
    """Scrapy's collector without its own look-up of attributes.

    Scrapy 2.19's wraps each access, to warn of an argument that nobody here passes: for some
    twenty counts a book that is 6 % of a crawl's instructions.
    """

    __getattribute__ = object.__getattribute__
