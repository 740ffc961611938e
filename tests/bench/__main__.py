"""Measures the project against a plain asyncio script, see `--help`."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

from tests.bench.rows import ROWS, Bench
from tests.bench.runs import running_mongo
from tests.bench.table import HEAD

if TYPE_CHECKING:
    from tests.bench.runs import Mongo

PACKAGES = ("Scrapy", "Twisted", "motor", "pymongo", "aiohttp")
MEMORY = "9040,90400,904000"
NOTES = """\
Ratio: the median of the project's values just above, divided by this line's. "process": from the
start of a process to its end; "crawl": Scrapy's `elapsed_time_seconds`. The project's writes wait
for the journal; the script's, with the driver's defaults, do not.
"""


def arguments() -> argparse.Namespace:
    rows = "; ".join(f"{n}: {(row.__doc__ or '').rstrip('.')}" for n, row in ROWS.items())
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=rows)
    parser.add_argument("rows", metavar="ROW", nargs="*", type=int, help="all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--books", type=int, default=9040, help="row 2 takes 2000 at the most")
    parser.add_argument(
        "--memory",
        metavar="SIZES",
        nargs="?",
        default="9040,90400",
        const=MEMORY,
        help=f"the catalogues of row 5; given without sizes {MEMORY}, which takes an hour",
    )
    options = parser.parse_args()
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"no such rows: {unknown}")
    return options


def header(mongo: Mongo) -> str:
    packages = [f"{name} {version(name)}" for name in PACKAGES]
    server = f"mongod {mongo.client.server_info()['version']}"
    cores = f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} before"
    python = f"Python {platform.python_version()}"
    return ", ".join([python, *packages, server, cores, f"{datetime.now():%Y-%m-%d}"])


def main() -> None:
    options = arguments()
    sizes = [int(size) for size in options.memory.split(",")]
    with running_mongo() as mongo:
        bench = Bench(mongo, options.rounds, options.books, sizes)
        print(f"{header(mongo)}\n\n{NOTES}\n{HEAD}", flush=True)
        for number in options.rows or ROWS:
            print(f"row {number}", file=sys.stderr)
            try:
                for line in ROWS[number](bench):
                    print(line, flush=True)
            except (RuntimeError, OSError) as error:  # the other rows are still worth having
                print(f"| {number} | failed: {error} | | | | | **no** |", flush=True)


if __name__ == "__main__":
    main()
