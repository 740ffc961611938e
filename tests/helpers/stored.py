"""What has to be stored, written down without the project's own code."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.helpers.databases import Database
    from tests.standin.site import RunningSite as Site

DETAILS = r"/api/book/\d"


BOOKKEEPING = {
    *("_id", "first_crawled_at", "crawled_at", "changed_at", "listed_at", "delisted_at", "crawl")
}


def fold(text: str | None) -> str | None:
    return None if text is None else re.sub(r"\s+", " ", text).strip()


def trimmed(text: str | None) -> str | None:
    return None if text is None else text.strip()


def moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    moment = datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    fraction = re.search(r"\.(\d{3})", text)
    return moment + timedelta(milliseconds=int(fraction[1]) if fraction else 0)


def as_stored(detail: dict[str, Any]) -> dict[str, Any]:
    """The document that the design asks for, written down without the project's own code."""
    lines = {name: fold(detail.get(name)) for name in ("name", "publisher", "isbn", "price")}
    links = {name: fold(detail.get(name)) for name in ("url", "cover")}
    lists = {
        name: [fold(one) for one in detail.get(name) or [] if fold(one)]
        for name in ("authors", "translators", "tags")
    }
    known = {
        "id": detail["id"],
        **lines,
        **links,
        **lists,
        "introduction": trimmed(detail.get("introduction")),
        "catalog": trimmed(detail.get("catalog")),
        "page_number": detail.get("page_number"),
        "score": float(detail["score"]) if detail.get("score") else None,
        "comments": [
            {"id": one["id"], "content": trimmed(one["content"])}
            for one in detail.get("comments") or []
        ],
        "published_at": moment(detail.get("published_at")),
        "updated_at": moment(detail.get("updated_at")),
    }
    extra = {name: value for name, value in detail.items() if name not in known}
    return known | ({"extra": extra} if extra else {})


def movie_as_stored(detail: dict[str, Any]) -> dict[str, Any]:
    def people(name: str, *members: str) -> list[dict[str, str | None]]:
        return [{one: fold(person[one]) for one in members} for person in detail[name]]

    date = detail["published_at"]
    return {
        "id": detail["id"],
        **{name: fold(detail[name]) for name in ("name", "alias", "cover")},
        **{name: detail[name] for name in ("categories", "regions", "minute", "score", "photos")},
        "published_at": moment(f"{date}T00:00:00Z" if date else None),
        "rank": detail.get("rank"),
        "drama": trimmed(detail["drama"]),
        "directors": people("directors", "name", "image"),
        "actors": people("actors", "name", "role", "image"),
        "updated_at": moment(detail.get("updated_at")),
    }


def product_as_stored(detail: dict[str, Any]) -> dict[str, Any]:
    return detail | {
        "title": fold(detail["title"]),
        "description": trimmed(detail["description"]),
        "offers": [one | {"shop": fold(one["shop"])} for one in detail["offers"]],
        "added": datetime.fromisoformat(detail["added"]).astimezone(timezone.utc),
    }


def content(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in BOOKKEEPING}


def assert_holds_catalogue(database: Database, site: Site) -> None:
    stored = database.stored()
    assert len(stored) == database.books.count_documents({})
    assert sorted(stored) == sorted(site.catalogue.ids)
    for book_id, document in stored.items():
        assert content(document) == as_stored(site.catalogue.detail(book_id))
