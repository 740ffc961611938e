"""A site with a log-in: what waits for a token gets one, and nobody else ever sees it."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.http import Response
from scrapy.utils.project import get_project_settings

from spa5.catalogue.login import LogIn, LogInFailed, LogInRefused, Session, seconds_left
from spa5.catalogue.project import spider_for
from spa5.downloadermiddlewares import Authorization
from spa5.spiders.login3 import Login3Spider
from tests.helpers.crawls import Ended, run
from tests.helpers.redises import needs_redis, running_redis
from tests.helpers.running import assert_is_calm, assert_is_complete, crawling
from tests.standin.login import Door
from tests.standin.site import RunningSite as Site
from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from tests.helpers.databases import Database

USER, PASSWORD = "jane.doe.7", 'horse-battery "ü"'
ACCOUNT = {"username": USER, "password": PASSWORD}
SECRETS = {"SITE_USER": USER, "SITE_PASSWORD": PASSWORD}
DOOR = {"user": USER, "password": PASSWORD}
BOOKS = 60
LEAST_LIFE = 0.75  # seconds that a token of two is used for: it may be cut to one, less a quarter
REFUSED = "The site refuses the log-in"


@pytest.fixture
def site() -> Iterator[Site]:
    with running_site(BOOKS) as site:
        site.control(log_in=DOOR)
        yield site


def environment(database: Database, **settings: str) -> dict[str, str]:
    return database.environment | SECRETS | {"MONGO_COLLECTION": "books"} | settings


def crawl(site: Site, database: Database, *args: str, **settings: str) -> Ended:
    """Run `scrapy crawl login3` to its end."""
    with crawling(site.url, *args, spider="login3", **environment(database, **settings)) as running:
        return running.end()


def look(site: Site, database: Database, command: str, *args: str, **settings: str) -> Ended:
    """Run another command for login3."""
    told = environment(database, SITE_URL=site.url, **settings)
    return run(command, "--spider=login3", *args, **told)


class Portal:
    """Answers a session's questions in turn, the last answer for ever, and notes what it got."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.posted: list[tuple[str, Any]] = []

    async def post(self, path: str, data: dict[str, Any]) -> Response:
        self.posted.append((path, data))
        await asyncio.sleep(0)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, int):
            return Response("http://x/api/login", answer)
        return Response("http://x/api/login", 200, body=json.dumps(answer).encode())


JWT = LogIn("/in", renewal_path="/renew", scheme="jwt")


def session(log_in: LogIn = JWT, clock: Callable[[], float] = time.monotonic) -> Session:
    return Session(log_in, log_in.account(USER, PASSWORD), clock)


def token(seconds: float = 1000) -> str:
    """One that is valid for so long."""
    return Door(USER, PASSWORD, seconds).sign(0)


