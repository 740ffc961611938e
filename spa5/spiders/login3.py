"""The books of https://login3.scrape.center, behind a log-in."""

from __future__ import annotations

from spa5.catalogue.login import LogIn
from spa5.spiders.books import BooksSpider


class Login3Spider(BooksSpider):
    """Logs in with SITE_USER and SITE_PASSWORD, from the environment."""

    name = "login3"
    site = "https://login3.scrape.center"
    log_in = LogIn("/api/login", renewal_path="/api/refresh", scheme="jwt")
