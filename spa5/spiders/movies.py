"""The movies of https://spa1.scrape.center."""

from __future__ import annotations

from spa5.catalogue.spider import CatalogueSpider
from spa5.items import Movie


class MoviesSpider(CatalogueSpider):
    name = "movies"
    site = "https://spa1.scrape.center"
    path = "/api/movie/"
    item_class = Movie
