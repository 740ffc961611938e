"""The stand-in of the site: `python -m tests.standin --port 8000 --books 9040`.

`Catalogue` makes the books, `Site` answers requests and counts them, `running_site` starts one for
a test. `GET /_site/stats`, `POST /_site/reset` and `POST /_site/control` steer it while it runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import socket
import struct
import subprocess
import sys
import urllib.error
import urllib.request
from base64 import b64decode
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from aiohttp import web

from tests.standin.login import Counts, Door

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Book = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
JSON, HTML = "application/json", "text/html"
SHELL = b'<!DOCTYPE html><html lang="en"><title>Scrape | Book</title><div id="app"></div></html>'
TRUTH = object()  # the setting `count` when nothing takes the place of the true one
ROUTE = re.compile(r"/api/book(?:/([^/]+))?(/?)")
CUT_JSON = b'{"count": 9040, "results": [{"id": "7952978", "name": "Won'
WRONG_SHAPES = (b"[]", b'{"results": 5}', b'"book"', b"null")
FAULTS = "500 503 429 408 close reset truncate html broken shape slow"
PAGE_SIZE = 18
MOST_PAGES, MOST_DETAILS = 2_000, 10_000  # answers held as bytes

BLANKS = ("", "", "", "", " ", "\n            ", "\t", "  \n")
WORDS = ("南音", "自我与本我", "清白家风", "Wonder ", "我和你的笑忘书", "明朝那些事儿", "烙印戰士")
VOLUMES = ("", "", "", " 11", "  （上）", "（全三册）", " 终结篇\u3000（上下册）", " / 第2版")
PEOPLE = ("董桥", "R. J. Palacio", "三浦健太郎", "[奥地利] 西格蒙德·弗洛伊德", "张小娴", "笛安")
MESSY = ("[法]\n            加缪", "Gabriel   García  Márquez", "[日]\r\n  东野圭吾", "渥丹\t")
UNSPLIT = ("刘慈欣 韩松", "鲁迅 / 周作人", "赵元任、杨步伟", "O'Brien, Flann", "AC/DC", "甲、乙")
SERIES = ("海豚简装", "译文经典（精装本）", "“龙城”系列", "上海译文出版社", "王小波全集（2012版）")
AUTHORS = PEOPLE + MESSY + UNSPLIT + SERIES
PUBLISHERS = (None, "上海译文出版社", " 长江文艺出版社", "Knopf  Books", "中华书局\n")
PRICES = ("{}.00元", "{}.80元", "HK${}", "NT{}", "${}", "CNY {}.00", " {}.00 元", None)
TAGS = ("漫画", "心理学", " 小说", "青春文学", "日本", "哲学 ", "随笔", "C++", "1984", "经典\n文学")
SENTENCES = (
    "这是一个漫长的故事，从一座小城的雨季开始，到另一座城市的冬天结束。",
    "“他说：‘走吧。’”她只是点了点头，什么也没有回答……\r\n",
    "作者以冷静而克制的笔触，写出了一代人的迷惘、挣扎与和解。\r\n\r\n",
    "\t「蚀」还没开始就群魔乱舞，『三浦』的意思是格斯的战斗力是临界点么？",
    'He said "it\'s fine", and ‘left’ — «voilà» <b>&amp;</b> \\o/.   \r\n',
    "作者我snm了😭你这么对格里菲斯👨‍👩‍👧！",
    "详见 https://book.douban.com/review/5315381/?from=a&b=c#d 和 http://t.cn/zOabc 。\n",
    "读到最后一页的时候，忽然想起十七岁那年夏天的风。    ",
    "译本不算好，太多老掉牙的译名了（比如奥迪帕西情结），专名翻译上也大有问题。\r\n　　",
    "教科书一般的费脑，奇怪的长句子加上大篇幅的术语。\xa0",
)


def _ids(books: int, seed: int) -> list[str]:
    """Distinct ids of six to eight digits, in the site's order; none starts with 99."""
    rng = Random(f"{seed}:ids")
    shares = {6: books // 8, 7: books - books // 8 - books // 4, 8: books // 4}
    numbers: list[int] = []
    for digits, share in shares.items():
        numbers += rng.sample(range(10 ** (digits - 1), 99 * 10 ** (digits - 2)), share)
    return sorted(map(str, numbers), reverse=True)


def _text(rng: Random, most: int) -> str:
    return "".join(rng.choices(SENTENCES, k=rng.randrange(1, most + 1)))


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
    return [{"id": str(n), "content": _text(rng, 4)} for n in ids]


def _published(rng: Random) -> dict[str, str | None]:
    """The date as a field: missing for one book in twenty, null for another one."""
    date = f"{rng.randrange(1950, 2020)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"
    roll = rng.randrange(20)
    return {} if roll == 0 else {"published_at": None if roll == 1 else f"{date}T16:00:00Z"}


def _extras(rng: Random) -> Book:
    """Fields that no one announced, in one book of fifty."""
    roll = rng.randrange(100)
    extras = ({"ratings": {"count": rng.randrange(1000)}}, {"sub.title": rng.choice(WORDS)})
    return extras[roll] if roll < len(extras) else {}


class Catalogue:
    """Books made by rule from (seed, id); only the ids are held, in the site's order."""

    def __init__(self, books: int, seed: int = 1) -> None:
        self.seed = seed
        self.ids = _ids(books, seed)
        self.inserted = 0
        self._known = set(self.ids)
        self._edits: Counter[str] = Counter()
        self._hidden_edits: Counter[str] = Counter()

    def __contains__(self, book_id: object) -> bool:
        return book_id in self._known

    def summary(self, book_id: str, rng: Random | None = None) -> Book:
        """The book as an index page lists it; known or not, an id always gives the same one."""
        rng = rng or self._random(book_id)
        name = rng.choice(BLANKS) + rng.choice(WORDS) + rng.choice(VOLUMES) + rng.choice(BLANKS)
        cover = f"https://cdn.scrape.center/book/s{rng.randrange(10**6, 10**8)}.jpg"
        book = {"id": book_id, "name": name, "authors": _authors(rng), "cover": cover}
        score = _score(rng)
        edits = self._edits[book_id]
        return book | {"score": f"1.{edits % 10}" if edits else score}  # by rule none is below 2

    def detail(self, book_id: str) -> Book:
        """The book's own page: the summary's fields and the rest."""
        rng = self._random(book_id)
        book = self.summary(book_id, rng) | {
            "comments": _comments(rng),
            "translators": [rng.choice(AUTHORS)] if rng.random() < 0.3 else [],
            "publisher": rng.choice(PUBLISHERS),
            "tags": rng.sample(TAGS, rng.randrange(9)),
            "url": f"https://book.douban.com/subject/{book_id}/",
            "isbn": f"978{rng.randrange(10**10):010}" if rng.random() < 0.95 else None,
            "page_number": rng.randrange(40, 1200) if rng.random() < 0.9 else None,
            "price": _price(rng),
            "introduction": _text(rng, 14) if rng.random() < 0.95 else rng.choice((None, "")),
            "catalog": _chapters(rng) if rng.random() < 0.8 else None,
            "updated_at": f"2020-03-21T16:{rng.randrange(60):02}:27.{rng.randrange(10**6):06}Z",
        }
        if edits := self._edits[book_id] + self._hidden_edits[book_id]:
            book["price"] = f"{edits}.99元"  # by rule no price ends so
        return book | _published(rng) | _extras(rng)

    def insert(self, books: int) -> None:
        """Put new books at the top: 99000001, 99000002, …"""
        for _ in range(books):
            self.inserted += 1
            self.ids.insert(0, f"99{self.inserted:06}")
            self._known.add(self.ids[0])

    def remove(self, ids: Iterable[str]) -> None:
        self._known.difference_update(ids)
        self.ids = [book_id for book_id in self.ids if book_id in self._known]

    def edit(self, ids: Iterable[str]) -> None:
        """Change score and price: it shows on the index page and on the book's own."""
        self._edits.update(ids)

    def edit_hidden(self, ids: Iterable[str]) -> None:
        """Change the price alone, which no index page shows."""
        self._hidden_edits.update(ids)

    def _random(self, book_id: str) -> Random:
        return Random(f"{self.seed}:{book_id}")


@dataclass
class Stats:
    """What was asked for. Overridden and failed requests count too."""

    in_flight: int = 0
    peak: int = 0
    requests: int = 0
    redirects: int = 0
    not_found: int = 0
    other: int = 0
    index_offsets: list[int] = field(default_factory=list)
    details: Counter[str] = field(default_factory=Counter)
    user_agents: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    door: Counts = field(default_factory=Counts)

    def arrive(self, user_agent: str) -> None:
        self.requests += 1
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        self.user_agents[user_agent] += 1

    def leave(self, status: int) -> None:
        self.in_flight -= 1
        self.redirects += status == 301
        self.not_found += status == 404

    def report(self, details: bool) -> dict[str, Any]:
        asked = self.details.total()
        report = vars(self) | {"index": len(self.index_offsets), "detail": asked}
        report |= {"repeats": asked - len(self.details), "user_agents": list(self.user_agents)}
        report["door"] = vars(self.door)
        return report if details else {k: v for k, v in report.items() if k != "details"}


@dataclass
class Override:
    """A raw answer in place of the rule's, `times` times or until it is removed."""

    status: int = 200
    body: str = ""
    body_base64: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    times: int | None = None

    def response(self) -> web.Response:
        body = b64decode(self.body_base64) or self.body.encode()
        response = web.Response(body=body, status=self.status, headers=self.headers)
        response.headers.setdefault("Content-Type", JSON)
        return response


@dataclass
class Faults:
    """Which API answers fail, and how: a share of all, or the `first` ones of each address."""

    share: float = 0.3
    kinds: list[str] = field(default_factory=FAULTS.split)
    seed: int = 1
    retry_after: str | None = None
    paths: str = ""
    first: int | None = None

    def __post_init__(self) -> None:
        known = re.compile(FAULTS.replace(" ", "|") + r"|[2-5]\d\d")
        wrong = [kind for kind in self.kinds if not known.fullmatch(kind)]
        if wrong or not self.kinds:
            raise ValueError(f"faults: no such kinds {wrong}; known: {FAULTS}, any status")
        self._pattern = re.compile(self.paths)
        self._random = Random(self.seed)
        self._asked: Counter[str] = Counter()

    def pick(self, target: str) -> str | None:
        """The kind of fault that a request for this path and query meets, or None."""
        if not (self.share or self.first) or not self._pattern.search(target):
            return None
        if self.first is None:
            fails = self._random.random() < self.share
        else:
            self._asked[target] += 1
            fails = self._asked[target] <= self.first
        return self._random.choice(self.kinds) if fails else None

    async def fail(self, kind: str, request: web.BaseRequest) -> web.Response:
        """Do it; what follows the end of a connection is never sent."""
        if kind == "slow":
            await asyncio.sleep(3600)
        if kind in ("close", "reset") and request.transport:
            _hang_up(request.transport, reset=kind == "reset")
        return self._response(kind)

    def _response(self, kind: str) -> web.Response:
        if kind.isdigit():
            wait = {"Retry-After": self.retry_after} if self.retry_after else {}
            return _reply(SHELL, int(kind), HTML, wait if kind in ("429", "503") else {})
        if kind == "shape":
            return _reply(self._random.choice(WRONG_SHAPES))
        if kind == "broken":
            return _reply(CUT_JSON)
        if kind == "truncate":
            response = _reply(CUT_JSON, headers={"Content-Length": str(len(CUT_JSON) + 100)})
            response.force_close()
            return response
        return _reply(SHELL, kind=HTML)


@dataclass
class Hold:
    """Lets API answers wait: until `peak` requests were in flight at once, or for another hold.

    The `first` answers do not wait. After `details` requests for details, no request is let in: it
    waits without being counted.
    """

    paths: str = ""
    first: int = 0
    peak: int | None = None
    details: int | None = None

    def __post_init__(self) -> None:
        self._pattern = re.compile(self.paths)
        self._asked = 0
        self._free = asyncio.Event()

    def end(self) -> None:
        self._free.set()

    async def wait(self, target: str, peak: int) -> None:
        if self.peak is not None and peak >= self.peak:
            self.end()
        if self._pattern.search(target):
            self._asked += 1
            if self._asked > self.first and self.details is None:
                await self._free.wait()

    async def let_in(self, details: int) -> None:
        if self.details is not None and details >= self.details:
            await self._free.wait()


def _hang_up(transport: asyncio.Transport, reset: bool) -> None:
    if reset:  # to linger for no time: the peer gets a RST, not a FIN
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


def _reply(
    body: bytes, status: int = 200, kind: str = JSON, headers: dict[str, str] | None = None
) -> web.Response:
    return web.Response(body=body, status=status, headers={"Content-Type": kind, **(headers or {})})


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _number(query: dict[str, list[str]], name: str, least: int, default: int) -> int:
    try:
        number = int(query[name][0])
    except (KeyError, ValueError):
        return default
    return number if number >= least else default


class Site:
    """Answers requests by rule unless told otherwise, and counts them."""

    def __init__(self, catalogue: Catalogue, latency: float = 0, cap: int | None = None) -> None:
        self.catalogue = catalogue
        self.stats = Stats()
        self.settings: dict[str, Any] = {"latency": latency, "cap": cap, "count": TRUTH}
        self.settings |= {"insert_every": 0, "insert_most": None}
        # Ids that are listed twice; pages (by offset) that are empty; neighbours change places for
        # each request; fields under another name, and fields that are null, of every book.
        self.settings |= {"repeat": [], "empty": [], "swap": False, "rename": {}, "blank": []}
        self._steered = asyncio.Event()
        self._random = Random(1)
        self._grown = 0
        self._vanished: set[str] = set()
        self._overrides: dict[str, Override] = {}
        self._faults = Faults(share=0)
        self._hold: Hold | None = None
        self._door: Door | None = None
        self._pages: dict[tuple[int, int], bytes] = {}
        self._details: dict[str, bytes] = {}

    def prerender(self) -> None:
        self._details = {i: _dump(self.catalogue.detail(i)) for i in self.catalogue.ids}

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Decide on the answer when the request arrives; an API answer may be late or a fault."""
        target = request.raw_path
        if target.startswith("/_site/"):
            return await self._manage(request)
        while (hold := self._hold) and target.startswith("/api/"):
            await hold.let_in(sum(self.stats.details.values()))
            if hold is self._hold:
                break
        closed = await self._door.answer(request, self.stats.door) if self._door else None
        answer = closed or self._truth(target)
        if override := self._take_override(target):
            answer = override.response()
        if not target.startswith("/api/"):
            return answer
        kind = None if override else self._faults.pick(target)
        self.stats.arrive(request.headers.get("User-Agent", ""))
        try:
            if self._hold:
                await self._hold.wait(target, self.stats.peak)
            if latency := self.settings["latency"]:
                await asyncio.sleep(latency)
            if kind:
                self.stats.faults[kind] += 1
                answer = await self._faults.fail(kind, request)
            return answer
        finally:
            self.stats.leave(answer.status)

    def _truth(self, target: str) -> web.Response:
        path, _, query = target.partition("?")
        route = ROUTE.fullmatch(path)
        if not route:
            self.stats.other += 1
            return _reply(SHELL, kind=HTML)
        book_id, slash = route.groups()
        if not slash:
            return _reply(b"", 301, HTML, {"Location": target.replace(path, path + "/", 1)})
        return self._detail(book_id) if book_id else self._index(query)

    def _take_override(self, target: str) -> Override | None:
        key = target if target in self._overrides else target.partition("?")[0]
        override = self._overrides.get(key)
        if override and override.times is not None:
            override.times -= 1
            if override.times < 1:
                del self._overrides[key]
        return override

    def _detail(self, book_id: str) -> web.Response:
        self.stats.details[book_id] += 1
        body = self._details.get(book_id)
        if body is None:
            if book_id not in self.catalogue or book_id in self._vanished:
                return _reply(b'{"detail": "Not found."}', 404)
            body = _dump(self._dress(self.catalogue.detail(book_id)))
            if len(self._details) < MOST_DETAILS:
                self._details[book_id] = body
        return _reply(body)

    def _index(self, query: str) -> web.Response:
        fields = parse_qs(query)
        offset = _number(fields, "offset", least=0, default=0)
        limit = _number(fields, "limit", least=1, default=PAGE_SIZE)
        self.stats.index_offsets.append(offset)
        page = (min(limit, self.settings["cap"] or limit), offset)
        body = self._pages.get(page)
        if body is None:
            body = self._page(*page)
            if len(self._pages) < MOST_PAGES and not self.settings["swap"]:
                self._pages[page] = body
        self._grow()
        return _reply(body)

    def _page(self, limit: int, offset: int) -> bytes:
        listed = self._order()
        ids = [] if offset in self.settings["empty"] else listed[offset : offset + limit]
        count = self.settings["count"]
        count = len(listed) if count is TRUTH else count
        summaries = [self._dress(self.catalogue.summary(i)) for i in ids]
        return _dump({"count": count, "results": summaries})

    def _order(self) -> list[str]:
        if not (self.settings["repeat"] or self.settings["swap"]):
            return self.catalogue.ids
        listed = sorted([*self.catalogue.ids, *self.settings["repeat"]], reverse=True)
        if self.settings["swap"]:
            for left in range(0, len(listed) - 1, 2):
                if self._random.random() < 0.5:
                    listed[left : left + 2] = listed[left + 1], listed[left]
        return listed

    def _dress(self, book: Book) -> Book:
        names, blank = self.settings["rename"], self.settings["blank"]
        if not (names or blank):
            return book
        dressed = {names.get(name, name): value for name, value in book.items()}
        return dressed | dict.fromkeys(set(blank) & dressed.keys())

    def _grow(self) -> None:
        """Put a book at the top after every n-th index request."""
        every, most = self.settings["insert_every"], self.settings["insert_most"]
        due = every and len(self.stats.index_offsets) % every == 0
        if due and (most is None or self._grown < most):
            self._grown += 1
            self.catalogue.insert(1)
            self._pages.clear()

    async def _manage(self, request: web.BaseRequest) -> web.Response:
        path, _, query = request.raw_path.partition("?")
        match request.method, path:
            case "GET", "/_site/stats":
                return _reply(_dump(self.stats.report(details="details=1" in query)))
            case "POST", "/_site/reset":
                self.stats = Stats(self.stats.in_flight, peak=self.stats.in_flight)
                return _reply(b'{"ok": true}')
            case "POST", "/_site/control":
                return self._control(await request.content.read())
        return _reply(b'{"ok": false, "error": "no such command"}', 404)

    def _control(self, body: bytes) -> web.Response:
        try:
            self._steer(json.loads(body))
        except (TypeError, ValueError, re.error) as error:
            return _reply(_dump({"ok": False, "error": str(error)}), 400)
        finally:
            self._pages.clear()
        self._steered.set()
        self._steered = asyncio.Event()
        return _reply(b'{"ok": true}')

    def _steer(self, options: dict[str, Any]) -> None:
        actions: dict[str, Callable[[Any], None]] = {
            "count_true": lambda _: self.settings.update(count=TRUTH),
            "insert": self.catalogue.insert,
            "override": self._override,
            "faults": self._set_faults,
            "hold": self._set_hold,
            "log_in": self._set_log_in,
        }
        by_book: dict[str, Callable[[list[str]], None]] = {
            "remove": self.catalogue.remove,
            "vanish": self._vanished.update,
            "edit": self.catalogue.edit,
            "edit_hidden": self.catalogue.edit_hidden,
        }
        known = [*self.settings, *actions, *by_book]
        if wrong := [name for name in options if name not in known]:
            raise ValueError(f"no such options: {wrong}; known: {known}")
        if options.keys() & {"rename", "blank"}:
            self._details.clear()
        self._steered.set()
        self._steered = asyncio.Event()
        for name, value in options.items():
            if name in self.settings:
                self.settings[name] = value
            elif name in actions:
                actions[name](value)
            else:
                self._change(by_book[name], value)

    def _change(self, action: Callable[[list[str]], None], ids: list[str]) -> None:
        if unknown := [book_id for book_id in ids if book_id not in self.catalogue]:
            raise ValueError(f"no such books: {unknown}")
        action(ids)
        for book_id in ids:
            self._details.pop(book_id, None)

    def _override(self, answers: dict[str, dict[str, Any] | None]) -> None:
        for target, answer in answers.items():
            self._overrides.pop(target, None)
            if answer is not None:
                self._overrides[target] = Override(**answer)

    def _set_faults(self, options: dict[str, Any] | None) -> None:
        self._faults = Faults(share=0) if options is None else Faults(**options)

    def _set_hold(self, options: dict[str, Any] | None) -> None:
        hold = None if options is None else Hold(**options)
        if self._hold:
            self._hold.end()
        self._hold = hold

    def _set_log_in(self, options: dict[str, Any] | None) -> None:
        self._door = None if options is None else Door(**options)


class RunningSite:
    """A site in a process of its own, and a catalogue like the one it began with."""

    def __init__(self, url: str, catalogue: Catalogue) -> None:
        self.url = url
        self.catalogue = catalogue
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def stats(self, details: bool = False) -> dict[str, Any]:
        return self._ask(f"stats?details={int(details)}")

    def control(self, **options: Any) -> None:
        self._ask("control", json.dumps(options).encode())

    def reset(self) -> None:
        self._ask("reset", b"")

    def _ask(self, what: str, body: bytes | None = None) -> dict[str, Any]:
        try:
            with self._opener.open(f"{self.url}/_site/{what}", body, timeout=600) as response:
                answer: dict[str, Any] = json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(json.load(error)["error"]) from None
        return answer


@contextmanager
def running_site(
    books: int = 100,
    seed: int = 1,
    latency: float = 0,
    cap: int | None = None,
    prerender: bool = False,
) -> Iterator[RunningSite]:
    """Serve for the length of a `with` block."""
    command = [sys.executable, "-m", "tests.standin", "--port=0", "--until-stdin-closes"]
    command += [f"--books={books}", f"--seed={seed}", f"--latency={latency}"]
    command += [] if cap is None else [f"--cap={cap}"]
    command += ["--prerender"] if prerender else []
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            url = process.stdout.readline().strip() if process.stdout else ""
            if not url:
                raise RuntimeError("the stand-in of the site did not start")
            yield RunningSite(url, Catalogue(books, seed))
        finally:
            process.kill()


async def serve(site: Site, host: str, port: int, until_stdin_closes: bool) -> None:
    """Say where it listens, and serve until a signal or the end of stdin."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if until_stdin_closes:
        loop.add_reader(sys.stdin, stop.set)  # nobody writes to it: readable means closed
    server = web.Server(site.handle, access_log=None, handler_cancellation=True)
    listener = await loop.create_server(server, host, port, backlog=1024)
    print(f"http://{host}:{listener.sockets[0].getsockname()[1]}", flush=True)
    await stop.wait()
    listener.close()
    await server.shutdown(timeout=0.1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.standin")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    parser.add_argument("--books", type=int, default=9040)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--latency", type=float, default=0, help="seconds before an API answer")
    parser.add_argument("--cap", type=int, help="the most results on an index page")
    parser.add_argument("--prerender", action="store_true", help="make all details beforehand")
    parser.add_argument("--until-stdin-closes", action="store_true")
    options = parser.parse_args()
    site = Site(Catalogue(options.books, options.seed), options.latency, options.cap)
    if options.prerender:
        site.prerender()
    asyncio.run(serve(site, options.host, options.port, options.until_stdin_closes))


if __name__ == "__main__":
    main()
