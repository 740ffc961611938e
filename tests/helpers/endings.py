"""How a crawl may end, and what makes it end so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.helpers.crawls import Ended
    from tests.standin.site import RunningSite as Site


def answer(site: Site, ids: list[str], body: Any, status: int = 200) -> None:
    said = {"body": json.dumps(body), "status": status}
    site.control(override={f"/api/book/{one}/": said for one in ids})


def assert_is_incomplete(crawl: Ended, missing: int) -> None:
    assert (crawl.exitcode, crawl.reason) == (1, "incomplete"), crawl.log
    assert crawl.stats["catalogue/missing"] == missing
    assert "Traceback" not in crawl.log


def assert_is_finished(crawl: Ended, sweeps: int = 1) -> None:
    assert (crawl.exitcode, crawl.reason) == (0, "finished"), crawl.log
    assert (crawl.stats["catalogue/missing"], crawl.stats["catalogue/sweeps"]) == (0, sweeps)
    assert "Traceback" not in crawl.log
