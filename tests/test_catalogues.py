"""What is promised of any catalogue, kept by three: books, movies, and a shop's products.

They differ in all that a spider may say: where pages and details are, what a page holds, and
whether keys are text or numbers. The third one is written in the tests, as somebody else would.
"""

from __future__ import annotations

import csv
import json
import re
from contextlib import ExitStack
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest

from spa5.catalogue.drift import MOST_EMPTIED
from spa5.items import Book, Movie
from tests.helpers.endings import assert_is_finished, assert_is_incomplete
from tests.helpers.kinds import KINDS, Kind, World
from tests.helpers.products import Product
from tests.helpers.redises import needs_redis, running_redis
from tests.helpers.running import crawling
from tests.helpers.stored import content
from tests.helpers.terminal import scrapy_on_terminal
from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pymongo import MongoClient

ITEMS = 60
PAGES = ("-a", "page_size=20")
ITEM_CLASSES = {"book": Book, "movie": Movie, "product": Product}


@pytest.fixture(params=KINDS, ids=lambda kind: kind.spider)
def world(
    request: pytest.FixtureRequest, mongo: MongoClient[dict[str, Any]], mongo_uri: str
) -> Iterator[World]:
    kind: Kind = request.param
    with running_site(ITEMS, kind=kind.spider) as site:
        yield World(kind, site, mongo_uri, mongo)
    mongo.drop_database(kind.spider)


def assert_holds_catalogue(world: World) -> None:
    """Each item of the site is stored once, under the types that it should have."""
    stored = world.stored()
    assert world.items.count_documents({}) == ITEMS
    assert stored.keys() == set(world.keys)
    for key, document in stored.items():
        assert content(document) == world.expected(key)
        assert isinstance(document[world.key], type(world.keys[0]))


def test_a_first_crawl_stores_every_item_and_says_so(world: World, tmp_path: Path) -> None:
    jsonl, table = tmp_path / "items.jsonl", tmp_path / "items.csv"
    crawl = world.crawl(*PAGES, "-O", str(jsonl), "-O", str(table))
    assert_is_finished(crawl)
    assert not crawl.lines("WARNING") + crawl.lines("ERROR")
    assert_holds_catalogue(world)
    indexes = [(dict(one["key"]), one.get("unique")) for one in world.items.list_indexes()]
    assert ({world.key: 1}, True) in indexes
    assert world.site.stats()["repeats"] == world.site.stats()["redirects"] == 0
    names = ("catalogue/expected", "catalogue/listed", "mongo/inserted", "item_scraped_count")
    assert [crawl.stats[name] for name in names] == [ITEMS] * 4
    nouns = f"{world.kind.noun}s"
    assert f"{nouns.capitalize()} go to " in crawl.log
    assert f"{nouns.capitalize()}: {ITEMS} listed, {ITEMS} new, 0 changed" in crawl.log
    assert re.search(rf"Finished after .* {nouns} a second, .*\b{nouns}\.{nouns}\n", crawl.log)
    rows = [json.loads(line) for line in jsonl.read_text().splitlines()]
    assert {row[world.key] for row in rows} == set(world.keys)
    with table.open(newline="", encoding="utf-8") as lines:
        header, *records = csv.reader(lines)
    assert header == [field.name for field in fields(ITEM_CLASSES[world.kind.noun])]
    assert {record[header.index(world.key)] for record in records} == set(map(str, world.keys))


def test_later_crawls_ask_for_index_pages_and_for_what_changed(world: World) -> None:
    world.crawl()
    world.site.reset()
    crawl = world.crawl("-a", "page_size=25")
    assert_is_finished(crawl)
    assert (world.site.stats()["index"], world.site.stats()["detail"]) == (3, 0)
    assert crawl.stats["catalogue/skipped"] == ITEMS

    first, second, third, same = world.keys[:4]
    world.edit([first, second])
    world.edit([third], hidden=True)
    diff = world.scrapy("diff", "--spider", world.kind.spider, *map(str, (first, third, same)))
    assert (diff.exitcode, diff.log) == (1, "")
    shown = {line.split(" (")[0] for line in diff.output.splitlines() if line[0] != " "}
    assert shown == {f"{world.kind.noun} {key}" for key in (first, third)}
    assert diff.output.count(f"  + {world.kind.listed}: ") == 1
    assert diff.output.count(f"  + {world.kind.hidden}: ") == 2

    world.site.reset()
    crawl = world.crawl()
    assert_is_finished(crawl)
    assert world.site.stats(details=True)["details"] == {str(first): 1, str(second): 1}
    assert crawl.stats["mongo/changed"] == 2
    assert content(world.stored()[first]) == world.expected(first)
    given = world.crawl("-a", f"ids={third}", "-a", "refresh=all")
    assert (given.exitcode, given.stats["mongo/changed"]) == (0, 1)
    assert_holds_catalogue(world)


def test_what_fails_is_asked_for_again_and_what_stays_away_is_named(world: World) -> None:
    flaky, gone, away = world.keys[:2], world.keys[2], world.keys[3]
    world.answer(*flaky, status=500, times=1)
    world.answer(away, status=403)
    world.site.control(vanish=[gone])
    world.cut_short(20, 20, held=13)
    crawl = world.crawl(*PAGES, "-s", "RETRY_TIMES=0")
    assert_is_incomplete(crawl, missing=1)
    assert crawl.stats["catalogue/vanished"] == 1
    assert world.stored().keys() == set(world.keys) - {gone, away}
    last = crawl.lines("ERROR")[-1]
    assert f"Incomplete: 1 unresolved (status 403: {away})" in last

    world.site.control(override={world.path(away): None})
    world.site.reset()
    assert_is_finished(world.crawl())
    assert world.site.stats(details=True)["details"] == {str(gone): 1, str(away): 1}
    assert content(world.stored()[away]) == world.expected(away)


