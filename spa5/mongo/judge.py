"""Judge: the verdict of a crawl. It asks MongoDB which of the listed items are stored now."""

from __future__ import annotations

import logging
from itertools import islice
from typing import TYPE_CHECKING

from spa5.catalogue.listing import DRIFT, Verdict, is_drift, judge
from spa5.mongo.census import delist, fill_rates
from spa5.mongo.crawls import MOST_UNRESOLVED
from spa5.mongo.errors import StoreError
from spa5.mongo.store import MOST_KEYS

if TYPE_CHECKING:
    from spa5.catalogue.spider import CatalogueSpider
    from spa5.catalogue.walk import Walk
    from spa5.mongo.ledger import Ledger
    from spa5.mongo.store import Store

logger = logging.getLogger(__name__)


class Judge:
    """Compares what the site listed in this crawl with what is stored now.

    Where MongoDB can't be asked, it raises `StoreError`.
    """

    def __init__(self, store: Store, ledger: Ledger, spider: CatalogueSpider, drift_share: float):
        self._store = store
        self._ledger = ledger
        self._spider = spider
        self._drift_share = drift_share
        self.others = 0  # stored items that the site does not list
        self.delisted = 0  # those of them that it listed before, and not any more

    async def verdict(self, walks: list[Walk]) -> Verdict:
        """Judge the crawl after the last of these walks."""
        spider, listing = self._spider, self._spider.outcomes.listing
        accepts_drift = spider.arguments.accepts_drift
        listing.end_sweep(believes_gone=accepts_drift)
        held = 0
        for ids in listing.chunks(MOST_KEYS):
            held += listing.check(ids, await self._store.held(ids))
        self.others = await self._store.total() - held
        before = await self._last_complete()
        if listing.drift:
            return Verdict("drift", None, False, listing.drift.removeprefix(DRIFT))
        is_known = spider.arguments.is_whole and not walks[-1].lost_pages
        if is_known and not accepts_drift and is_drift(len(listing), before, self._drift_share):
            line = (
                f"the site lists {len(listing)} {spider.schema.nouns}, the last complete crawl "
                f"found {before}. If that is right, crawl again with -a accept=drift"
            )
            return Verdict("drift", None, False, line)
        return judge(listing, walks, whole=spider.arguments.is_whole, others=self.others)

    async def conclude(self, walks: list[Walk], verdict: Verdict) -> None:
        """Say how the crawl ends, and note what is stored at its end."""
        spider, nouns = self._spider, self._spider.schema.nouns
        if spider.arguments.is_whole and walks[-1].is_miscounted:
            count = "no" if walks[-1].count is None else walks[-1].count
            said = "The site counts %s %s, its index pages list %d"
            logger.warning(said, count, nouns, walks[-1].listed)
        if verdict.reason != "finished":
            again = ". Run the crawl again" if verdict.reason == "incomplete" else ""
            logger.error("%s: %s%s", verdict.reason.capitalize(), verdict.line, again)
        elif verdict.line:
            logger.warning("%s", verdict.line)
        if verdict.reason == "finished" and spider.arguments.is_whole and self.others:
            listing, earlier = spider.outcomes.listing, self._ledger.earlier
            self.delisted = await delist(self._store, listing.__contains__, earlier)
            said = "%d stored %s are not listed by %s, %d of them not any more"
            logger.info(said, self.others, nouns, spider.site, self.delisted)
        await self._note(verdict)

    async def _note(self, verdict: Verdict) -> None:
        listing, ledger = self._spider.outcomes.listing, self._ledger
        ledger.counts = {"listed": len(listing), "vanished": listing.gone}
        ledger.counts |= {"unlisted": self.others, "delisted": self.delisted}
        if verdict.missing is not None:
            ledger.counts["missing"] = verdict.missing
        left = [
            {"id": one, "outcome": outcome, "reason": why[:200]}
            for one, (outcome, why) in islice(listing.unresolved.items(), MOST_UNRESOLVED)
        ]
        ledger.whole = {"unresolved": left}
        ledger.has_verdict = True
        try:
            ledger.whole["fill"] = await fill_rates(self._store)
        except StoreError as error:  # the verdict stands
            logger.warning("How full the fields are is not known: %s", error)

    async def _last_complete(self) -> int | None:
        """Return how many items the last such crawl found; None if there was none."""
        crawls = self._store.crawls
        whole = self._ledger.catalogue | {"whole": {"$ne": False}, "reason": "finished"}
        youngest = [("ended", -1)]
        last = await self._store.persist(lambda: crawls.find_one(whole, sort=youngest)) or {}
        listed = last.get("counts", last).get("listed")  # before there were counts it stood alone
        return listed if isinstance(listed, int) else None
