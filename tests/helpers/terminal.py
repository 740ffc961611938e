"""`scrapy` on a terminal of its own, and what a person sees there."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import struct
import termios
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyte

from tests.helpers.crawls import OWN, ROOT
from tests.helpers.warm import Warm

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_SECONDS = 120  # then it hangs, or shows for ever what it should not
CTRL_C = b"\x03"
MARK = b"\0"  # shows nothing
DRAWN = re.compile(rb"\x1b\[J\r")  # the end of a bar
BAR = re.compile(
    r"( *(?P<percent>\d+)%(\|(?P<bar>.+)\|)? )?(?P<done>\d+)(/(?P<total>\d+))?( \w+)?, "
    r"((?P<own>\d+) own, )?(([\d.]+k?|\?)/s|finishing)(, .+)?"
)


class Terminal:
    """A terminal as wide as it is asked for, and so high that nothing scrolls away."""

    LINES = 400

    def __init__(self, process: Warm, master: int, name: str, columns: int) -> None:
        self.process = process
        self.bars_seen: list[re.Match[str]] = []  # all that were drawn, however late it is read
        self.most_bars = 0  # at a time
        self.output = b""
        self._master = master
        self._name = name
        self._show(pyte.Screen(columns, self.LINES))

    @property
    def rows(self) -> list[str]:
        """What the screen shows down to the last line that is not empty."""
        buffer, columns = self.screen.buffer, range(self.screen.columns)
        rows = [
            "".join(buffer[y][x].data for x in columns).rstrip() if buffer[y] else ""
            for y in range(max(buffer, default=0) + 1)
        ]
        return "\n".join(rows).rstrip("\n").split("\n")

    @property
    def bars(self) -> list[re.Match[str]]:
        return [bar for row in self.rows if (bar := BAR.fullmatch(row))]

    @property
    def bar(self) -> str:
        """The bar as it was seen last."""
        return self.bars_seen[-1][0]

    def wait_for(self, words: str) -> None:
        """Return when the bar holds these words, a regular expression, or has held them since."""
        checked = max(0, len(self.bars_seen) - 1)
        while not any(re.search(words, bar[0]) for bar in self.bars_seen[checked:]):
            checked = len(self.bars_seen)
            assert self._read(), f"it ended without a bar with {words!r}:\n{self}"
        while not DRAWN.search(self.output, len(self.output) - 4) and self._read():
            pass  # the screen may show half of the next one

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def resize(self, columns: int) -> None:
        """Change the width, and fold the lines that are longer, as today's terminals do."""
        self.process.send_signal(signal.SIGSTOP)
        self.process.wait_for_stop()
        self._read_all_it_wrote()
        rows, cursor = self.rows, self.screen.cursor
        before, behind = rows[: cursor.y], rows[cursor.y :]
        before += [line[: cursor.x] for line in behind[:1]]
        behind = [line[cursor.x :] for line in behind[:1]] + behind[1:]
        self._show(pyte.Screen(columns, self.LINES))
        self._stream.feed("\r\n".join(before).encode())
        self.screen.save_cursor()
        self._stream.feed("\r\n".join(behind).encode())
        self.screen.restore_cursor()
        _set_size(self._master, columns)
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> int:
        """Wait for the end; return the exit code."""
        while self._read():
            pass
        return self.process.wait()

    def __str__(self) -> str:
        return "\n".join(self.rows)

    def _show(self, screen: pyte.Screen) -> None:
        self.screen = screen
        self._stream = pyte.ByteStream(screen)

    def _read(self) -> bool:
        """Show what comes next; False: it was the end."""
        try:
            output = os.read(self._master, 65_536)
        except OSError:  # the other end was closed
            return False
        fed = len(self.output)
        self.output += output
        # One bar after the other, however many were read at once; half a bar is none.
        for drawn in DRAWN.finditer(self.output, max(0, fed - 3)):
            self._stream.feed(self.output[fed : drawn.end()])
            fed = drawn.end()
            self._see()
        self._stream.feed(self.output[fed:])
        return True

    def _see(self) -> None:
        bars = self.bars
        self.most_bars = max(self.most_bars, len(bars))
        self.bars_seen += bars[-1:]

    def _read_all_it_wrote(self) -> None:
        """Read up to a mark of our own, which comes last while the process is stopped."""
        terminal = os.open(self._name, os.O_WRONLY | os.O_NOCTTY)
        os.write(terminal, MARK)
        os.close(terminal)
        while not self.output.endswith(MARK):
            assert self._read()


@contextmanager
def scrapy_on_terminal(*args: str, columns: int = 80, **environment: str) -> Iterator[Terminal]:
    others = OWN | {"COLUMNS", "LINES"}  # of the terminal in which the tests run
    inherited = {name: value for name, value in os.environ.items() if name not in others}
    ours = {"PROGRESS_ENABLED": "True", "TERM": "xterm"}
    master, slave = os.openpty()
    name = os.ttyname(slave)
    _set_size(slave, columns)
    with Warm(
        ["scrapy", *args],
        cwd=ROOT,
        env=inherited | ours | environment,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    ) as process:
        os.close(slave)
        watchdog = threading.Timer(MOST_SECONDS, process.kill)
        watchdog.start()
        try:
            yield Terminal(process, master, name, columns)
        finally:
            watchdog.cancel()
            process.kill()
            os.close(master)


def _set_size(terminal: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", Terminal.LINES, columns, 0, 0))