def together(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def test_the_site_is_asked_once_for_all_that_wait() -> None:
    portal, one = Portal({"token": "a"}, {"token": "b"}), session()

    async def scene() -> set[str]:
        return set(await asyncio.gather(*(one.header(portal.post) for _ in range(64))))

    assert together(scene()) == {"jwt a"}
    assert portal.posted == [("/in", ACCOUNT)]


def test_a_token_is_renewed_before_it_ends() -> None:
    now = 0.0
    first, second = token(), token()
    portal, one = Portal({"token": first}, {"token": second}), session(clock=lambda: now)

    async def scene() -> None:
        nonlocal now
        for moment in (0, 300, 740):
            now = moment
            assert await one.header(portal.post) == f"jwt {first}"
        now = 751
        assert await one.header(portal.post) == f"jwt {second}"

    together(scene())
    assert portal.posted == [("/in", ACCOUNT), ("/renew", {"token": first})]


@pytest.mark.parametrize(
    ("log_in", "answers"), [(JWT, [400, {"token": "b"}]), (LogIn("/in"), [{"token": "b"}])]
)
def test_a_token_that_is_not_renewed_costs_another_log_in(
    log_in: LogIn, answers: list[Any]
) -> None:
    now = 0.0
    portal, one = Portal({"token": token()}, *answers), session(log_in, clock=lambda: now)

    async def scene() -> None:
        nonlocal now
        await one.header(portal.post)
        now = 751
        assert await one.header(portal.post) == f"{log_in.scheme} b"

    together(scene())
    assert portal.posted[-1] == ("/in", ACCOUNT)


def test_a_refused_token_is_forgotten_and_a_newer_one_is_not() -> None:
    portal, one = Portal({"token": "a"}, {"token": "b"}, {"token": "c"}), session()

    async def scene() -> list[str]:
        old = await one.header(portal.post)
        one.forget(old)
        new = await one.header(portal.post)
        one.forget(old)
        return [old, new, await one.header(portal.post)]

    assert together(scene()) == ["jwt a", "jwt b", "jwt b"]


@pytest.mark.parametrize("text", ["opaque", "a.b.c", "a.e30.c", "a.W10.c", "a..c", token(-5)])
def test_a_token_whose_end_nobody_knows_is_used_until_it_is_refused(text: str) -> None:
    assert seconds_left(text) == float("inf")


@pytest.mark.parametrize(
    "answer", [500, 503, 429, 408, [], {}, {"token": None}, {"token": ""}, {"token": "a\r\nb: c"}]
)
def test_an_answer_without_a_token_may_be_better_the_next_time(answer: Any) -> None:
    portal, one = Portal(answer, {"token": "a"}), session()
    with pytest.raises(LogInFailed):
        together(one.header(portal.post))
    assert together(one.header(portal.post)) == "jwt a"


@pytest.mark.parametrize(("status", "check"), [(400, "SITE_PASSWORD"), (404, "SITE_URL")])
def test_an_account_that_is_refused_is_not_tried_again(status: int, check: str) -> None:
    portal, one = Portal(status), session()
    for _ in range(2):
        with pytest.raises(LogInRefused, match=check):
            together(one.header(portal.post))
    assert len(portal.posted) == 1


def test_a_site_with_other_names_needs_a_few_lines() -> None:
    class Other(LogIn):
        def account(self, user: str, password: str) -> dict[str, Any]:
            return {"email": user, "secret": password}

        def token(self, answer: Any) -> Any:
            return answer["data"]["access"]

    portal, one = Portal({"data": {"access": "a"}}), session(Other("/in"))
    assert together(one.header(portal.post)) == "Bearer a"
    assert portal.posted == [("/in", {"email": USER, "secret": PASSWORD})]


def test_a_log_in_whose_url_reads_like_a_detail_waits_for_no_token() -> None:
    settings = get_project_settings()
    settings.setdict(SECRETS, priority="cmdline")
    crawler = Crawler(Login3Spider, settings)
    crawler.spider = Login3Spider.from_crawler(crawler)
    request = Request("https://login3.scrape.center/api/book/1/", meta={"log_in": True})
    together(Authorization(crawler).process_request(request))
    assert "Authorization" not in request.headers


def test_tokens_that_live_for_two_seconds_lose_no_book(database: Database) -> None:
    with running_site(150, latency=0.1) as site:
        site.control(log_in=DOOR | {"seconds": 2})
        ended = crawl(site, database)
        assert_is_complete(ended, database, site)
        tokens = len(site.stats()["door"]["tokens"])
    assert 2 <= tokens <= 1 + ended.stats["elapsed_time_seconds"] / LEAST_LIFE


def test_a_token_that_is_revoked_costs_one_log_in_for_all_in_flight(
    site: Site, database: Database
) -> None:
    with crawling(site.url, spider="login3", **environment(database)) as running:
        with running.midway(site, 20):
            # What was in flight is answered; what follows is refused, but not before all is there.
            site.control(log_in=DOOR, hold={"paths": r"/book/\d"})
            while site.stats()["door"]["unauthorized"] < 5:
                assert running.process.poll() is None
        ended = running.end()
    assert_is_complete(ended, database, site)
    door = site.stats()["door"]
    assert (door["log_ins"], door["renewals"], door["unauthorized"]) == (2, 0, 5)


@pytest.mark.parametrize(
    ("password", "override"),
    [("wrong", {}), (PASSWORD, {"status": 302, "headers": {"Location": "/api/book/"}})],
)
def test_a_refused_log_in_is_one_line_before_anything_is_crawled(
    site: Site, database: Database, password: str, override: dict[str, Any]
) -> None:
    site.control(override={"/api/login": override or None})
    ended = crawl(site, database, SITE_PASSWORD=password)
    assert (ended.exitcode, ended.reason) == (1, "site_unavailable")
    (line,) = ended.lines("ERROR") + ended.lines("WARNING")
    assert REFUSED in line
    assert site.stats()["requests"] == 1
    assert database.stored() == {}


def test_an_account_that_is_closed_in_mid_crawl_ends_it_with_one_line(
    site: Site, database: Database
) -> None:
    with crawling(site.url, spider="login3", **environment(database)) as running:
        with running.midway(site, 20):
            site.control(log_in=DOOR | {"password": "another"})
        ended = running.end()
    assert (ended.exitcode, ended.reason) == (1, "site_unavailable")
    (line,) = ended.lines("ERROR") + ended.lines("WARNING")
    assert REFUSED in line
    assert site.stats()["door"]["log_ins"] == 2
    assert_is_calm(ended)


@pytest.mark.parametrize("missing", ["SITE_USER", "SITE_PASSWORD"])
def test_without_an_account_nothing_is_asked(site: Site, database: Database, missing: str) -> None:
    ended = crawl(site, database, "--loglevel=WARNING", **{missing: ""})
    assert ended.exitcode == 2
    assert ended.log == (
        "scrapy crawl: this site needs a log-in: set SITE_USER and SITE_PASSWORD, see README\n"
    )
    assert (site.stats()["requests"], site.stats()["other"]) == (0, 0)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://spa1.scrape.center/api/movie/1/", "movies"),
        ("https://login3.scrape.center/api/book/1/", "login3"),
    ],
)
def test_a_url_leads_to_its_spider_without_an_account(url: str, name: str) -> None:
    settings = get_project_settings()
    settings.setdict(dict.fromkeys(("SITE_URL", *SECRETS)), priority="cmdline")
    spider = spider_for(settings, url)
    assert spider
    assert spider.name == name


