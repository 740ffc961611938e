"""Scrapy's engine alone: `python -m tests.bench.engine REQUESTS`, with an item for each.

A handler answers at once; there are no middlewares, no pipelines and no site. This is what no
setting can take away from a crawl.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from scrapy import Request, Spider
from scrapy.crawler import AsyncCrawlerProcess
from scrapy.http import JsonResponse, Response
from scrapy.settings import default_settings
from scrapy.utils.project import get_project_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SITE = "http://127.0.0.1/"


class Handler:
    lazy = True

    @classmethod
    def from_crawler(cls, crawler: object) -> Handler:
        return cls()

    async def download_request(self, request: Request) -> JsonResponse:
        return JsonResponse(request.url, body=b"{}")

    async def close(self) -> None:
        pass


class EngineSpider(Spider):
    name = "engine"

    async def start(self) -> AsyncIterator[Request]:
        yield Request(SITE, self.parse_index)

    def parse_index(self, response: Response) -> Iterator[Request]:
        for number in range(int(sys.argv[1])):
            yield Request(f"{SITE}{number}/", dont_filter=True)

    def parse(self, response: Response, **kwargs: Any) -> Iterator[dict[str, Any]]:
        yield {}


def main() -> None:
    settings = get_project_settings()
    settings.setdict(
        {
            "CONCURRENT_REQUESTS": 64,
            "CONCURRENT_REQUESTS_PER_DOMAIN": 64,
            "DOWNLOAD_HANDLERS": {"http": Handler},
            "DOWNLOADER_MIDDLEWARES": dict.fromkeys(default_settings.DOWNLOADER_MIDDLEWARES_BASE),
            "SPIDER_MIDDLEWARES": dict.fromkeys(default_settings.SPIDER_MIDDLEWARES_BASE),
            "ITEM_PIPELINES": {},
            "EXTENSIONS": {},
            "LOG_LEVEL": "WARNING",
        }
    )
    process = AsyncCrawlerProcess(settings)
    process.crawl(EngineSpider)
    process.start()


if __name__ == "__main__":
    main()
