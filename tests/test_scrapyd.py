"""The project in scrapyd: deployed, scheduled, cancelled, as the README describes it."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import pytest
from scrapyd_client import ScrapydClient
from scrapyd_client.exceptions import MalformedResponse

from tests.helpers.embedded import servers
from tests.helpers.redises import BINARY, RedisServer, needs_redis, running_redis
from tests.helpers.running import MOST_SECONDS, database_at, embedded_database
from tests.helpers.scrapyds import Scrapyd, copy_project, running_scrapyd
from tests.helpers.stored import assert_holds_catalogue
from tests.standin.site import RunningSite as Site
from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.helpers.crawls import Ended
    from tests.helpers.databases import Database

BOOKS = 120
SECRET = "s3cret"
DETAILS = r"/book/\d"


@pytest.fixture(scope="module")
def catalogue() -> Iterator[Site]:
    with running_site(BOOKS) as site:
        yield site


@pytest.fixture
def site(catalogue: Site) -> Site:
    catalogue.reset()
    catalogue.control(latency=0, hold=None)
    return catalogue


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    copy_project(folder)
    return folder


@pytest.fixture(scope="module")
def scrapyd(project: Path, catalogue: Site) -> Iterator[Scrapyd]:
    """One whose jobs use the embedded server; that it is started in the project is no matter."""
    folder = project / "scrapyd"
    folder.mkdir()
    with running_scrapyd(folder, SITE_URL=catalogue.url, MONGO_URI="embedded") as scrapyd:
        deployed = scrapyd.deploy(project, home=folder)
        assert deployed.returncode == 0, deployed
        yield scrapyd


@contextmanager
def stored_by(scrapyd: Scrapyd, name: str) -> Iterator[Database]:
    """What its jobs have stored with MONGO_DATABASE=name. They have ended, and the server too."""
    assert servers(scrapyd.data) == []
    with embedded_database(scrapyd.data) as server, database_at(server.uri, name) as database:
        yield database


def wait_until(asked: Callable[[dict[str, Any]], object], site: Site) -> None:
    """Return when the site's stats are like this."""
    deadline = monotonic() + MOST_SECONDS
    while not asked(stats := site.stats()):
        assert monotonic() < deadline, stats


def assert_finished(*jobs: Ended) -> None:
    for job in jobs:
        assert (job.exitcode, job.reason) == (0, "finished"), job.log


def test_the_egg_holds_all_modules(scrapyd: Scrapyd, project: Path) -> None:
    (egg,) = scrapyd.folder.glob("eggs/spa5/*.egg")
    with ZipFile(egg) as files:
        held = {name for name in files.namelist() if name.endswith(".py")}
    assert held == {str(path.relative_to(project)) for path in project.glob("spa5/**/*.py")}


def test_nothing_works_without_the_password(scrapyd: Scrapyd, project: Path) -> None:
    deployed = scrapyd.deploy(project, home=project)
    assert deployed.returncode == 1
    assert "401" in deployed.stderr
    with pytest.raises(MalformedResponse, match="Unauthorized"):
        ScrapydClient(scrapyd.url).jobs("spa5")


def test_jobs_at_the_same_time_share_the_server(scrapyd: Scrapyd, site: Site) -> None:
    site.control(hold={"paths": DETAILS})
    settings = ("MONGO_DATABASE=both", "CONCURRENT_REQUESTS=3")
    jobs = [scrapyd.schedule(*settings) for _ in range(2)]
    wait_until(lambda stats: stats["in_flight"] == 2 * 3, site)
    site.control(hold=None)
    assert_finished(*map(scrapyd.end, jobs))
    with stored_by(scrapyd, "both") as database:
        assert_holds_catalogue(database, site)