@pytest.mark.parametrize("robots", ["1", "0"])
def test_a_log_in_that_is_down_is_waited_for(site: Site, database: Database, robots: str) -> None:
    site.control(faults={"paths": "/api/login", "kinds": ["503", "close", "html"], "first": 4})
    ended = crawl(site, database, "-s", f"ROBOTSTXT_OBEY={robots}")
    assert_is_complete(ended, database, site)
    assert ended.log.count("is away (LogInFailed: ") <= 1
    assert not ended.lines("ERROR")


def test_a_log_in_that_asks_for_a_pause_is_given_it(site: Site, database: Database) -> None:
    site.control(faults={"paths": "/api/login", "kinds": ["429"], "first": 1, "retry_after": "2"})
    ended = crawl(site, database)
    assert_is_complete(ended, database, site)
    assert "The site asks for a pause: nothing is sent for 2 s" in ended.log


@pytest.mark.parametrize(
    ("kind", "timeout", "reason"),
    [("503", 30, "LogInFailed: status 503"), ("slow", 1, "longer than 1")],
)
def test_a_log_in_that_stays_down_ends_the_crawl(
    site: Site, database: Database, kind: str, timeout: int, reason: str
) -> None:
    site.control(faults={"paths": "/api/login", "kinds": [kind], "share": 1})
    ended = crawl(site, database, "-s", f"DOWNLOAD_TIMEOUT={timeout}", SITE_RETRY_SECONDS="1")
    assert (ended.exitcode, ended.reason) == (1, "site_unavailable")
    (line,) = ended.lines("ERROR")
    assert "stayed away (" in line
    assert reason in line
    assert site.stats()["index"] == 0


def test_a_site_that_is_away_when_a_token_ends_is_waited_for(
    site: Site, database: Database
) -> None:
    with crawling(site.url, spider="login3", **environment(database)) as running:
        with running.midway(site, 20):
            site.control(log_in=DOOR, faults={"paths": "/api", "kinds": ["503"], "share": 1})
        running.wait_for("is away (")
        site.control(faults=None)
        ended = running.end()
    assert (ended.exitcode, ended.reason) == (0, "finished"), ended.log
    assert len(database.stored()) == BOOKS


def test_a_book_that_no_token_opens_is_all_that_is_lost(site: Site, database: Database) -> None:
    shut = site.catalogue.ids[7]
    site.control(override={f"/api/book/{shut}/": {"status": 401}})
    ended = crawl(site, database)
    assert (ended.exitcode, ended.reason) == (1, "incomplete")
    assert set(site.catalogue.ids) - database.stored().keys() == {shut}
    assert site.stats()["door"]["log_ins"] <= 1 + 3 * ended.stats["catalogue/sweeps"]


def test_no_secret_is_kept_or_told(site: Site, database: Database, tmp_path: Path) -> None:
    feed, cache = tmp_path / "items.jsonl", tmp_path / "cache"
    storage = ("-s", "HTTPCACHE_ENABLED=1", "-s", f"HTTPCACHE_DIR={cache}")
    with crawling(
        site.url, "--loglevel=DEBUG", *storage, "-O", str(feed),
        spider="login3", **environment(database),
    ) as running:  # fmt: skip
        with running.midway(site, 20):
            site.control(log_in=DOOR)
        ended = running.end()
    assert_is_complete(ended, database, site)
    kept = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert len(kept) > BOOKS
    told = [ended.log, ended.output, str(ended.stats), str(list(database.books.find()))]
    tokens = site.stats()["door"]["tokens"]
    assert len(tokens) == 2
    for secret in (USER, "horse-battery", *tokens):
        assert not any(secret.encode() in data for data in [*kept, *map(str.encode, told)])


