"""The walk, the listing and the verdict, asked without a crawl: against a model of the truth."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spa5.catalogue.listing import DONE, FAILED, GONE, INVALID, Listing, Verdict, is_drift, judge
from spa5.catalogue.walk import Page, Walk

MOST_PAGES = 200  # that a walk of these small catalogues may ask for


@dataclass
class Model:
    """A site that is asked, and what is true of it."""

    ids: list[str]
    count: int | None = None  # None: the true one
    lost: set[int] = field(default_factory=set)  # indices of requests for pages that fail
    empty: set[int] = field(default_factory=set)  # likewise, of pages that come empty
    gone: set[str] = field(default_factory=set)  # details that are 404
    broken: set[str] = field(default_factory=set)  # details that fail for good
    flaky: dict[str, int] = field(default_factory=dict)  # details that fail so many times
    wobble: int = 0  # seed of an order in which neighbours are swapped anew for each request
    stored: set[str] = field(default_factory=set)
    asked: int = 0  # pages

    def page(self, page: Page) -> list[str] | None:
        number, self.asked = self.asked, self.asked + 1
        if number in self.lost:
            return None
        if number in self.empty:
            return []
        ids = list(self.ids)
        if self.wobble:
            random = Random(self.wobble + number)
            for left in range(0, len(ids) - 1, 2):
                if random.random() < 0.5:
                    ids[left : left + 2] = ids[left + 1], ids[left]
        return ids[page.offset : page.offset + page.limit]

    def told_count(self) -> int:
        return len(self.ids) if self.count is None else self.count

    def detail(self, one: str) -> str:
        if one in self.gone:
            return GONE
        if one in self.broken or self.flaky.get(one, 0) > 0:
            self.flaky[one] = self.flaky.get(one, 0) - 1
            return FAILED
        self.stored.add(one)
        return DONE


def walk_through(site: Model, walk: Walk, listing: Listing) -> None:
    """As the spider does, one page after the other."""
    waiting: list[Page] = []
    while not walk.is_over or walk.open:
        if page := walk.next_page():
            waiting.append(page)
            continue
        page = waiting.pop(0)
        ids = site.page(page)
        if ids is None:
            walk.lose(page)
        else:
            if rest := walk.answered(page, ids, site.told_count()):
                waiting.append(rest)
            for one in listing.meet(ids):
                if one in site.stored and one not in site.broken:
                    listing.settle(one, DONE)
                else:
                    listing.settle(one, site.detail(str(one)), "why")
        assert walk.asked <= MOST_PAGES


def crawl(site: Model, page_size: int = 10, sweeps: int = 3) -> tuple[Verdict, int]:
    """Sweep as a crawl does; the verdict and the number of sweeps."""
    listing, walks = Listing(), list[Walk]()
    for sweep in range(1, sweeps + 1):
        listing.begin_sweep()
        more = 0 if walks and walks[-1].lost_pages else sweep - 1
        walks.append(Walk(page_size + more))
        walk_through(site, walks[-1], listing)
        listing.end_sweep()
        held = sum(listing.check(ids, set(ids) & site.stored) for ids in listing.chunks(7))
        verdict = judge(listing, walks, whole=True, others=len(site.stored) - held)
        if not verdict.may_find_more:
            break
    return verdict, sweep


def ids(least: int = 0) -> st.SearchStrategy[list[str]]:
    return st.lists(st.integers(1000, 9999).map(str), min_size=least, max_size=60, unique=True)


requests = st.sets(st.integers(0, 12), max_size=5)


@given(data=st.data(), site_ids=ids())
def test_finished_means_that_all_is_stored_or_gone_and_a_still_site_is_never_incomplete(
    data: st.DataObject, site_ids: list[str]
) -> None:
    some = st.sets(st.sampled_from(site_ids or ["0"]), max_size=8)
    site = Model(
        ids=site_ids,
        lost=data.draw(requests),
        empty=data.draw(requests),
        gone=data.draw(some),
        broken=data.draw(some),
        flaky=dict.fromkeys(data.draw(some), data.draw(st.integers(1, 2))),
        stored=data.draw(some),
    )
    verdict, _ = crawl(site, page_size=data.draw(st.integers(1, 25)))
    left = set(site_ids) - site.stored - site.gone
    if verdict.reason == "finished":
        assert not left
        assert not site.broken & (set(site_ids) - site.gone)
    if verdict.missing is not None:
        assert verdict.missing >= len(left)
    site.lost, site.empty, site.broken, site.flaky = set(), set(), set(), {}
    again, sweeps = crawl(site)
    assert (again.reason, again.missing, sweeps) == ("finished", 0, 1)
    assert site.stored | site.gone >= set(site_ids)


@given(site_ids=ids(), lie=st.integers(0, 100), page_size=st.integers(1, 25))
def test_a_count_that_is_too_great_is_incomplete_and_one_too_small_is_not_believed(
    site_ids: list[str], lie: int, page_size: int
) -> None:
    site = Model(site_ids, count=lie)
    verdict, _ = crawl(site, page_size)
    assert site.stored == set(site_ids)
    if lie <= len(site_ids):
        assert (verdict.reason, verdict.missing) == ("finished", 0)
    else:
        assert verdict.reason == "incomplete"
        assert verdict.missing == lie - len(site_ids)


@given(site_ids=ids(least=30), page_size=st.integers(1, 25), data=st.data())
def test_a_site_that_repeats_entries_is_complete_when_two_walks_met_the_same(
    site_ids: list[str], page_size: int, data: st.DataObject
) -> None:
    """There are more of them than on a page: one page again and again proves nothing."""
    repeated = data.draw(st.lists(st.sampled_from(site_ids), max_size=6))
    listed = data.draw(st.permutations(site_ids + repeated))
    site = Model(listed)
    verdict, sweeps = crawl(site, page_size)
    assert (verdict.reason, verdict.missing) == ("finished", 0)
    assert sweeps == (2 if repeated else 1)
    assert ("it repeats some" in verdict.line) is bool(repeated)
    assert site.stored == set(site_ids)


@given(site_ids=ids(), page_size=st.integers(2, 25), seed=st.integers(1, 1000))
def test_an_order_that_changes_with_each_request_never_ends_finished_with_an_item_missing(
    site_ids: list[str], page_size: int, seed: int
) -> None:
    site = Model(site_ids, wobble=seed)
    verdict, _ = crawl(site, page_size, sweeps=6)
    if verdict.reason == "finished":
        assert site.stored == set(site_ids)


def test_two_orders_in_turns_are_found_out_by_pages_of_another_size() -> None:
    class Turns(Model):
        def page(self, page: Page) -> list[str]:
            self.asked += 1
            order = ["4", "3", "2", "1"] if self.asked % 2 else ["4", "2", "3", "1"]
            return order[page.offset : page.offset + page.limit]

    site = Turns(["1", "2", "3", "4"])
    verdict, _ = crawl(site, page_size=2)
    assert verdict.reason == "finished"
    assert site.stored == {"1", "2", "3", "4"}


def test_a_page_that_stays_empty_or_lost_does_not_hide_what_lies_behind_it() -> None:
    site_ids = [str(1000 + n) for n in range(200)]

    class Hole(Model):
        def page(self, page: Page) -> list[str] | None:
            hidden: list[str] | None = [] if self.count is None else None
            return hidden if page.offset == 40 else super().page(page)

    for count in (None, 200):
        site = Hole(site_ids, count=count)
        verdict, sweeps = crawl(site)
        assert (verdict.reason, sweeps, len(site.stored)) == ("incomplete", 3, 190)
        assert "index page" in verdict.line


def test_what_is_not_known_is_not_told() -> None:
    """A page is lost: whether its entries are stored is known only if nothing else is stored."""
    site_ids = [str(1000 + n) for n in range(60)]
    first = Model(site_ids, lost=set(range(2, 99, 3)))
    assert crawl(first, page_size=20, sweeps=1)[0].missing == 20
    second = Model(site_ids, lost=set(range(2, 99, 3)), stored=set(site_ids))
    assert crawl(second, page_size=20, sweeps=1)[0].missing is None


@pytest.mark.parametrize(("gone", "believed"), [(9, True), (10, True), (11, False), (60, False)])
def test_many_gone_at_once_are_not_believed(gone: int, believed: bool) -> None:
    site_ids = [str(1000 + n) for n in range(200)]
    site = Model(site_ids, gone=set(site_ids[:gone]))
    verdict, sweeps = crawl(site)
    assert (verdict.reason == "finished") is believed
    assert verdict.missing == (0 if believed else gone)
    assert sweeps == (1 if believed else 2)


def test_those_gone_by_mistake_are_asked_for_again_in_the_next_sweep() -> None:
    site_ids = [str(1000 + n) for n in range(100)]
    site = Model(site_ids, gone=set(site_ids[:50]))

    class Once(Model):
        def detail(self, one: str) -> str:
            outcome = super().detail(one)
            self.gone.discard(one)
            return outcome

    site = Once(site_ids, gone=set(site_ids[:50]))
    verdict, sweeps = crawl(site)
    assert (verdict.reason, sweeps, len(site.stored)) == ("finished", 2, 100)


def test_what_is_unusable_each_time_is_not_asked_for_again() -> None:
    listing, walk = Listing(), Walk(10)
    page = walk.next_page()
    assert page
    walk.answered(page, listing.meet(["1", "2", "3"]), 3)
    listing.settle("1", DONE)
    listing.settle("2", INVALID, "it answers with book 9")
    listing.settle("3", DONE)
    listing.check(["1", "2", "3"], {"1", "3"})
    verdict = judge(listing, [walk], whole=True, others=0)
    assert verdict == ("incomplete", 1, False, "1 unresolved (it answers with book 9: 2)")


@pytest.mark.parametrize(
    ("listed", "before", "drift"),
    [
        (0, None, False),
        (0, 60, True),
        (6, 60, True),
        (29, 60, True),
        (30, 60, False),
        (0, 0, False),
    ],
)
def test_a_catalogue_that_shrank_by_more_than_the_share_is_drift(
    listed: int, before: int | None, drift: bool
) -> None:
    assert is_drift(listed, before, 0.5) is drift


def test_an_id_keeps_its_text() -> None:
    listing = Listing()
    odd = ["7", "07", "007", "0", "00", "12345678901234567890", "SKU-7"]
    assert listing.meet([*odd, *odd]) == odd
    assert [*listing.chunks(3)] == [odd[:3], odd[3:6], odd[6:]]


@pytest.mark.parametrize("books", [180_000, 360_000, 690_000])
def test_an_id_takes_at_most_100_bytes(books: int) -> None:
    tracemalloc.start()
    try:
        listing = Listing()
        for start in range(0, books, 100):
            page = [str(10_000_000 + number) for number in range(start, start + 100)]
            for one in listing.meet(page):
                listing.settle(one, DONE)
        size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert size / books <= 100
