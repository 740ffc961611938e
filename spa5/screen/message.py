"""Message: what people are told of a crawl that has ended, where they are told anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spa5.catalogue.fields import now
from spa5.catalogue.outcomes import exit_code
from spa5.catalogue.spider import catalogue_of
from spa5.catalogue.text import one_line, plain
from spa5.engine import stats_of
from spa5.mongo.crawls import counts_of
from spa5.pipelines import MongoPipeline
from spa5.screen.crawls import sentence, stands

if TYPE_CHECKING:
    from datetime import datetime

    from scrapy.crawler import Crawler

_MOST_ERRORS = 5


def message_of(crawler: Crawler, reason: str) -> dict[str, Any] | None:
    """Return what Apprise is to send now that a crawl has ended; None where that is nothing."""
    moment = now()
    crawl, before = _figures(crawler, reason, moment), []
    if pipeline := crawler.get_item_pipeline(MongoPipeline):
        for one in pipeline.ledger.recent:  # [] where MongoDB is away
            if one["_id"] == pipeline.store.crawl():
                crawl |= one
            else:
                before.append(one)
    return message_about(crawl, before, moment)


def message_about(
    crawl: dict[str, Any], before: list[dict[str, Any]], moment: datetime
) -> dict[str, Any] | None:
    """The same, given the crawl's document and those of the crawls before it, newest first."""
    stand = stands(crawl, moment)
    others = (stands(one, moment) for one in before if one.get("site") == crawl["site"])
    stood = next((one for one in others if one is not None), None)
    if stand is None or (stand and stood is not False):
        return None
    lines = [sentence(one, moment) for one in (crawl, *before)]
    errors = [] if stand else crawl.get("errors") or []
    said = [f"- {one_line(error['said'])}" for error in errors[:_MOST_ERRORS]]
    lines += ["", *said] if said else []
    return {
        "title": plain(f"{crawl['spider']}: {'complete again' if stand else _trouble(crawl)}"),
        "body": plain("\n".join(lines)),
        "notify_type": "success" if stand else "failure",
        "body_format": "text",
    }


def _trouble(crawl: dict[str, Any]) -> str:
    counts = crawl["counts"]
    reason = "incomplete" if crawl["reason"] == "finished" else str(crawl["reason"])
    if not (missing := counts.get("missing")):
        return reason
    total = f" of {counts['expected']}" if counts.get("expected") else ""
    return f"{reason}, {missing}{total} missing"


def _figures(crawler: Crawler, reason: str, moment: datetime) -> dict[str, Any]:
    """Return what this process knows of the crawl, in the shape of the ledger's documents."""
    stats = stats_of(crawler)
    spider = catalogue_of(crawler)
    said = [str(stats[name]) for name in stats if name.endswith("/unavailable")]
    return {
        "spider": crawler.spidercls.name,
        "site": spider and spider.site,
        "whole": spider is None or spider.arguments.is_whole,
        "began": stats.get("start_time"),
        "ended": moment,
        "reason": reason,
        "exit_code": exit_code(reason, stats),
        "counts": counts_of(stats),
        "errors": [{"said": text} for text in said],
    }