def test_a_site_that_changes_for_everybody_stops_the_crawl(world: World) -> None:
    field, nouns = world.kind.listed, f"{world.kind.noun}s"
    assert_is_finished(world.crawl())
    before = {key: document[field] for key, document in world.stored().items()}
    world.site.control(blank=[field])
    crawl = world.crawl()
    assert (crawl.exitcode, crawl.reason) == (1, "drift"), crawl.log
    assert f"updates would empty {field!r}" in crawl.lines("ERROR")[-1]
    lost = [key for key, document in world.stored().items() if document[field] != before[key]]
    assert len(lost) <= MOST_EMPTIED

    world.site.control(blank=[], remove=world.keys[25:])
    crawl = world.crawl()
    assert (crawl.exitcode, crawl.reason) == (1, "drift"), crawl.log
    assert f"the site lists 25 {nouns}, the last complete crawl found {ITEMS}" in crawl.log
    crawl = world.crawl("-a", "accept=drift")
    assert_is_finished(crawl)
    assert f"{ITEMS - 25} stored {nouns} are not listed" in crawl.log
    assert world.stored().keys() == set(world.keys)


def test_the_commands_know_the_site_s_pages(world: World, tmp_path: Path) -> None:
    """Without a database, which only `doctor` wants to see."""
    (tmp_path / "file").touch()
    nowhere = {"MONGO_URI": "embedded", "MONGO_DATA_DIR": str(tmp_path / "file" / "below")}
    index = world.site.url + world.site.catalogue.page_path(0, 20)
    key = world.keys[1]
    detail = world.site.url + world.path(key)
    code = "judge(response), [one.url for one in parse_index(response)]"
    shell = world.scrapy("shell", "--nolog", index, "-c", code, **nowhere)
    details = [world.site.url + world.path(one) for one in world.keys[:20]]
    assert (shell.exitcode, shell.output.strip()) == (0, repr((None, details))), shell.log
    parse = world.scrapy("parse", "--nolog", "--nocolour", detail, **nowhere)
    assert parse.exitcode == 0
    assert f"{world.key!r}: {key!r}" in parse.output
    doctor = world.scrapy("doctor", "--spider", world.kind.spider)
    assert doctor.exitcode == 0, doctor.output
    assert "FAIL" not in doctor.output
    assert f"answers, with {ITEMS} {world.kind.noun}s" in doctor.output


@needs_redis
def test_two_workers_share_a_crawl(world: World) -> None:
    world.site.control(hold={"details": 0})
    with running_redis() as redis, ExitStack() as stack:
        shared = {"REDIS_URL": redis.url, "CRAWL_ID": "any", "MONGO_URI": world.uri}
        arguments = (world.site.url, *world.kind.options)
        workers = [
            stack.enter_context(crawling(*arguments, spider=world.kind.spider, **shared))
            for _ in range(2)
        ]
        for worker in workers:
            worker.wait_for("Worker of")
        world.site.control(hold=None)
        crawls = [worker.end() for worker in workers]
    for crawl in crawls:
        assert (crawl.exitcode, crawl.reason) == (0, "finished"), crawl.log
        assert crawl.stats["catalogue/missing"] == 0
        assert f"The whole crawl: {ITEMS} of {ITEMS} {world.kind.noun}s, 2 workers" in crawl.log
    asked = world.site.stats()
    assert (asked["detail"], asked["repeats"]) == (ITEMS, 0)
    assert_holds_catalogue(world)


def test_the_bar_and_the_table_speak_of_the_spider_s_items(world: World) -> None:
    arguments = ("crawl", world.kind.spider, *world.kind.options, "-s", "LOG_ENABLED=0")
    with scrapy_on_terminal(*arguments, columns=200, **world.environment) as terminal:
        assert terminal.end() == 0, str(terminal)
    nouns = f"{world.kind.noun}s"
    assert f"| {ITEMS}/{ITEMS} {nouns}, " in terminal.bar
    assert any(re.fullmatch(rf"speed      \d+ {nouns}/s, .*", row) for row in terminal.rows)


def test_keys_of_the_other_type_are_refused_with_a_cure_that_works(world: World) -> None:
    digits = [key for key in world.keys if str(key).isdigit()][:3]
    others = [int(key) if isinstance(key, str) else str(key) for key in digits]
    world.items.insert_many([{world.key: other, "mine": True} for other in others])
    crawl = world.crawl()
    assert (crawl.exitcode, crawl.reason) == (1, "mongo_unavailable")
    (error,) = crawl.lines("ERROR")
    assert f"holds {len(others)} {world.kind.noun}s whose {world.key} is " in error
    assert world.site.stats()["requests"] == 0

    cure = re.search(rf"db\.{world.kind.spider}\.updateMany\((.*)\)$", error)
    assert cure, error
    world.items.update_many(*as_json(cure[1]))
    assert_is_finished(world.crawl())
    assert {key for key, document in world.stored().items() if "mine" in document} == set(digits)
    world.items.update_many({}, {"$unset": {"mine": ""}})
    assert_holds_catalogue(world)


def as_json(arguments: str) -> list[Any]:
    """What mongosh is given: names without quotes, and texts in single ones."""
    quoted = re.sub(r"([{,] *)(\$?[A-Za-z_]\w*):", r'\1"\2":', arguments).replace("'", '"')
    found: list[Any] = json.loads(f"[{quoted}]")
    return found
