"""Breaks workers of shared crawls, and their Redis, at random: `python -m tests.soak_workers`.

Workers join, leave, are killed and paused; Redis is restarted, full, and holds what others wrote.
No worker may hang, and at the end everything must be stored as the site has it, nothing twice. A
round that fails can be repeated with its seed: `python -m tests.soak_workers --seed N --rounds 1`.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random
from typing import Any

from bson.codec_options import CodecOptions
from pymongo import MongoClient
from redis.exceptions import RedisError

from tests.helpers.databases import Database
from tests.helpers.mongods import Mongod, running_mongod
from tests.helpers.redises import RedisServer, running_redis
from tests.helpers.running import Running, crawling
from tests.helpers.stored import assert_holds_catalogue
from tests.standin.site import RunningSite, running_site

KILLED = -signal.SIGKILL
MOST_JOINS = 30  # workers in a round


class Round:
    """One shared crawl, disturbed until somebody has finished it."""

    def __init__(self, random: Random, site: RunningSite, database: Database, redis: RedisServer):
        self.random = random
        self.site = site
        self.database = database
        self.redis = redis
        self.counts: Counter[str] = Counter()
        self.workers: list[Running] = []
        self.own_kills: set[int] = set()  # processes

    def run(self, most_workers: int) -> None:
        with ExitStack() as stack:
            while self.counts["finished"] == 0 and self.counts["joined"] < MOST_JOINS:
                while len(self.workers) < self.random.randint(1, most_workers):
                    self.join(stack)
                time.sleep(self.random.uniform(0, 1.5))  # the moment is what is random
                self.disturb()
                self.bury()
            for worker in self.workers:
                worker.process.send_signal(signal.SIGCONT)
                self.judge(worker)

    def join(self, stack: ExitStack) -> None:
        self.counts["joined"] += 1
        ours = {"REDIS_URL": self.redis.url, "CRAWL_ID": "soak", **self.database.environment}
        worker = stack.enter_context(crawling(self.site.url, CONCURRENT_REQUESTS="4", **ours))
        # Nobody else reads what it says, and a full pipe would stop it.
        threading.Thread(target=worker.end, daemon=True).start()
        self.workers.append(worker)

    def disturb(self) -> None:
        worker = self.random.choice(self.workers)
        what = self.random.choice(["kill", "leave", "pause", "restart", "full", "garbage", "none"])
        self.counts[what] += 1
        if what == "kill":
            self.own_kills.add(worker.process.pid)
            worker.process.kill()
        elif what == "leave":
            worker.process.terminate()
        elif what == "pause":
            worker.process.send_signal(signal.SIGSTOP)
            time.sleep(self.random.uniform(0, 7))
            worker.process.send_signal(signal.SIGCONT)
        elif what == "restart":
            self.redis.stop()
            time.sleep(self.random.uniform(0, 3))
            self.redis.start()
        elif what != "none":
            self.write_as_others_do(what)

    def write_as_others_do(self, what: str) -> None:
        with self.redis.client() as client, suppress(RedisError):
            if what == "full":
                client.config_set("maxmemory", 1)
                time.sleep(self.random.uniform(0, 3))
                client.config_set("maxmemory", 0)
            else:
                client.hset("books:soak:totals", "x", '{"mongo/inserted": 3}')
                client.lpush("books:soak:requests", "garbage")

    def bury(self) -> None:
        ended = [one for one in self.workers if one.process.poll() is not None]
        for worker in ended:
            self.workers.remove(worker)
            self.judge(worker)

    def judge(self, worker: Running) -> None:
        code = worker.process.wait()
        own = worker.process.pid in self.own_kills
        assert code != KILLED or own, "a worker hung, and its watchdog killed it"
        log = "".join(worker._log)
        assert "Traceback" not in log, log
        self.counts["finished"] += "Spider closed (finished)" in log


def soak(seed: int, workers: int, books: int, server: Mongod) -> Counter[str]:
    with (
        MongoClient[dict[str, Any]](server.uri) as client,
        running_site(books, seed, latency=0.01) as site,
        running_redis() as redis,
    ):
        lenient = CodecOptions[dict[str, Any]](tz_aware=True)
        stored = client["soak"].get_collection("books", codec_options=lenient)
        database = Database(server.uri, "soak", stored)
        site.control(faults={"kinds": ["500", "html", "reset"], "share": 0.03, "seed": seed})
        one = Round(Random(seed), site, database, redis)
        one.run(workers)
        assert one.counts["finished"], f"nobody finished: {one.counts}"
        assert_holds_catalogue(database, site)
        client.drop_database("soak")
    return one.counts


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak_workers", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--rounds", type=int, help="instead of minutes")
    parser.add_argument("--workers", type=int, default=8, help="at a time, at the most")
    parser.add_argument("--books", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1, help="of the first round")
    options = parser.parse_args()
    end, rounds, total = time.monotonic() + options.minutes * 60, 0, Counter[str]()
    with tempfile.TemporaryDirectory() as folder, running_mongod(Path(folder)) as server:
        while rounds != options.rounds and (options.rounds or time.monotonic() < end):
            seed = options.seed + rounds
            try:
                total += soak(seed, options.workers, options.books, server)
            except Exception:
                print(f"round with --seed {seed} failed", file=sys.stderr)
                raise
            rounds += 1
            print(f"seed {seed}: {dict(total)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
