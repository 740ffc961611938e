"""An answer must earn the right to overwrite: no hiccup of the site costs a stored value."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spa5.catalogue.drift import MOST_EMPTIED, Drift, Drifted
from tests.helpers.endings import answer, assert_is_finished, assert_is_incomplete
from tests.standin.site import RunningSite as Site
from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.crawls import Ended
    from tests.helpers.databases import Database

BOOKS = 60


@pytest.fixture
def site() -> Iterator[Site]:
    with running_site(BOOKS) as site:
        yield site


def fields(database: Database, name: str) -> dict[str, Any]:
    return {one: book[name] for one, book in database.stored().items()}


def test_bare_answers_blank_no_book(site: Site, database: Database) -> None:
    assert_is_finished(database.crawl(site.url))
    before = fields(database, "authors"), fields(database, "name"), fields(database, "comments")
    for one in site.catalogue.ids[:30]:
        answer(site, [one], {"id": one, "detail": "Internal error, try later"})
    for one in site.catalogue.ids[30:]:
        answer(site, [one], {"id": one})
    crawl = database.crawl(
        site.url, "-a", "refresh=all", "-s", "RETRY_TIMES=0", MAX_SWEEPS="1", SITE_RETRY_SECONDS="1"
    )
    assert crawl.exitcode == 1
    after = fields(database, "authors"), fields(database, "name"), fields(database, "comments")
    assert after == before


def test_one_bare_answer_is_asked_for_again_and_at_last_failed(
    site: Site, database: Database
) -> None:
    one = site.catalogue.ids[3]
    answer(site, [one], {"id": one})
    crawl = database.crawl(site.url, "-s", "RETRY_TIMES=1", MAX_SWEEPS="1")
    assert_is_incomplete(crawl, missing=1)
    assert crawl.stats["retry/count"] == 1
    assert one not in database.stored()


@pytest.mark.parametrize(
    ("how", "field"), [({"rename": {"score": "rating"}}, "score"), ({"blank": ["name"]}, "name")]
)
@pytest.mark.parametrize("refresh", ["changed", "all"])
def test_a_field_that_the_site_empties_for_everybody_stops_the_crawl(
    site: Site, database: Database, how: dict[str, Any], field: str, refresh: str
) -> None:
    assert_is_finished(database.crawl(site.url))
    before = fields(database, field)
    site.control(**how)
    crawl = database.crawl(site.url, "-a", f"refresh={refresh}")
    assert (crawl.exitcode, crawl.reason) == (1, "drift"), crawl.log
    (line,) = crawl.lines("ERROR")
    assert field in line
    assert "-a accept=drift" in line
    assert "catalogue/missing" not in crawl.stats
    after = fields(database, field)
    assert sum(after[one] != before[one] for one in before) <= MOST_EMPTIED
    accepted = database.crawl(site.url, "-a", "accept=drift", "-a", "refresh=all")
    assert (accepted.exitcode, accepted.reason) == (0, "finished"), accepted.log
    assert set(fields(database, field).values()) == {None}


def test_a_first_crawl_of_empty_fields_is_no_drift(site: Site, database: Database) -> None:
    site.control(blank=["name", "score"])
    assert_is_finished(database.crawl(site.url))


@pytest.mark.parametrize("count", [0, 5, 25])
def test_a_catalogue_that_shrank_is_drift_until_a_person_accepts_it(
    site: Site, database: Database, count: int
) -> None:
    assert_is_finished(database.crawl(site.url))
    site.control(remove=site.catalogue.ids[count:])
    crawl = database.crawl(site.url)
    assert (crawl.exitcode, crawl.reason) == (1, "drift"), crawl.log
    assert f"the site lists {count} books, the last complete crawl found 60" in crawl.log
    assert len(database.stored()) == BOOKS
    assert_is_finished(database.crawl(site.url, "-a", "accept=drift"))
    assert_is_finished(database.crawl(site.url))


def test_a_catalogue_that_shrank_a_little_is_no_drift(site: Site, database: Database) -> None:
    assert_is_finished(database.crawl(site.url))
    site.control(remove=site.catalogue.ids[40:])
    assert_is_finished(database.crawl(site.url))


def test_many_books_gone_at_once_are_not_believed(site: Site, database: Database) -> None:
    assert_is_finished(database.crawl(site.url))
    answer(site, site.catalogue.ids[:20], {"detail": "Not found."}, status=404)
    crawl = database.crawl(site.url, "-a", "refresh=all")
    assert_is_incomplete(crawl, missing=20)
    assert crawl.stats["catalogue/sweeps"] == 2
    assert len(database.stored()) == BOOKS
    accepted = database.crawl(site.url, "-a", "refresh=all", "-a", "accept=drift")
    assert (accepted.exitcode, accepted.stats["catalogue/vanished"]) == (0, 20)
    assert len(database.stored()) == BOOKS


def drift_of(share: float, *, accepted: bool = False) -> Drift:
    """The judge of a crawl with one worker."""
    emptied: Counter[str] = Counter()

    async def count(field: str) -> int:
        emptied[field] += 1
        return emptied[field]

    return Drift(share, count, accepted=accepted)


def crawl_of(updates: list[bool], drift: Drift) -> tuple[int, bool]:
    """Update once for each, True if that empties `score`; how many lost it, and whether it ended.

    What is held back is tried again in a second sweep, as a crawl does.
    """
    return asyncio.run(_crawl_of(updates, drift))


async def _crawl_of(updates: list[bool], drift: Drift) -> tuple[int, bool]:
    lost = 0
    for _ in range(2):
        held: list[bool] = []
        for number, empties in enumerate(updates):
            try:
                field = await drift.admit(str(number), ["score"] if empties else [])
            except Drifted:
                return lost, True
            lost += empties and not field
            held += [True] * bool(field)
        drift.end_sweep()
        updates = held
    return lost, False


@given(st.lists(st.booleans(), max_size=300), st.sampled_from([0.1, 0.5, 0.9]))
def test_whatever_the_order_no_more_than_twenty_lose_a_field_before_it_is_drift(
    updates: list[bool], share: float
) -> None:
    lost, ended = crawl_of(updates, drift_of(share))
    if ended:
        assert lost <= MOST_EMPTIED
    elif len(updates) >= 20 and sum(updates) <= share * len(updates):
        assert lost == sum(updates)


def test_a_drift_that_begins_in_mid_crawl_is_stopped_too() -> None:
    updates = [False] * 1000 + [True] * 1100
    assert crawl_of(updates, drift_of(0.5)) == (MOST_EMPTIED, True)


def test_a_handful_of_honest_changes_is_not_hindered() -> None:
    assert crawl_of([True] * 19, drift_of(0.5)) == (19, False)
    assert crawl_of([True] * 300, drift_of(0.5, accepted=True)) == (300, False)


def test_a_field_that_comes_back_under_its_name_is_no_drift(site: Site, database: Database) -> None:
    database.crawl(site.url)
    site.control(rename={"score": "rating"})
    database.crawl(site.url, "-a", "refresh=all")
    database.crawl(site.url, "-a", "refresh=all", "-a", "accept=drift")
    assert database.books.count_documents({"extra.rating": {"$exists": True}}) == BOOKS
    site.control(rename={})
    assert_is_finished(database.crawl(site.url, "-a", "refresh=all"))
    assert database.books.count_documents({"extra.rating": {"$exists": True}}) == 0


def test_a_wrong_argument_for_accept_is_one_line(site: Site, database: Database) -> None:
    crawl: Ended = database.crawl(site.url, "-a", "accept=everything")
    assert crawl.exitcode == 2
    assert "there is only accept=drift" in crawl.log
    assert json.dumps(crawl.stats) == "{}"
