"""What is measured: a function for each row, which yields its lines."""

from __future__ import annotations

import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING
from uuid import uuid4

from tests.bench import pipeline
from tests.bench.load import load
from tests.bench.runs import Mongo, Run, alternately, engine_alone
from tests.bench.shared import AT_A_TIME, Shared
from tests.bench.table import Line
from tests.helpers.crawls import ROOT
from tests.helpers.redises import running_redis
from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.standin.site import RunningSite

IN_FLIGHT = (64, 256, 1000)
BATCHES = (10, 30, 100, 300, 1000)
TUNED = "script, index and 100 a page"
OPTIONS = {"script as it is": (), TUNED: ("--index", "--page-size=100")}
HISTORY = {"on": (), "off": ("-s", "HISTORY_ENABLED=False")}
# The one-line choices: `scrapy crawl`'s options.
CHOICES = {"project, handler on Twisted": ("-s", "DOWNLOAD_HANDLERS={}")}
if find_spec("uvloop"):
    CHOICES["project, uvloop"] = ("-s", "ASYNCIO_EVENT_LOOP=uvloop.Loop")


@dataclass
class Bench:
    """What all rows share."""

    mongo: Mongo
    rounds: int
    books: int  # in the catalogue
    memory: list[int]  # books in row 5's catalogues


def whole_catalogue(bench: Bench) -> Iterator[Line]:
    """The whole catalogue, no latency, 64 in flight; times of whole processes."""
    with running_site(bench.books, prerender=True) as site:
        able = [_warm(site) for _ in range(bench.rounds)]
        project, others = _contest(bench, site, *OPTIONS, *CHOICES)
    asked = [run.stats["downloader/request_count"] / run.elapsed for run in project]
    yield Line(1, "whole catalogue: project", "s", _walls(project))
    for name, at_most in zip(OPTIONS, (0.8, 1.25), strict=True):
        yield Line(1, name, "s", _walls(others[name]), _walls(project), at_most=at_most)
    for name in CHOICES:
        yield Line(1, name, "s", _walls(others[name]), _walls(project))
    yield Line(1, "the stand-in answers at the most", "requests/s", able)
    yield Line(1, "the project asks", "requests/s", asked)