@pytest.mark.parametrize("path", ["/api/login", "/api/book/"])
def test_a_redirect_takes_no_secret_to_another_host(
    site: Site, database: Database, path: str
) -> None:
    with running_site(1) as elsewhere:
        away = {"status": 307, "headers": {"Location": f"{elsewhere.url}{path}"}}
        site.control(override={path: away})
        ended = crawl(site, database, SITE_RETRY_SECONDS="0")
        asked = elsewhere.stats()
    assert ended.reason == "site_unavailable"
    assert (asked["requests"], asked["other"]) == (0, 0)


def test_commands_that_look_log_in_too(site: Site, database: Database) -> None:
    index, first = f"{site.url}/api/book/?limit=1", site.catalogue.ids[0]
    fetched = look(site, database, "fetch", "--nolog", index)
    assert json.loads(fetched.output)["count"] == BOOKS
    assert first in look(site, database, "parse", "--nolog", index).output
    shown = look(site, database, "shell", "--nolog", index, "-c", "response.json()['count']")
    assert shown.output.strip() == str(BOOKS)
    assert look(site, database, "diff", first).exitcode == 1  # it is not stored


def test_a_refused_log_in_is_one_line_of_other_commands_too(site: Site, database: Database) -> None:
    url = f"{site.url}/api/book/?limit=1"
    for command, *args in (["fetch", url], ["shell", url, "-c", "1"], ["diff", "1", "2"]):
        ended = look(site, database, command, *args, SITE_PASSWORD="wrong")
        (line,) = ended.lines("ERROR")
        assert REFUSED in line
        assert "Traceback" not in ended.log


def test_the_doctor_logs_in_and_says_what_is_wrong_with_the_account(
    site: Site, database: Database
) -> None:
    assert f"answers, with {BOOKS} books" in look(site, database, "doctor").output
    for account, said in (({"SITE_PASSWORD": "wrong"}, REFUSED), ({"SITE_USER": ""}, "SITE_USER")):
        ended = look(site, database, "doctor", **account)
        (line,) = [line for line in ended.output.splitlines() if line.startswith("FAIL")]
        assert said in line
        assert (ended.exitcode, ended.log) == (1, "")


@needs_redis
def test_each_worker_of_a_shared_crawl_logs_in(site: Site, database: Database) -> None:
    site.control(latency=0.05)
    with running_redis() as redis, ExitStack() as stack:
        shared = environment(database, REDIS_URL=redis.url, CRAWL_ID="one")
        workers = [
            stack.enter_context(crawling(site.url, spider="login3", **shared)) for _ in range(2)
        ]
        for worker in workers:
            worker.wait_for("Worker of")
        ended = [worker.end() for worker in workers]
    assert [(one.exitcode, one.reason) for one in ended] == [(0, "finished")] * 2
    assert len(database.stored()) == BOOKS
    assert site.stats()["door"]["log_ins"] in (1, 2)


def ask(url: str, data: Any = None, **headers: str) -> tuple[int, Any]:
    """The status and the JSON of an answer."""
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(url, body, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            body = error.read()
            return error.code, json.loads(body) if body.startswith(b"{") else None


def test_the_stand_in_logs_in_as_the_site_does(site: Site) -> None:
    index = f"{site.url}/api/book/?limit=1"
    status, given = ask(f"{site.url}/api/login", ACCOUNT)
    text = given["token"]
    assert status == 200
    assert ask(f"{site.url}/api/login/", ACCOUNT)[0] == 404
    assert ask(f"{site.url}/api/login", ACCOUNT | {"password": "x"})[0] == 400
    for scheme in ("jwt", "JWT"):
        assert ask(index, Authorization=f"{scheme} {text}")[0] == 200
    missing = {"detail": "Authentication credentials were not provided."}
    assert ask(index) == ask(index, Authorization=f"Bearer {text}") == (401, missing)
    broken = {"detail": "Error decoding signature."}
    assert ask(index, Authorization=f"jwt {text[:-4]}AAAA") == (401, broken)
    assert ask(index, Authorization=f"jwt {text.replace('.', '.x', 1)}") == (401, broken)
    status, renewed = ask(f"{site.url}/api/refresh", {"token": text})
    assert status == 200
    assert ask(index, Authorization=f"jwt {renewed['token']}")[0] == 200
    refused = {"non_field_errors": ["Error decoding signature."]}
    assert ask(f"{site.url}/api/refresh", {"token": f"{text}x"}) == (400, refused)
    site.control(log_in=DOOR | {"seconds": -1})
    _, given = ask(f"{site.url}/api/login", ACCOUNT)
    ended = {"detail": "Signature has expired."}
    assert ask(index, Authorization=f"jwt {given['token']}") == (401, ended)
