"""Walk: which index page comes next, and what a walk through the catalogue met. No network."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spa5.catalogue.item import Key

# A walk ends when so many index pages held the same entries as others before them.
MOST_RECURRED = 50
# A count is no longer believed when so many pages in a row are empty (or as many as held entries).
LEAST_EMPTY = 5


class Page(NamedTuple):
    """An index page that was asked for: at most `limit` entries from `offset` on."""

    offset: int
    limit: int

    @property
    def number(self) -> int:
        """The page's number, from 1 on; ValueError where no page of this size begins there."""
        if self.offset % self.limit:
            raise ValueError(f"no page of {self.limit} begins at {self.offset}")
        return self.offset // self.limit + 1


class Walk:
    """One walk through the index pages, from offset 0 to the end.

    The next offset follows from what a page held. The first page shows whether the site caps its
    pages; what a later page is short of is asked for again at once. The end is the site's count,
    if the last page is not full or the next one is empty. A count that is unusable, or less than
    what the pages hold, is not believed: then each page leads to the next until two in a row hold
    nothing. A page that is empty or lost in the middle does not end the walk.
    """

    def __init__(self, page_size: int, most_pages: int | None = None):
        self.step = page_size  # entries a page; fewer where the site caps its pages
        self.most_pages = most_pages
        self.offset = 0  # of the next page
        self.asked = 0  # pages
        self.open = 0  # pages that are asked for and not yet answered
        self.count: int | None = None  # the greatest that the site told
        self.listed = 0  # entries, repeated ones included
        self.unusable = 0  # entries without a usable id
        self.recurred = 0  # pages, as may happen while the catalogue shifts; but not for ever
        self.fingerprint = 0  # of all pairs of offset and id
        self.ended_at: float = 1
        self.is_abandoned = False  # another worker walks now, or the crawl has ended
        self._reach = 0  # where the furthest page that held entries ended
        self._is_full = False  # that page held as many as it was asked for: more may follow
        self._held_pages = 0
        self._empty: list[int] = []  # offsets
        self._lost: list[int] = []  # offsets
        self._hopeless = 0  # lost pages that it makes no sense to ask for again
        self._seen: set[int] = set()  # hashes of the pages' ids

    def next_page(self) -> Page | None:
        """The page to ask for next; None where there is none, or not before an answer."""
        if self.is_over or (self._trailing(self._empty) and self.open):
            return None
        page = Page(self.offset, self.step)
        self.offset += self.step
        return self._ask(page)

    @property
    def is_over(self) -> bool:
        """True if no further page is to be asked for, as far as the answers tell by now."""
        return self.asked == self.most_pages or self.offset >= self.ended_at

    def answered(self, page: Page, ids: Sequence[Key | None], count: int | None) -> Page | None:
        """Note what a page held, None standing for an entry without a usable id.

        Return the page to ask for at once where this one was cut short.
        """
        self.open -= 1
        if count is not None:
            self.count = max(count, self.count or 0)
        if ids:
            self._note(page, ids)
        else:
            self._empty.append(page.offset)
        self.ended_at = self._find_end()
        return self._rest(page, len(ids))

    def lose(self, page: Page, *, hopeless: bool = False) -> None:
        """Note that a page could not be had."""
        self.open -= 1
        self._lost.append(page.offset)
        self._hopeless += hopeless
        self.ended_at = self._find_end()

    @property
    def lost_pages(self) -> int:
        """Pages that failed, or that were empty where the catalogue goes on."""
        return len(self._lost) + sum(offset < self._reach for offset in self._empty)

    @property
    def is_miscounted(self) -> bool:
        """True if the pages list another number of entries than the site counts; none was lost."""
        return not self.lost_pages and self.count != self.listed

    @property
    def may_find_more(self) -> bool:
        """True if another walk may be given a page that this one lost."""
        return self.lost_pages > self._hopeless

    @property
    def _believes_count(self) -> bool:
        few = len(self._trailing(self._empty)) < max(LEAST_EMPTY, self._held_pages)
        return self.count is not None and self.count >= self._reach and few

    def _note(self, page: Page, ids: Sequence[Key | None]) -> None:
        self._held_pages += 1
        if (after := page.offset + len(ids)) > self._reach:
            self._reach = after
            self._is_full = len(ids) >= min(page.limit, self.step)
        self.listed += len(ids)
        self.unusable += sum(one is None for one in ids)
        # A sum, for pages are answered in any order.
        self.fingerprint += sum(hash(pair) for pair in enumerate(ids, page.offset))
        seen = hash(tuple(ids))
        self.recurred += seen in self._seen
        self._seen.add(seen)

    def _find_end(self) -> float:
        """The offset at which the catalogue ends, as far as it is known."""
        if self.recurred > MOST_RECURRED or (self.count or 0) > self._reach:
            return float(self.count or 0) if self._believes_count else self._reach
        if self.count is None and not self._held_pages:
            return 1  # nothing is known
        missed = len(self._trailing(self._empty)) + len(self._trailing(self._lost))
        agreed = self.count == self._reach and (missed or not self._is_full)
        return self._reach if agreed or missed >= 2 else self._reach + missed * self.step + 1

    def _trailing(self, offsets: list[int]) -> list[int]:
        return [offset for offset in offsets if offset >= self._reach]

    def _rest(self, page: Page, held: int) -> Page | None:
        after = page.offset + held
        if not held or held >= page.limit or after >= self.ended_at:
            return None
        if page.offset == 0:
            self.offset = self.step = held
            self._is_full = True
            return None
        if self.asked == self.most_pages:
            return None
        return self._ask(Page(after, page.limit - held))

    def _ask(self, page: Page) -> Page:
        self.asked += 1
        self.open += 1
        return page


def same_entries(walk: Walk, others: Sequence[Walk]) -> bool:
    """True if another walk met the same entries at the same offsets, both without a gap."""
    return not walk.lost_pages and any(
        other.fingerprint == walk.fingerprint and not other.lost_pages for other in others
    )
