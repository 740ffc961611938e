"""The books of spa5: ids of six to eight digits as text, in descending order as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.standin.catalogue import Catalogue
from tests.standin.texts import BLANKS, PEOPLE, text

if TYPE_CHECKING:
    from random import Random

    from tests.standin.catalogue import Entry, Key

WORDS = ("南音", "自我与本我", "清白家风", "Wonder ", "我和你的笑忘书", "明朝那些事儿", "烙印戰士")
VOLUMES = ("", "", "", " 11", "  （上）", "（全三册）", " 终结篇\u3000（上下册）", " / 第2版")
MESSY = ("[法]\n            加缪", "Gabriel   García  Márquez", "[日]\r\n  东野圭吾", "渥丹\t")
UNSPLIT = ("刘慈欣 韩松", "鲁迅 / 周作人", "赵元任、杨步伟", "O'Brien, Flann", "AC/DC", "甲、乙")
SERIES = ("海豚简装", "译文经典（精装本）", "“龙城”系列", "上海译文出版社", "王小波全集（2012版）")
AUTHORS = PEOPLE + MESSY + UNSPLIT + SERIES
PUBLISHERS = (None, "上海译文出版社", " 长江文艺出版社", "Knopf  Books", "中华书局\n")
PRICES = ("{}.00元", "{}.80元", "HK${}", "NT{}", "${}", "CNY {}.00", " {}.00 元", None)
TAGS = ("漫画", "心理学", " 小说", "青春文学", "日本", "哲学 ", "随笔", "C++", "1984", "经典\n文学")


class Books(Catalogue):
    path = "/api/book"
    page_size = 18

    def make_keys(self, items: int, rng: Random) -> list[str]:
        """Distinct ids; none starts with 99."""
        shares = {6: items // 8, 7: items - items // 8 - items // 4, 8: items // 4}
        numbers: list[int] = []
        for digits, share in shares.items():
            numbers += rng.sample(range(10 ** (digits - 1), 99 * 10 ** (digits - 2)), share)
        return sorted(map(str, numbers), reverse=True)

    def new_key(self, number: int) -> str:
        return f"99{number:06}"

    def make_entry(self, key: Key, rng: Random) -> Entry:
        name = rng.choice(BLANKS) + rng.choice(WORDS) + rng.choice(VOLUMES) + rng.choice(BLANKS)
        cover = f"https://cdn.scrape.center/book/s{rng.randrange(10**6, 10**8)}.jpg"
        book = {"id": key, "name": name, "authors": _authors(rng), "cover": cover}
        return book | {"score": _score(rng)}

    def make_rest(self, key: Key, rng: Random) -> Entry:
        book = {
            "comments": _comments(rng),
            "translators": [rng.choice(AUTHORS)] if rng.random() < 0.3 else [],
            "publisher": rng.choice(PUBLISHERS),
            "tags": rng.sample(TAGS, rng.randrange(9)),
            "url": f"https://book.douban.com/subject/{key}/",
            "isbn": f"978{rng.randrange(10**10):010}" if rng.random() < 0.95 else None,
            "page_number": rng.randrange(40, 1200) if rng.random() < 0.9 else None,
            "price": _price(rng),
            "introduction": text(rng, 14) if rng.random() < 0.95 else rng.choice((None, "")),
            "catalog": _chapters(rng) if rng.random() < 0.8 else None,
            "updated_at": f"2020-03-21T16:{rng.randrange(60):02}:27.{rng.randrange(10**6):06}Z",
        }
        return book | _published(rng) | _extras(rng)

    def visible_edit(self, edits: int) -> Entry:
        return {"score": f"1.{edits % 10}"}  # by rule none is below 2

    def hidden_edit(self, edits: int) -> Entry:
        return {"price": f"{edits}.99元"}  # by rule no price ends so


def _authors(rng: Random) -> list[str] | None:
    if rng.random() < 0.03:
        return rng.choice((None, []))
    people = rng.sample(AUTHORS, rng.choice((1, 1, 2, 3)))
    return [rng.choice(BLANKS) + person + rng.choice(BLANKS) for person in people]


def _score(rng: Random) -> str | None:
    return rng.choice((None, "")) if rng.random() < 0.038 else f"{rng.randrange(20, 100) / 10:.1f}"


def _price(rng: Random) -> str | None:
    form = rng.choice(PRICES)
    return form and form.format(rng.randrange(8, 300))


def _chapters(rng: Random) -> str:
    lines = (f"第{n}章\t{rng.choice(WORDS)} {n * 12}  " for n in range(1, rng.randrange(2, 20)))
    return "\r\n".join(lines) + "\r\n"


def _comments(rng: Random) -> list[dict[str, str]]:
    ids = rng.sample(range(10**8, 2 * 10**9), rng.randrange(11))
    return [{"id": str(n), "content": text(rng, 4)} for n in ids]


def _published(rng: Random) -> dict[str, str | None]:
    """The date as a field: missing for one book in twenty, null for another one."""
    date = f"{rng.randrange(1950, 2020)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"
    roll = rng.randrange(20)
    return {} if roll == 0 else {"published_at": None if roll == 1 else f"{date}T16:00:00Z"}


def _extras(rng: Random) -> Entry:
    """Fields that no one announced, in one book of fifty."""
    roll = rng.randrange(100)
    extras = ({"ratings": {"count": rng.randrange(1000)}}, {"sub.title": rng.choice(WORDS)})
    return extras[roll] if roll < len(extras) else {}
