"""CrawlDelay: obeys what robots.txt says of the pace."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from scrapy import signals

from spa5.engine import set_delay

if TYPE_CHECKING:
    from scrapy import Request
    from scrapy.crawler import Crawler
    from typing_extensions import Self

logger = logging.getLogger(__name__)

MOST_DELAY_SECONDS = 60.0


class CrawlDelay:
    """Sets the delay between requests to the `Crawl-delay` of robots.txt, at most a minute.

    A longer DOWNLOAD_DELAY stays. Settings: ROBOTSTXT_OBEY, USER_AGENT, ROBOTSTXT_USER_AGENT.
    """

    def __init__(self, crawler: Crawler):
        self.crawler = crawler
        crawler.signals.connect(self.robots_parsed, signals.robots_parsed)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls(crawler)

    def robots_parsed(self, robotparser: Any, request: Request) -> None:
        settings = self.crawler.settings
        agent = settings["ROBOTSTXT_USER_AGENT"] or settings["USER_AGENT"]
        delay = min(robotparser.crawl_delay(agent) or 0.0, MOST_DELAY_SECONDS)
        if delay <= settings.getfloat("DOWNLOAD_DELAY"):
            return
        set_delay(self.crawler, request, delay)
        logger.info("robots.txt asks for %g s between requests (Crawl-delay)", delay)
