"""The movies of spa1: ids are numbers, the order is not by id, and a few entries are junk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.standin.catalogue import Catalogue
from tests.standin.texts import PEOPLE, text, within_blanks

if TYPE_CHECKING:
    from random import Random

    from tests.standin.catalogue import Entry, Key

NAMES = ("霸王别姬", "楚门的世界", "初恋这件小事", "美丽人生", "7号房的礼物", "这个杀手不太冷")
ALIASES = ("Farewell My Concubine", "สิ่งเล็กเล็กที่เรียกว่า...รัก", "La vita è bella", "7번방의 선물")
CATEGORIES = ("剧情", "爱情", "喜剧", "科幻", "战争", "家庭")
REGIONS = ("中国内地", "中国香港", "美国", "泰国", "意大利", "韩国")
JUNK = ("value", "admin", "测试", "中文")  # what people left in the site's database
EACH_JUNK = 26  # so many ids apart: four of 104


class Movies(Catalogue):
    path = "/api/movie"
    page_size = 10

    def make_keys(self, items: int, rng: Random) -> list[int]:
        """As the site has it, 36 stands between 24 and 25."""
        return sorted(range(1, items + 1), key=lambda n: n if n % 12 or n % 24 == 0 else n - 11.5)

    def new_key(self, number: int) -> int:
        return 10**6 + number

    def key_in(self, text: str) -> int | None:
        return int(text) if text.isascii() and text.isdigit() else None

    def make_entry(self, key: Key, rng: Random) -> Entry:
        if name := _junk(key):
            empty = {"cover": "", "published_at": None, "minute": None, "score": None}
            return {"id": key, "name": name, "alias": None, "categories": [], "regions": []} | empty
        date = f"{rng.randrange(1950, 2021)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"
        return {
            "id": key,
            "name": within_blanks(rng, rng.choice(NAMES)),
            "alias": rng.choice(ALIASES),
            "cover": _picture(rng),
            "categories": rng.sample(CATEGORIES, rng.randrange(1, 4)),
            "regions": rng.sample(REGIONS, rng.randrange(1, 3)),
            "published_at": date if rng.random() < 0.9 else None,
            "minute": rng.randrange(60, 200),
            "score": rng.randrange(20, 100) / 10 if rng.random() < 0.95 else None,
        }

    def make_rest(self, key: Key, rng: Random) -> Entry:
        if _junk(key):
            return {"drama": None, "directors": [], "actors": [], "photos": []}
        moment = f"2020-03-21T16:{rng.randrange(60):02}:27.{rng.randrange(10**6):06}Z"
        return {
            "drama": text(rng, 14),
            "directors": [_person(rng) for _ in range(rng.randrange(1, 3))],
            "actors": [
                _person(rng) | {"role": rng.choice((None, "程蝶衣", " 段小楼"))}
                for _ in range(rng.randrange(5, 40))
            ],
            "photos": [_picture(rng) for _ in range(rng.randrange(60, 300))],
            "updated_at": moment,
        } | ({"rank": rng.randrange(1, 105)} if rng.random() < 0.5 else {})

    def visible_edit(self, edits: int) -> Entry:
        return {"score": 1 + edits % 10 / 10}  # by rule none is below 2

    def hidden_edit(self, edits: int) -> Entry:
        return {"drama": f"第{edits}版"}


def _junk(key: Key) -> str | None:
    times, rest = divmod(int(key), EACH_JUNK)
    return None if rest else JUNK[times % len(JUNK)]


def _picture(rng: Random) -> str:
    return f"https://p0.meituan.net/movie/{rng.getrandbits(128):032x}.jpg@464w_644h_1e_1c"


def _person(rng: Random) -> Entry:
    return {"name": within_blanks(rng, rng.choice(PEOPLE)), "image": _picture(rng)}