def latency(bench: Bench) -> Iterator[Line]:
    """100 ms before each answer; the ideal is requests x latency / in flight."""
    with running_site(min(bench.books, 2_000), latency=0.1, prerender=True) as site:
        books = len(site.catalogue.ids)
        requests = books + -(-books // 100)
        for in_flight, at_most in ((5, 1.05), (16, 1.05), (64, 1.15)):
            project, scripts = _contest(bench, site, TUNED, in_flight=in_flight)
            crawl = [run.elapsed for run in project]
            ideal = [requests * 0.1 / in_flight]
            what = f"100 ms, {in_flight} in flight"
            yield Line(2, f"{what}: project, crawl", "s", crawl)
            yield Line(2, f"{what}: ideal", "s", ideal, crawl, at_most=at_most)
            yield Line(2, f"{what}: project, process", "s", _walls(project))
            yield Line(2, f"{what}: {TUNED}", "s", _walls(scripts[TUNED]), _walls(project))


def second_crawl(bench: Bench) -> Iterator[Line]:
    """A catalogue that did not change since the first crawl, no latency, 64 in flight."""
    firsts: list[Run] = []
    seconds: list[Run] = []
    with running_site(bench.books, prerender=True) as site:
        _warm(site)
        for _ in range(bench.rounds):
            with bench.mongo.database() as name:
                for runs in (firsts, seconds):
                    runs.append(bench.mongo.crawl(site, name, 64))
    first, second = _walls(firsts), _walls(seconds)
    yield Line(3, "second crawl, process", "s", second)
    yield Line(3, "first crawl, process", "s", first, second, at_most=0.1)
    first, second = ([run.elapsed for run in runs] for runs in (firsts, seconds))
    yield Line(3, "second crawl, crawl", "s", second)
    yield Line(3, "first crawl, crawl", "s", first, second, at_most=0.1)


def pipeline_alone(bench: Bench) -> Iterator[Line]:
    """Books from memory; all writes are acknowledged when they are in the journal."""
    books = pipeline.catalogue(bench.books)

    def into_fresh(write: Callable[..., float], how_many: int) -> float:
        with bench.mongo.database() as name:
            return write(bench.mongo.uri, name, books, how_many)

    contenders: dict[str, Callable[[], float]] = {
        "update_one": partial(into_fresh, pipeline.one_by_one, 64)
    }
    for n in IN_FLIGHT:
        contenders[f"process_item, {n}"] = partial(into_fresh, pipeline.through_pipeline, n)
    for n in BATCHES:
        contenders[f"bulk_write, {n}"] = partial(into_fresh, pipeline.raw_bulk, n)
    speeds = alternately(bench.rounds, contenders)
    best = max((f"bulk_write, {n}" for n in BATCHES), key=lambda name: median(speeds[name]))
    for n in IN_FLIGHT:
        project = speeds[f"process_item, {n}"]
        yield Line(4, f"process_item, {n} in flight", "books/s", project)
        yield Line(4, f"raw {best} a batch", "books/s", speeds[best], project, at_least=0.7)
        one = speeds["update_one"]
        yield Line(4, "motor update_one, 64 in flight", "books/s", one, project, at_least=5)


def memory(bench: Bench) -> Iterator[Line]:
    """Peak memory by size of the catalogue, 64 in flight; once each, whatever the rounds."""
    peaks: dict[str, list[float]] = {"project": [], TUNED: []}
    for books in bench.memory:
        with running_site(books) as site:
            project, scripts = _contest(bench, site, TUNED, rounds=1)
        for name, runs in (("project", project), *scripts.items()):
            peaks[name].append(runs[0].peak)
            yield Line(5, f"{books:,} books: {name}", "MB", [runs[0].peak / 1e6])
    grown = bench.memory[-1] - bench.memory[0]
    for name, at_most in (("project", 200), (TUNED, None)) if grown else ():
        growth = (peaks[name][-1] - peaks[name][0]) / grown
        yield Line(5, f"growth: {name}", "bytes/book", [growth], at_most=at_most)


def effort(bench: Bench) -> Iterator[Line]:
    """CPU of the crawl's process at 64 in flight, and how soon it asks (for robots.txt)."""
    with running_site(bench.books, prerender=True) as site:
        _warm(site)
        project, others = _contest(bench, site, TUNED, *CHOICES)
    engine = [engine_alone(bench.books) for _ in range(bench.rounds)]
    cpu = [_cpu(bench, run) for run in project]
    yield Line(6, "CPU for 1,000 books: project", "s", cpu, at_most=0.7)
    for name, runs in others.items():
        values = [_cpu(bench, run) for run in runs]
        yield Line(6, f"CPU for 1,000 books: {name}", "s", values, cpu)
    alone = [_cpu(bench, run) for run in engine]
    yield Line(6, "CPU for 1,000 requests: Scrapy's engine alone", "s", alone, cpu)
    first = [_first_request(bench.mongo) for _ in range(bench.rounds)]
    yield Line(6, "from start to first request", "s", first, at_most=1)


def workers(bench: Bench) -> Iterator[Line]:
    """Workers of a shared crawl, 100 ms before each answer, 16 in flight each; what Redis holds."""
    books = min(bench.books, 4_000)
    with running_site(books, latency=0.1, prerender=True) as site, running_redis() as redis:
        contenders = {str(n): partial(_crew, bench.mongo, site, redis.url, n) for n in (1, 2, 4)}
        for n, times in alternately(bench.rounds, contenders).items():
            ideal = [(books + -(-books // 100)) * 0.1 / (16 * int(n))]
            yield Line(7, f"100 ms, 16 in flight: {n} workers, crawl", "s", times)
            yield Line(7, f"100 ms, 16 in flight: {n} workers, ideal", "s", ideal, times)
        with redis.client() as client:
            shared = Shared(client, redis.url, books)
            took = [shared.seconds_a_request() * 1e6 for _ in range(bench.rounds)]
            yield Line(7, f"a request, shared and taken, {AT_A_TIME} at a time", "µs", took)
            yield Line(7, "Redis holds for a pending request", "bytes", [shared.bytes_a_request()])
            yield Line(7, "Redis holds for an id", "bytes", [shared.bytes_an_id()])


def history(bench: Bench) -> Iterator[Line]:
    """What it costs to keep what changes replace, 64 in flight: all books changed, or none."""
    with running_site(bench.books, prerender=True) as site:
        crawls = _crawls_with_history(bench, site)
    for number, what in enumerate(("all books changed", "no book changed")):
        on, off = ([runs[number] for runs in crawls[name]] for name in HISTORY)
        yield Line(8, f"second crawl, {what}: with the history", "s", _walls(on))
        yield Line(8, f"second crawl, {what}: without", "s", _walls(off), _walls(on))
    books = pipeline.catalogue(bench.books)

    def write(in_flight: int, *, history: bool) -> float:
        with bench.mongo.database() as name:
            write = pipeline.changed_through_pipeline
            return write(bench.mongo.uri, name, books, in_flight, history=history)

    for n in IN_FLIGHT:
        contenders = {name: partial(write, n, history=name == "on") for name in HISTORY}
        speeds = alternately(bench.rounds, contenders)
        what = f"process_item, {n} changed books in flight"
        yield Line(8, f"{what}: with the history", "books/s", speeds["on"])
        yield Line(8, f"{what}: without", "books/s", speeds["off"], speeds["on"])


ROWS = dict(
    enumerate(
        (whole_catalogue, latency, second_crawl, pipeline_alone, memory, effort, workers, history),
        start=1,
    )
)


def _crawls_with_history(bench: Bench, site: RunningSite) -> dict[str, list[tuple[Run, Run]]]:
    """Crawl again after all books have changed, and once more, each with the history and without.

    The databases stay, and with them what is in the history.
    """
    with ExitStack() as stack:
        names = {one: stack.enter_context(bench.mongo.database()) for one in HISTORY}

        def crawl(one: str, *options: str) -> Run:
            return bench.mongo.crawl(site, names[one], 64, *HISTORY[one], *options)

        def change_and_crawl(one: str) -> tuple[Run, Run]:
            site.control(edit_hidden=site.catalogue.ids)
            _warm(site)
            return crawl(one, "-a", "refresh=all"), crawl(one)

        for one in HISTORY:
            crawl(one)
        return alternately(bench.rounds, {one: partial(change_and_crawl, one) for one in HISTORY})


def _crew(mongo: Mongo, site: RunningSite, redis: str, workers: int) -> float:
    """Seconds from the first worker's opening to the last one's closing."""
    ours = ("-s", f"REDIS_URL={redis}", "-s", f"CRAWL_ID={uuid4()}")
    with mongo.database() as name, ThreadPoolExecutor(workers) as threads:
        runs = [threads.submit(mongo.crawl, site, name, 16, *ours) for _ in range(workers)]
        return max(run.result().elapsed for run in runs)


def _contest(
    bench: Bench, site: RunningSite, *scripts: str, in_flight: int = 64, rounds: int | None = None
) -> tuple[list[Run], dict[str, list[Run]]]:
    """Runs of the project and of scripts, by their names in OPTIONS, into fresh databases."""

    def run(options: tuple[str, ...] | None) -> Run:
        with bench.mongo.database() as name:
            if options is None:
                return bench.mongo.crawl(site, name, in_flight)
            if options in CHOICES.values():
                return bench.mongo.crawl(site, name, in_flight, *options)
            return bench.mongo.script(site, name, in_flight, *options)

    settings = OPTIONS | CHOICES
    contenders = {name: partial(run, settings.get(name)) for name in ("project", *scripts)}
    runs = alternately(rounds or bench.rounds, contenders)
    return runs.pop("project"), runs


def _walls(runs: list[Run]) -> list[float]:
    return [run.wall for run in runs]


def _cpu(bench: Bench, run: Run) -> float:
    """Seconds for 1,000 books."""
    return run.cpu * 1000 / bench.books


def _warm(site: RunningSite) -> float:
    """Have the stand-in make its index pages; return how many details a second it answers."""
    ids = site.catalogue.ids
    for size in (18, 100):
        load(site.url, (f"?limit={size}&offset={n}" for n in range(0, len(ids), size)))
    return load(site.url, (f"{one}/" for one in ids))


def _first_request(mongo: Mongo) -> float:
    """Seconds from the start of `scrapy crawl` to the first byte that the site receives."""
    command = [sys.executable, "-m", "scrapy", "crawl", "books"]
    with mongo.database() as name, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        environment = mongo.environment(url, name)
        began = perf_counter()
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
        ) as crawl:
            try:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1)
                    return perf_counter() - began
            finally:
                crawl.kill()
