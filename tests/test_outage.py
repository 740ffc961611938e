"""An outage is said once, counted once, and given up after a limit: on a clock of its own."""

from __future__ import annotations

import logging

import pytest

from spa5.catalogue.outage import Outage


class Watched:
    """An outage on a clock that the test sets, and what it counted."""

    def __init__(self, steady_seconds: float = 0.0) -> None:
        self.now = 0.0
        self.counted: list[tuple[str, float]] = []
        self.outage = Outage(
            "It",
            "it",
            300,
            lambda stat, by: self.counted.append((stat, by)),
            steady_seconds=steady_seconds,
            clock=lambda: self.now,
        )

    def fail(self, *moments: float) -> None:
        for self.now in moments:
            self.outage.failed("It is away")

    def work(self, *moments: float) -> None:
        for self.now in moments:
            self.outage.worked()


@pytest.fixture(autouse=True)
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def test_an_outage_is_said_once_and_so_is_its_end(said: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    watched.fail(10, 11, 12)
    assert watched.outage.is_on
    watched.work(20.25, 21)
    assert not watched.outage.is_on
    assert said.messages == ["It is away, 300 s at the most", "It is back after 10.2 s"]
    assert watched.counted == [("it/outage_seconds", 10.25)]


def test_each_outage_is_said_and_has_the_whole_limit(said: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    watched.fail(0, 200)
    assert watched.outage.left == 100
    watched.work(250)
    assert watched.outage.left == 300
    watched.fail(400)
    assert len(said.messages) == 3


def test_what_comes_and_goes_is_one_outage_until_it_works_steadily(
    said: pytest.LogCaptureFixture,
) -> None:
    watched = Watched(steady_seconds=5)
    for start in range(0, 100, 10):
        watched.fail(start)
        watched.work(start + 2, start + 6)
        assert not watched.outage.is_on
    assert watched.outage.left == 300 - 92
    assert len(said.messages) == 1
    watched.work(97)
    assert said.messages[1:] == ["It is back after 92.0 s"]
    assert watched.counted == [("it/outage_seconds", 92)]


def test_an_end_is_said_early_only_of_what_works_again(said: pytest.LogCaptureFixture) -> None:
    watched = Watched(steady_seconds=5)
    watched.fail(0)
    watched.outage.end()
    assert len(said.messages) == 1
    watched.work(1)
    watched.outage.end()
    watched.outage.end()
    assert len(said.messages) == 2


def test_an_outage_that_is_given_up_is_counted_once(said: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    watched.fail(0, 300)
    assert watched.outage.left == 0
    watched.outage.give_up()
    watched.work(301)
    assert watched.counted == [("it/outage_seconds", 300)]
    assert len(said.messages) == 1


def test_what_only_may_be_an_outage_is_not_said(said: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    watched.outage.begin()
    watched.now = 100
    assert watched.outage.left == 200
    assert said.messages == []
