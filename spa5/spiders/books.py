"""The books of https://spa5.scrape.center."""

from __future__ import annotations

from spa5.catalogue.spider import CatalogueSpider
from spa5.items import Book


class BooksSpider(CatalogueSpider):
    name = "books"
    site = "https://spa5.scrape.center"
    path = "/api/book/"
    item_class = Book
