"""`scrapy` on a terminal of its own, and what a person sees there."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyte

from tests.crawls import _OWN, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_SECONDS = 60  # then it hangs, or shows for ever what it should not
CTRL_C = b"\x03"
BAR = re.compile(
    r"( *(?P<percent>\d+)%(\|(?P<bar>.+)\|)? )?(?P<done>\d+)(/(?P<total>\d+))?( books)?, "
    r"((?P<own>\d+) own, )?(([\d.]+k?|\?)/s|finishing)(, .+)?"
)


class Terminal:
    """A terminal as wide as it is asked for, and so high that nothing scrolls away."""

    LINES = 400

    def __init__(self, process: subprocess.Popen[bytes], master: int, columns: int) -> None:
        self.process = process
        self.bars_seen: list[re.Match[str]] = []
        self.most_bars = 0  # at a time
        self.output = b""
        self._master = master
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
        """Return when the bar holds these words, a regular expression."""
        while not (self.bars_seen and self.bars and re.search(words, self.bar)):
            assert self._read(), f"it ended without a bar with {words!r}:\n{self}"

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def resize(self, columns: int) -> None:
        """Change the width, and fold the lines that are longer, as today's terminals do."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)
        while select.select([self._master], [], [], 0)[0] and self._read():
            pass
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
        self.output += output
        self._stream.feed(output)
        bars = self.bars
        self.most_bars = max(self.most_bars, len(bars))
        self.bars_seen += bars[-1:]
        return True


@contextmanager
def scrapy_on_terminal(*args: str, columns: int = 80, **environment: str) -> Iterator[Terminal]:
    inherited = {name: value for name, value in os.environ.items() if name not in _OWN}
    ours = {"PROGRESS_ENABLED": "True", "TERM": "xterm"}
    master, slave = os.openpty()
    _set_size(slave, columns)
    # Opened by its name it becomes the terminal whose Ctrl-C ends the process.
    command = ["sh", "-c", 'exec "$@" <"$0"', os.ttyname(slave)]
    command += [sys.executable, "-W", "error", "-m", "scrapy", *args]
    with subprocess.Popen(
        command,
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
            yield Terminal(process, master, columns)
        finally:
            watchdog.cancel()
            process.kill()
            os.close(master)


def _set_size(terminal: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", Terminal.LINES, columns, 0, 0))
