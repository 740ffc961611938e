"""The README's recipe for every night: its files, read from the README, do what it says."""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.helpers.crawls import ROOT

if TYPE_CHECKING:
    from pathlib import Path

FILE = re.compile(r"```\w+\n# (/etc/\S+)\n(.*?)```", re.DOTALL)
CRON = re.compile(r"(?P<when>(?:[\d*/,-]+ +){5})(?P<user>\w+) (?P<command>[^%]+)")
SCRAPY = """\
#!/bin/sh
echo "$MONGO_DATA_DIR $*" >> ~/crawl.log
exit $(cat ~/exitcode)
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A root directory with the files of the recipe, whose paths lead into it, and a scrapy."""
    for place, text in FILE.findall((ROOT / "README.md").read_text()):
        file = tmp_path / place.removeprefix("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(re.sub(r"(?<![\w~.])/(etc|srv)/", rf"{tmp_path}/\1/", text))
    scrapy = tmp_path / "srv/spa5/.venv/bin/scrapy"
    scrapy.parent.mkdir(parents=True)
    scrapy.write_text(SCRAPY)
    scrapy.chmod(0o755)
    return tmp_path


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not shutil.which(program), reason=f"there is no {program}")


def crontab(file: Path) -> str:
    """The command of the one job in a file of /etc/cron.d."""
    lines = [line for line in file.read_text().splitlines() if not re.match("#|[A-Z]+=", line)]
    job = CRON.fullmatch(lines[0])
    assert job, lines
    assert (len(lines), job["user"]) == (1, "spa5")
    return job["command"]


def sh(command: str, home: Path) -> str:
    """Run a command as cron does; return what cron would send by mail."""
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["timeout", "60", "/bin/sh", "-c", command],  # a command that waits is wrong
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.stdout


@needs("systemd-analyze")
def test_systemd_takes_the_units(machine: Path) -> None:
    units = sorted((machine / "etc/systemd/system").iterdir())
    assert [unit.name for unit in units] == ["spa5.service", "spa5.timer"]
    command = ["systemd-analyze", "verify", "--man=no", *map(str, units)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert [line for line in done.stderr.splitlines() if "spa5." in line] == []
    assert done.returncode == 0, done.stderr


@needs("flock")
def test_cron_mails_the_log_of_a_crawl_that_was_not_complete_and_starts_no_second_one(
    machine: Path,
) -> None:
    command = crontab(machine / "etc/cron.d/spa5")
    log, exitcode = machine / "crawl.log", machine / "exitcode"
    exitcode.write_text("0")
    assert sh(command, machine) == ""
    line = f"/var/lib/spa5/mongodb crawl books --logfile {log}\n"
    assert log.read_text() == line
    exitcode.write_text("1")
    assert sh(command, machine) == 2 * line
    with (machine / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert (sh(command, machine), log.read_text()) == (2 * line, 2 * line)


@needs("curl")
def test_cron_says_so_when_scrapyd_takes_no_job(machine: Path) -> None:
    command = crontab(machine / "etc/cron.d/spa5-scrapyd").replace(":6800", ":1")
    (machine / ".netrc").touch(mode=0o600)
    said = sh(command, machine)
    assert "curl: (7)" in said
    assert said.endswith("scrapyd did not schedule the crawl\n")
