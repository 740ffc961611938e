"""What `Book.from_api` makes of what the API answers."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from spa5.catalogue.fields import storable
from spa5.catalogue.item import InvalidItem
from spa5.items import Book


def from_api(**fields: Any) -> tuple[Book, list[str]]:
    errors: list[str] = []
    return Book.from_api({"id": "1", **fields}, errors), errors


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"inner": value}
    return value


def test_a_book_holds_the_fields_of_the_api_cleaned() -> None:
    book, errors = from_api(
        name=" 清白  家风\n",
        authors=["\n            董桥", "R. J.\t Palacio"],
        translators=[],
        tags=[" 小说 "],
        publisher="海豚出版社",
        isbn="9787511007384",
        price="HK$35",
        url="https://book.douban.com/subject/7916054/",
        cover="https://cdn.scrape.center/book/s27250764.jpg",
        introduction="  one\r\n  two \r\n",
        catalog="1\n2",
        page_number=320,
        score="7.5",
        comments=[{"id": "695981946", "content": "没办法\r\n讨厌蛤蜊…… "}],
        published_at="2011-10-20T16:00:00Z",
        updated_at="2020-03-14T09:26:53.589793Z",
    )
    assert errors == []
    assert vars(book) == {
        "id": "1",
        "name": "清白 家风",
        "authors": ["董桥", "R. J. Palacio"],
        "translators": [],
        "tags": ["小说"],
        "publisher": "海豚出版社",
        "isbn": "9787511007384",
        "price": "HK$35",
        "url": "https://book.douban.com/subject/7916054/",
        "cover": "https://cdn.scrape.center/book/s27250764.jpg",
        "introduction": "one\r\n  two",
        "catalog": "1\n2",
        "page_number": 320,
        "score": 7.5,
        "comments": [{"id": "695981946", "content": "没办法\r\n讨厌蛤蜊……"}],
        "published_at": datetime(2011, 10, 20, 16, tzinfo=timezone.utc),
        "updated_at": datetime(2020, 3, 14, 9, 26, 53, 589000, tzinfo=timezone.utc),
        "extra": None,
    }


def test_missing_and_null_fields_are_no_errors() -> None:
    known = vars(Book("1"))
    assert from_api() == (Book("1"), [])
    assert from_api(**dict.fromkeys(known, None) | {"id": "1", "extra": None}) == (
        Book("1", extra={"extra": None}),
        [],
    )


def test_names_with_separators_in_them_are_not_split() -> None:
    book, _ = from_api(authors=["[美] 马丁、弗里曼/合著", "Le Guin, Ursula K."])
    assert book.authors == ["[美] 马丁、弗里曼/合著", "Le Guin, Ursula K."]


@pytest.mark.parametrize(("value", "text"), [("7952978", "7952978"), (7952978, "7952978")])
def test_an_id_is_digits_and_an_int_is_taken_as_its_text(value: Any, text: str) -> None:
    assert Book.from_api({"id": value}).id == text


BAD_IDS = [
    *(None, "", " ", "12a", " 12", "12\n", "-1", "1.0", "١٢", True, False, -1, 1.0, 10**20),
    *(10**5000, "9" * 10_000_000, {}, {"$gt": ""}, [], ["1"], "../../admin", "http://evil/", "1?x"),
]


@pytest.mark.parametrize("value", BAD_IDS, ids=lambda value: repr(type(value)))
def test_without_a_usable_id_there_is_no_book_and_the_reason_is_short(value: Any) -> None:
    with pytest.raises(InvalidItem) as raised:
        Book.from_api({"id": value})
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("data", [None, [], "book", 5, {}])
def test_what_is_no_object_or_has_no_id_is_no_book(data: Any) -> None:
    with pytest.raises(InvalidItem):
        Book.from_api(data)


WRONG = [
    ("name", True, None),
    ("name", {"zh": "x"}, None),
    ("name", float("inf"), None),
    ("name", "lone \ud800 surrogate", None),
    ("authors", "R. J. Palacio", []),
    ("authors", {"0": "x"}, []),
    ("authors", 5, []),
    ("authors", ["董桥", 5, None, ["x"]], ["董桥", "5"]),
    ("authors", [{"name": "董桥"}], []),
    ("tags", ["a", "\udfff"], ["a"]),
    ("price", float("nan"), None),
    ("isbn", {"13": "9787511007384"}, None),
    ("introduction", ["x"], None),
    ("page_number", "many", None),
    ("page_number", 320.5, None),
    ("page_number", True, None),
    ("page_number", 1 << 63, None),
    ("score", "good", None),
    ("score", "nan", None),
    ("score", float("inf"), None),
    ("score", "1_0", None),
    ("score", True, None),
    ("score", "9" * 400, None),
    ("score", 10**400, None),
    ("comments", "x", []),
    ("comments", [5, {"id": "1", "content": "kept"}], [{"id": "1", "content": "kept"}]),
    ("comments", [{"id": [], "content": "kept"}], [{"id": None, "content": "kept"}]),
    ("published_at", "yesterday", None),
    ("published_at", 1318953600, None),
    ("published_at", 20111020, None),
    ("published_at", "0001-01-01T00:00:00+23:59", None),
]


@pytest.mark.parametrize(("name", "value", "kept"), WRONG)
def test_a_field_of_the_wrong_kind_is_counted_and_the_book_is_kept(
    name: str, value: Any, kept: Any
) -> None:
    book, errors = from_api(**{name: value}, publisher="good")
    assert (getattr(book, name), book.publisher, errors) == (kept, "good", [name])
    assert book.unread == {name}


@pytest.mark.parametrize(("name", "value", "_"), WRONG)
def test_what_could_not_be_read_is_kept_as_it_was_sent_or_as_a_short_text(
    name: str, value: Any, _: Any
) -> None:
    extra = from_api(**{name: value}, unknown=1)[0].extra
    assert extra is not None
    assert extra["unknown"] == 1
    if storable(value):
        assert extra[name] == value
    else:
        assert len(extra[name]) <= 200
        assert storable(extra[name])


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("score", "", None),
        ("score", " ", None),
        ("score", 8, 8.0),
        ("score", 8.8, 8.8),
        ("page_number", "320", 320),
        ("page_number", "", None),
        ("published_at", "", None),
        ("published_at", "2011-10-20T16:00:00", datetime(2011, 10, 20, 16, tzinfo=timezone.utc)),
        (
            "published_at",
            "2011-10-21T00:00:00+08:00",
            datetime(2011, 10, 20, 16, tzinfo=timezone.utc),
        ),
        ("comments", [{"id": 7, "content": None}], [{"id": "7", "content": None}]),
        ("authors", ["", " \n", None], []),
        ("tags", [1984, "a", 19.5], ["1984", "a", "19.5"]),
        ("isbn", 9787511007384, "9787511007384"),
        ("isbn", 10**30, "1" + 30 * "0"),
        ("price", 28.5, "28.5"),
        ("price", 0, "0"),
        ("introduction", -5, "-5"),
    ],
)
def test_other_spellings_of_the_right_kind_are_taken(name: str, value: Any, kept: Any) -> None:
    book, errors = from_api(**{name: value})
    assert (getattr(book, name), errors) == (kept, [])
    assert (book.extra, book.unread) == (None, frozenset())


def test_unknown_fields_are_kept_as_extra_whatever_their_names() -> None:
    extra = {"ratings": {"count": 12}, "sub.title": "x", "$gt": 1, "_id": 5, "crawled_at": None}
    book, errors = from_api(**extra)
    assert (book.extra, errors) == (extra, [])


@pytest.mark.parametrize(
    "value",
    [
        1 << 63,
        [1 << 70],
        float("nan"),
        "\ud800",
        {"\ud800": 1},
        {"a\0b": 1},
        {"$ref": "x", "$id": 1},
        nested(200),
        nested(10_000),
    ],
    ids=lambda value: str(type(value)),
)
def test_an_unknown_field_that_can_not_be_stored_is_counted_and_its_neighbours_kept(
    value: Any,
) -> None:
    book, errors = from_api(bad=value, good=[1, "x", None, True, 1.5, {"a": []}])
    assert (book.extra, errors) == ({"good": [1, "x", None, True, 1.5, {"a": []}]}, ["extra"])
    assert not storable(value)


def test_a_book_in_a_log_line_is_short() -> None:
    assert str(Book("7", "Wonder\n")) == r"book 7 ('Wonder\n')"
    assert len(str(Book("7", "x" * 10_000_000))) < 100
