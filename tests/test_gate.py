"""When is it the site as a whole that is away? Asked without a crawl, on a clock of its own."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from spa5.catalogue.gate import Fault, Gate, Kind, SiteAway, Streak, Surroundings

if TYPE_CHECKING:
    from collections.abc import Coroutine

SITE = "http://x"
INDEX = f"{SITE}/api/book/?limit=1&offset=0"
CONNECTION, ANSWER, REFUSAL, MOVED = Kind


def used(streak: Streak) -> Streak:
    streak.good("good")
    return streak


def test_five_failures_of_three_urls_are_suspicious() -> None:
    streak = used(Streak())
    suspicions = [streak.bad(url, ANSWER) for url in "abcab"]
    assert suspicions == [False, False, False, False, True]


def test_a_good_answer_in_between_ends_the_suspicion() -> None:
    streak = used(Streak())
    for _ in range(20):
        assert not any(streak.bad(url, ANSWER) for url in "abcd")
        streak.good("good")


def test_one_book_and_one_page_that_always_fail_are_not_suspicious() -> None:
    streak = used(Streak())
    assert not any(streak.bad(url, ANSWER) for url in "abababababab")


def test_failures_of_the_connection_need_no_other_urls() -> None:
    streak = used(Streak())
    assert [streak.bad("a", CONNECTION) for _ in range(5)][3:] == [False, True]


def test_a_false_alarm_doubles_what_the_next_one_needs_until_answers_are_good_again() -> None:
    streak = used(Streak())
    for needed in (5, 10, 20):
        failures = [streak.bad(url, ANSWER) for url in "abcde" * 4]
        assert failures.index(True) == needed - 1
        streak = used(Streak())
        streak.failures = needed
        streak.was_wrong()
    for _ in range(100):
        streak.good("good")
    assert [streak.bad(url, ANSWER) for url in "abcde"][-1]


@pytest.mark.parametrize(
    ("kind", "needed"), [(CONNECTION, 1), (ANSWER, 5), (REFUSAL, 1), (MOVED, 1)]
)
def test_a_site_that_gave_no_good_answer_yet_needs_less(kind: Kind, needed: int) -> None:
    streak = Streak()
    assert [streak.bad("a", kind) for _ in range(needed)] == [False] * (needed - 1) + [True]


class Crawl:
    """A crawl whose site is down until `up_at`, by a clock that only waiting moves."""

    def __init__(self, up_at: float = 1e9, patience: float = 300, kind: Kind = CONNECTION) -> None:
        self.now = 0.0
        self.up_at = up_at
        self.fault = Fault(kind, OSError("refused"))
        self.probes: list[tuple[float, str]] = []
        self.counts: dict[str, float] = {}
        self.said: list[str] = []
        self.ends_at = 1e9
        surroundings = Surroundings(
            site=SITE,
            first_url=INDEX,
            probe=self.probe,
            rest=self.rest,
            is_ending=lambda: self.now >= self.ends_at,
            give_up=self.said.append,
            count=self.counts.__setitem__,
            clock=lambda: self.now,
        )
        self.gate = Gate(surroundings, patience)

    async def probe(self, url: str, seconds: float) -> Fault | None:
        self.probes.append((self.now, url))
        return None if self.now >= self.up_at else self.fault

    async def rest(self, seconds: float) -> None:
        self.now = min(self.now + seconds, max(self.now, self.ends_at))
        await asyncio.sleep(0)

    async def fail(self, urls: str) -> list[bool]:
        return [await self.gate.failed(url, self.fault) for url in urls]


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def test_single_failures_pass_the_gate() -> None:
    crawl = Crawl(kind=ANSWER)
    crawl.gate.streak.good("good")
    assert run(crawl.fail("abcd")) == [False] * 4
    assert crawl.probes == []
    run(crawl.gate.enter())


def test_where_the_site_answers_after_all_nothing_was_away(caplog: Any) -> None:
    crawl = Crawl(up_at=0, kind=ANSWER)
    crawl.gate.streak.good("good")
    assert run(crawl.fail("abcde")) == [False] * 5
    assert crawl.probes == [(0, "good")]
    assert (crawl.counts, caplog.records) == ({}, [])


def test_while_it_is_away_one_url_is_asked_ever_less_and_then_all_goes_on(caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    crawl = Crawl(up_at=100)
    crawl.gate.streak.good("good")

    async def scene() -> None:
        await crawl.fail("abcd")
        failed = [asyncio.ensure_future(crawl.gate.failed(url, crawl.fault)) for url in "efg"]
        await asyncio.sleep(0)
        entering = [asyncio.ensure_future(crawl.gate.enter()) for _ in range(9)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in entering)
        assert await asyncio.gather(*failed) == [True] * 3
        await asyncio.gather(*entering)

    run(scene())
    times = [time for time, _ in crawl.probes]
    assert times == [0, 0.25, 0.75, 1.75, 3.75, 7.75, 15.75, 31.75, 61.75, 91.75, 121.75]
    assert {url for _, url in crawl.probes} == {"good"}
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "is away (OSError: refused)" in caplog.messages[0]
    assert crawl.counts == {"site/outage_seconds": 121.75}


def test_past_the_limit_the_crawl_ends_with_one_line_and_nothing_waits_on() -> None:
    crawl = Crawl(patience=20)
    crawl.gate.streak.good("good")

    async def scene() -> None:
        await crawl.fail("abcd")
        entering = asyncio.ensure_future(crawl.gate.enter())
        waiting = [crawl.gate.failed("e", crawl.fault), crawl.gate.failed("f", crawl.fault)]
        assert {type(one) for one in await asyncio.gather(*waiting, return_exceptions=True)} == {
            SiteAway
        }
        await asyncio.wait([entering])
        for late in (crawl.gate.enter(), crawl.gate.failed("g", crawl.fault)):
            with pytest.raises(SiteAway):
                await late

    run(scene())
    assert crawl.now == 20
    (said,) = crawl.said
    assert "SITE_URL" in said
    assert "scrapy doctor" in said


@pytest.mark.parametrize(("patience", "ends"), [(300, 10), (2, 2), (0, 0)])
def test_a_site_that_never_answered_is_away_at_once_and_given_ten_seconds(
    patience: float, ends: float, caplog: Any
) -> None:
    crawl = Crawl(patience=patience)
    with pytest.raises(SiteAway):
        run(crawl.fail("a"))
    assert crawl.now == ends
    assert {url for _, url in crawl.probes} == {INDEX}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert len(crawl.said) == 1


def test_a_site_that_moved_before_the_crawl_is_not_waited_for(caplog: Any) -> None:
    crawl = Crawl(kind=MOVED)
    with pytest.raises(SiteAway):
        run(crawl.fail("a"))
    assert (crawl.now, caplog.records) == (0, [])
    assert "set SITE_URL" in crawl.said[0]


def test_a_site_that_refuses_is_asked_ever_less_and_then_left_alone(caplog: Any) -> None:
    crawl = Crawl(kind=REFUSAL)
    crawl.gate.streak.good("good")
    with pytest.raises(SiteAway):
        run(crawl.fail("abcde"))
    assert crawl.now == 300
    assert len(crawl.probes) < 20
    assert "refuses all requests" in caplog.messages[0]
    assert "ask whoever runs it" in crawl.said[0]


def test_a_signal_ends_the_waiting() -> None:
    crawl = Crawl()
    crawl.gate.streak.good("good")
    crawl.ends_at = 5
    with pytest.raises(SiteAway):
        run(crawl.fail("abcde"))
    assert (crawl.now, crawl.said) == (5, [])