def test_a_cancelled_job_ends_and_the_next_one_goes_on(scrapyd: Scrapyd, site: Site) -> None:
    site.control(latency=0.5)
    once = scrapyd.schedule("MONGO_DATABASE=cancelled")
    wait_until(lambda stats: stats["detail"] > 10, site)
    scrapyd.cancel(once)
    job = scrapyd.end(once)
    assert (job.exitcode, job.reason) == (0, "shutdown"), job.log

    site.control(faults={"kinds": ["slow"], "share": 1, "paths": r"book/\d"})
    twice = scrapyd.schedule("MONGO_DATABASE=cancelled")
    wait_until(lambda stats: stats["faults"], site)
    scrapyd.cancel(twice)
    scrapyd.wait_for_log(twice, "Send again to force")  # two signals at once would be one
    scrapyd.cancel(twice)
    job = scrapyd.end(twice)
    assert (job.exitcode, job.reason) == (1, None), job.log
    assert servers(scrapyd.data) == []  # it ends with the job, which nobody else used it with

    site.control(latency=0, faults=None)
    assert_finished(scrapyd.end(scrapyd.schedule("MONGO_DATABASE=cancelled")))
    with stored_by(scrapyd, "cancelled") as database:
        assert_holds_catalogue(database, site)
    assert site.stats()["repeats"] <= 5  # what was in flight when it was cancelled twice


def test_a_job_that_did_not_do_it_is_listed_as_finished_but_both_logs_tell(
    scrapyd: Scrapyd, site: Site
) -> None:
    one = f"/api/book/{site.catalogue.ids[3]}/"
    site.control(override={one: {"status": 403}})
    incomplete = scrapyd.schedule("MONGO_DATABASE=incomplete")
    wrong = scrapyd.schedule(refresh="everything")
    jobs = [scrapyd.end(incomplete), scrapyd.end(wrong)]
    site.control(override={one: None})
    assert [(job.exitcode, job.reason) for job in jobs] == [(1, "incomplete"), (2, None)]
    assert {incomplete, wrong} <= set(scrapyd.listed("finished"))
    assert scrapyd.wait_for("scrapy crawl: refresh='everything': use one of")


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_deploying_leaves_nothing_for_git(scrapyd: Scrapyd, project: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    new = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard", "--directory"],
        cwd=project,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert (project / "setup.py").exists()
    assert sorted(new) == [".gitignore", "pyproject.toml", "scrapy.cfg", "scrapyd/", "spa5/"]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer | None]:
    if BINARY is None:
        yield None
        return
    with running_redis("--requirepass", SECRET) as server:
        yield server


@pytest.fixture(scope="module")
def configured(
    tmp_path_factory: pytest.TempPathFactory,
    scrapyd: Scrapyd,
    catalogue: Site,
    mongo_uri: str,
    redis: RedisServer | None,
) -> Iterator[Scrapyd]:
    """Another machine's with the same egg; its environment names the servers, with passwords."""
    folder = tmp_path_factory.mktemp("scrapyd")
    shutil.copytree(scrapyd.folder / "eggs", folder / "eggs")
    environment = {"SITE_URL": catalogue.url, "MONGO_URI": f"{mongo_uri}?appName={SECRET}"}
    if redis:
        environment["REDIS_URL"] = f"unix://:{SECRET}@{redis.socket}"
    with running_scrapyd(folder, **environment) as configured:
        yield configured


def test_jobs_that_follow_each_other_bring_the_catalogue(
    configured: Scrapyd, site: Site, database: Database
) -> None:
    alone = (f"MONGO_DATABASE={database.name}", "REDIS_URL=")
    first = configured.end(configured.schedule(*alone, pages="1", page_size="30"))
    assert sorted(database.stored()) == sorted(site.catalogue.ids[:30])
    site.control(hold={"paths": DETAILS})
    job = configured.schedule(*alone, "CONCURRENT_REQUESTS=16")
    wait_until(lambda stats: stats["in_flight"] == 16, site)
    site.control(hold=None)
    other = configured.end(job)
    assert_finished(first, other)
    assert_holds_catalogue(database, site)
    assert (site.stats()["detail"], site.stats()["peak"]) == (BOOKS, 16)
    assert SECRET not in "".join([*configured.said, first.log, other.log])


@needs_redis
def test_two_jobs_share_a_crawl_through_the_redis_of_scrapyds_environment(
    configured: Scrapyd, site: Site, database: Database
) -> None:
    site.control(hold={"paths": DETAILS})
    settings = (f"MONGO_DATABASE={database.name}", "CRAWL_ID=nightly")
    workers = [configured.schedule(*settings) for _ in range(2)]
    wait_until(lambda stats: stats["in_flight"] == 2 * 5, site)
    site.control(hold=None)
    jobs = [configured.end(worker) for worker in workers]
    assert_finished(*jobs)
    assert_holds_catalogue(database, site)
    assert site.stats()["detail"] == BOOKS
    assert SECRET not in "".join([*configured.said, *(job.log for job in jobs)])
