"""Aiohttp: the download handler."""

from __future__ import annotations

from scrapy.core.downloader.handlers._aiohttp import AiohttpDownloadHandler


class Aiohttp(AiohttpDownloadHandler):
    """Scrapy's handler on aiohttp, which takes less time than the one on Twisted.

    Scrapy 2.19 calls it experimental and warns at each start, for each scheme. Here the fault tests
    run on it, so it stands without the warning. README, Speed, says what it brings.
    """

    experimental = False
    lazy = True  # no connector for http where the site is on https
