"""Breaks the site, MongoDB and the crawler at random, over and over: `python -m tests.soak`.

Before each crawl the site changes some books. After it their versions, put together from collection
and history, must be those that the site had, in that order, none lost and none twice. After each
round everything must be stored as the site has it, nothing twice. Then the site loses a field for
all books: the crawl must stop as drift, and no more than 20 books may lose it. A round that fails
can be repeated with its seed: `python -m tests.soak --seed N --rounds 1`.
"""

from __future__ import annotations

import argparse
import base64
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime, timedelta, timezone
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from bson.codec_options import CodecOptions
from pymongo import MongoClient

from spa5.catalogue.drift import MOST_EMPTIED
from tests.helpers.databases import Database
from tests.helpers.mongods import Mongod, running_mongod
from tests.helpers.running import Running, crawling
from tests.helpers.stored import assert_holds_catalogue
from tests.helpers.versions import Versions
from tests.standin.site import RunningSite, running_site

if TYPE_CHECKING:
    from tests.helpers.crawls import Ended

KINDS = ["500", "503", "429", "408", "close", "reset", "truncate", "html", "broken", "shape"]
SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
MOST_TRIES = 6  # undisturbed crawls until one is complete


class Soak:
    """Rounds of faults, and what came of them."""

    def __init__(self, server: Mongod, books: int) -> None:
        self.server = server
        self.books = books
        self.counts: Counter[str] = Counter()
        self.peaks: list[int] = []  # megabytes

    def round(self, seed: int) -> None:
        """Disturb some crawls of one catalogue, then crawl until it is complete, and compare."""
        random = Random(seed)
        with (
            MongoClient[dict[str, Any]](self.server.uri) as client,
            running_site(self.books, seed) as site,
        ):
            lenient = CodecOptions[dict[str, Any]](tz_aware=True)
            books = client["soak"].get_collection("books", codec_options=lenient)
            uri = f"{self.server.uri}?socketTimeoutMS=2000&serverSelectionTimeoutMS=2000"
            database = Database(uri, "soak", books)
            kinds = random.sample(KINDS, random.randint(1, len(KINDS)))
            faults = {"kinds": kinds, "share": random.uniform(0, 0.3), "seed": seed}
            site.control(faults=faults, swap=random.random() < 0.3)
            self.renamed: dict[str, str] = {}
            self.versions = Versions(database, lambda one: self.served(site, one))
            for _ in range(random.randint(1, 4)):
                self.edit(random, site)
                self.hiccup(random, site)
                self.disturbed_crawl(random, site, database)
            site.control(swap=False)
            self.complete(site, database)
            self.versions.follow(is_complete=True)
            self.counts.update(site.stats()["faults"])
            assert_holds_catalogue(database, site)
            assert len(books.distinct("id")) == books.count_documents({}) == self.books
            mended = dict.fromkeys(f"/api/book/{one}/" for one in site.catalogue.ids)
            site.control(faults=None, override=mended)
            self.drift(site, database)
            client.drop_database("soak")
        self.counts["rounds"] += 1

    def edit(self, random: Random, site: RunningSite) -> None:
        edited = random.sample(site.catalogue.ids, random.randint(0, self.books))
        site.control(edit=edited)
        site.catalogue.edit(edited)

    def served(self, site: RunningSite, one: str) -> dict[str, Any]:
        detail = site.catalogue.detail(one)
        return {self.renamed.get(name, name): value for name, value in detail.items()}

    def hiccup(self, random: Random, site: RunningSite) -> None:
        """Let some details be answered wrongly a few times, with an answer that looks right."""
        answers = {}
        for one in random.sample(site.catalogue.ids, random.randint(0, 30)):
            what = random.choice(
                ["bare", "error", "not UTF-8", "not the API's 404", "another book"]
            )
            self.counts[what] += 1
            detail = site.catalogue.detail(one)
            body = {
                "bare": {"id": one},
                "error": {"id": one, "detail": "Internal error, try later"},
                "another book": site.catalogue.detail(random.choice(site.catalogue.ids)),
            }.get(what, detail)
            raw = json.dumps(body, ensure_ascii=False).encode()
            raw = raw.replace("。".encode(), b"\xe3\x80") + b" " if what == "not UTF-8" else raw
            status = 404 if what == "not the API's 404" else 200
            answers[f"/api/book/{one}/"] = {
                "body_base64": base64.b64encode(raw).decode(),
                "status": status,
                "times": random.randint(1, 4),
            }
        site.control(override=answers)

    def drift(self, site: RunningSite, database: Database) -> None:
        """The site renames a field of all books, and is mended again."""
        scored = database.books.count_documents({"score": {"$ne": None}})
        self.renamed = {"score": "rating"}
        site.control(rename=self.renamed)
        crawl = database.crawl(site.url, "-a", "refresh=all")
        self.versions.follow()
        assert crawl.reason == "drift", crawl.log
        lost = scored - database.books.count_documents({"score": {"$ne": None}})
        assert lost <= MOST_EMPTIED, lost
        self.counts["drift"] += 1
        self.renamed = {}
        site.control(rename={})
        crawl = database.crawl(site.url, "-a", "refresh=all")
        assert (crawl.exitcode, crawl.reason) == (0, "finished"), crawl.log
        self.versions.follow(is_complete=True)
        assert_holds_catalogue(database, site)

    def disturbed_crawl(self, random: Random, site: RunningSite, database: Database) -> None:
        in_flight = str(random.choice([1, 5, 16, 64]))
        with crawling(site.url, CONCURRENT_REQUESTS=in_flight, **database.environment) as crawl:
            moment = site.stats()["detail"] + random.randint(0, self.books)
            while site.stats()["detail"] < moment and crawl.process.poll() is None:
                pass
            self.disturb(random, crawl, site, database)
            self.judge(crawl.end())
        self.server.wait_for_crawls()
        self.versions.follow()

    def disturb(
        self, random: Random, crawl: Running, site: RunningSite, database: Database
    ) -> None:
        process = ["signal", "two signals", "mongod killed", "mongod paused"]
        what = random.choice([*process, "dropped", "deleted", "wrong clock"])
        self.counts[what] += 1
        if what == "dropped":
            database.books.drop()
            self.versions.forget(site.catalogue.ids)
        elif what == "deleted":
            database.books.delete_many({"id": {"$lt": "5"}})
            self.versions.forget([one for one in site.catalogue.ids if one < "5"])
        elif what == "wrong clock":
            ahead = datetime.now(timezone.utc) + timedelta(days=365)
            database.books.update_many({}, {"$set": {"crawled_at": ahead, "listed_at": ahead}})
        elif what == "mongod killed":
            self.server.kill()
            time.sleep(random.uniform(0, 3))
            self.server.start()
        elif what == "mongod paused":
            self.server.pause()
            time.sleep(random.uniform(0, 5))
            self.server.resume()
        else:
            crawl.process.send_signal(random.choice(SIGNALS))
            if what == "two signals":
                time.sleep(random.uniform(0, 0.5))
                crawl.process.send_signal(random.choice(SIGNALS))

    def complete(self, site: RunningSite, database: Database) -> None:
        """The answer to every crash is the same command."""
        for _ in range(MOST_TRIES):
            with crawling(site.url, **database.environment) as crawl:
                ended = crawl.end()
            self.judge(ended)
            if ended.exitcode == 0:
                return
        raise AssertionError(f"not complete after {MOST_TRIES} crawls:\n{ended.log}")

    def judge(self, crawl: Ended) -> None:
        self.counts["crawls"] += 1
        assert "Traceback" not in crawl.log, crawl.log
        if peak := crawl.stats.get("peak_memory_bytes"):
            self.peaks.append(peak >> 20)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--rounds", type=int, help="instead of minutes")
    parser.add_argument("--books", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1, help="of the first round")
    options = parser.parse_args()
    end = time.monotonic() + options.minutes * 60
    seed = options.seed
    with tempfile.TemporaryDirectory() as folder, running_mongod(Path(folder)) as server:
        soak = Soak(server, options.books)
        while soak.counts["rounds"] != options.rounds and time.monotonic() < end:
            try:
                soak.round(seed)
            except Exception:
                print(f"round with --seed {seed} --books {options.books} failed", file=sys.stderr)
                raise
            peaks = f"{soak.peaks[-1]} MB" if soak.peaks else "not known"
            print(f"seed {seed}: {soak.counts['crawls']} crawls so far, peak {peaks}", flush=True)
            seed += 1
    checked = soak.counts["rounds"] * options.books
    print(f"{checked} books compared; peak memory {min(soak.peaks)} to {max(soak.peaks)} MB")
    for name, count in soak.counts.most_common():
        print(f"{count:6} {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
