"""Bar: a line at the bottom of the terminal. The only module that imports tqdm, and imported only
where it is shown.
"""

from __future__ import annotations

import sys
from threading import RLock
from typing import TYPE_CHECKING, Any, ClassVar

from tqdm import tqdm

from spa5.engine import log_handler

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Sequence


class Bar(tqdm):  # type: ignore[type-arg]  # at run time it takes none
    """tqdm's bar, above which the lines of Scrapy's log scroll.

    The cursor waits where the line begins. There the `^C` that a terminal echoes makes it no
    longer, and where a window that became narrower has folded it, all of it is erased.
    """

    monitor_interval: ClassVar[int] = 0  # no thread
    formats: Sequence[str] = ("{n}",)  # from the widest to the narrowest; the first that fits
    handler: logging.StreamHandler[Any] | None = None

    def __init__(self) -> None:
        # The rate is that of the last seconds.
        super().__init__(
            file=sys.stderr, dynamic_ncols=True, miniters=0, smoothing=0.1, unit="", unit_scale=True
        )
        handler = log_handler()
        if handler and handler.stream is sys.stderr:
            self.handler = handler
            handler.setStream(_Above())

    def show(self, done: int, total: int, formats: Sequence[str]) -> None:
        self.total = total
        self.formats = formats
        if done == self.n:
            self.refresh()  # an update would leave the time without an item out of the rate
        else:
            self.update(done - self.n)

    def close(self) -> None:
        """Leave the line as it is, and the terminal to others."""
        super().close()
        if self.handler:
            self.handler.setStream(sys.stderr)

    def __str__(self) -> str:
        shown = self.format_dict
        for bar_format in self.formats:
            text = self.format_meter(**{**shown, "bar_format": bar_format, "ncols": None})
            if shown["ncols"] is None or len(text) <= shown["ncols"]:
                break
        return self.format_meter(**{**shown, "bar_format": bar_format})

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:
        def show(text: str) -> None:
            file.write(f"\r{text}\x1b[J\r")
            file.flush()

        return show


class _Above:
    """A stream for what stands above the bar."""

    def write(self, text: str) -> None:
        Bar.write(text, file=sys.stderr, end="")

    def flush(self) -> None:
        sys.stderr.flush()


Bar.set_lock(RLock())  # tqdm's own is one between processes as well
