"""Runs `scrapy` for the tests, as a user would: in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spa5.engine import Stats
from tests.helpers.warm import Warm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scrapy import Spider

ROOT = Path(__file__).resolve().parents[2]
STATS = ("-s", "STATS_CLASS=tests.helpers.crawls.JsonStats")  # for `Ended`
MOST_SECONDS = 300  # then a command hangs; on a busy machine 9,040 books take more than a minute


class JsonStats(Stats):
    """Writes a crawl's stats to the file that TEST_STATS_FILE names, with its peak memory."""

    def close_spider(self, spider: Spider | None = None, reason: str | None = None) -> None:
        super().close_spider(spider, reason)
        memory = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        self._stats["peak_memory_bytes"] = int(memory[1]) * 1024 if memory else None
        Path(os.environ["TEST_STATS_FILE"]).write_text(json.dumps(self._stats, default=str))


@dataclass
class Ended:
    """How a `scrapy` command ended."""

    exitcode: int
    log: str
    output: str
    stats: dict[str, Any]

    @property
    def reason(self) -> Any:
        return self.stats.get("finish_reason")

    def lines(self, level: str) -> list[str]:
        return [line for line in self.log.splitlines() if f" {level}: " in line]


@contextmanager
def scrapy(*args: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A running `scrapy` command; it is killed at the end if it still runs."""
    inherited = {name: value for name, value in os.environ.items() if name not in OWN}
    start: type[subprocess.Popen[str]] = Warm
    command = ["scrapy", *args]
    if any(name.startswith("PYTHON") for name in environment):  # what Python reads as it starts
        start, command = subprocess.Popen, [sys.executable, "-W", "error", "-m", *command]
    process = start(
        command,
        cwd=ROOT,
        env=inherited | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="backslashreplace",  # a test may choose another encoding
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def run(*args: str, **environment: str) -> Ended:
    """Run a `scrapy` command to its end."""
    with tempfile.TemporaryDirectory() as folder:
        stats_file = Path(folder, "stats.json")
        environment["TEST_STATS_FILE"] = str(stats_file)
        with scrapy(*args, **environment) as process:
            return ended(process, stats_file)


def ended(process: subprocess.Popen[str], stats_file: Path) -> Ended:
    """Wait for a command's end."""
    output, log = process.communicate(timeout=MOST_SECONDS)
    stats = json.loads(stats_file.read_text()) if stats_file.exists() else {}
    return Ended(process.returncode, log, output, stats)


# What would reach a crawl from the environment of whoever runs the tests.
OWN = {
    *("SITE_URL", "CONCURRENT_REQUESTS", "MONGO_URI", "MONGO_DATABASE", "MONGO_COLLECTION"),
    *(
        "MONGO_DATA_DIR",
        "MONGO_RETRY_SECONDS",
        "REFRESH_AFTER_DAYS",
        "MAX_SWEEPS",
        "SITE_RETRY_SECONDS",
        "DRIFT_SHARE",
    ),
    *("SITE_USER", "SITE_PASSWORD", "REDIS_URL", "CRAWL_ID", "LOG_LEVEL", "TEST_STATS_FILE"),
    "NOTIFY_URLS",
}
