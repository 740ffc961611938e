"""Checks: each makes a line for people, whatever it does and however long it takes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from scrapy.exceptions import UsageError

from spa5.catalogue.text import Trouble, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import TypeAlias

    # Returns what is well; None where it does not apply.
    Check: TypeAlias = Callable[[], Coroutine[Any, Any, "str | None"]]

LIMIT_SECONDS = 5.5  # for all that is reached for, at the same time
CLOSING_SECONDS = 1.5  # after that, what does not end is left alone


class Remark(Exception):
    """A crawl would run, but people may want to know this."""


class Line(NamedTuple):
    status: str  # ok, warn, FAIL or skip
    name: str
    text: str


class Checklist:
    """Runs checks until a deadline, which is so many seconds from now, and keeps their lines."""

    def __init__(self, seconds: float):
        self.lines: list[Line] = []
        self.seconds = seconds
        self._deadline = asyncio.get_running_loop().time() + seconds

    async def follow(self, checks: dict[str, Check]) -> None:
        """Run one check after the other. Those behind a failure are skipped."""
        failed = ""
        for name, check in checks.items():
            if failed:
                self.lines.append(Line("skip", name, f"see {failed}"))
            elif line := await self._line(name, check):
                self.lines.append(line)
                failed = name if line.status == "FAIL" else ""

    async def _line(self, name: str, check: Check) -> Line | None:
        task = asyncio.create_task(check())
        await asyncio.wait({task}, timeout=self._deadline - asyncio.get_running_loop().time())
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=CLOSING_SECONDS / 2)
            return Line("FAIL", name, f"no answer within {self.seconds:g} s: is it overloaded?")
        try:
            text = task.result()
        except Remark as remark:
            return Line("warn", name, str(remark))
        except (Trouble, UsageError) as trouble:
            return Line("FAIL", name, str(trouble))
        except Exception as error:
            return Line("FAIL", name, f"{type(error).__name__}: {one_line(error)}")
        return None if text is None else Line("ok", name, text)
