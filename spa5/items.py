"""Items: one class for each catalogue, with the fields that its API has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spa5.catalogue.fields import (
    clean_line,
    clean_text,
    integer,
    line,
    lines,
    moment,
    number,
    objects,
    text,
)
from spa5.catalogue.item import INTEGER, Item, key

if TYPE_CHECKING:
    from datetime import datetime


@dataclass
class Book(Item):
    """A book of spa5.scrape.center. Dates are UTC."""

    id: str = key()
    name: str | None = line(listed=True)
    authors: list[str] = lines(listed=True)
    translators: list[str] = lines()
    tags: list[str] = lines()
    publisher: str | None = line()
    isbn: str | None = line()
    price: str | None = line()
    url: str | None = line()
    cover: str | None = line(listed=True)
    introduction: str | None = text()
    catalog: str | None = text()
    page_number: int | None = integer()
    score: float | None = number(listed=True)
    comments: list[dict[str, str | None]] = objects(id=clean_line, content=clean_text)
    published_at: datetime | None = moment()
    updated_at: datetime | None = moment()
    extra: dict[str, Any] | None = None


@dataclass
class Movie(Item):
    """A movie of spa1.scrape.center. `published_at` is midnight, UTC, of the date that it names."""

    id: int = key(INTEGER)
    name: str | None = line(listed=True)
    alias: str | None = line(listed=True)
    cover: str | None = line(listed=True)
    categories: list[str] = lines(listed=True)
    regions: list[str] = lines(listed=True)
    published_at: datetime | None = moment(listed=True)
    minute: int | None = integer(listed=True)
    score: float | None = number(listed=True)
    rank: int | None = integer()
    drama: str | None = text()
    directors: list[dict[str, str | None]] = objects(name=clean_line, image=clean_line)
    actors: list[dict[str, str | None]] = objects(
        name=clean_line, role=clean_line, image=clean_line
    )
    photos: list[str] = lines()
    updated_at: datetime | None = moment()
    extra: dict[str, Any] | None = None
