"""A catalogue as somebody else would write it: pages by number, and keys of letters and dashes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spa5.catalogue.fields import clean_line, integer, line, lines, moment, number, objects, text
from spa5.catalogue.item import CODE, Item, key
from spa5.catalogue.spider import CatalogueSpider

if TYPE_CHECKING:
    from datetime import datetime

    from spa5.catalogue.item import Key
    from spa5.catalogue.walk import Page


@dataclass
class Product(Item):
    sku: str = key(CODE)
    title: str | None = line(listed=True)
    price: float | None = number(listed=True)
    description: str | None = text()
    stock: int | None = integer()
    tags: list[str] = lines()
    offers: list[dict[str, str | None]] = objects(shop=clean_line, price=clean_line)
    added: datetime | None = moment()
    extra: dict[str, Any] | None = None


class ProductsSpider(CatalogueSpider):
    name = "products"
    site = "https://shop.example"
    path = "/products"
    item_class = Product

    def index_url(self, page: Page) -> str:
        return f"{self.site}{self.path}?page={page.number}&per_page={page.limit}"

    def detail_url(self, key: Key) -> str:
        return f"{self.site}{self.path}/{key}"

    def entries(self, data: Any) -> list[Any]:
        return list(data["data"]["items"])

    def count(self, data: Any) -> Any:
        return data["data"]["total"]
