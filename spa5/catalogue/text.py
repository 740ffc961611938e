"""Text for people: nothing that is shown can break a terminal, or a program that reads it."""

from __future__ import annotations

import io
import logging
import re
import reprlib
import sys
from typing import Any

# Control characters except tab and line feed, characters that turn the direction of writing, and
# lone surrogates, which no encoding can spell.
UNSAFE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Trouble(Exception):
    """An error that is one line for people: what happened, and what to do."""


def plain(text: str) -> str:
    """Return `text` with escapes like `\\x1b` for the characters that a terminal would act upon."""
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def spellable(text: str) -> str:
    """Return `text` with escapes for halves of characters, which no encoding spells."""
    return text.encode("utf-8", "backslashreplace").decode()


def one_line(words: object, most: int = 200) -> str:
    """Return the words of others, an error's for instance, as a part of one line."""
    return _cut(plain(" ".join(str(words).split())[: most + 1]), most)


def brief(value: Any, most: int = 60) -> str:
    """Return a value as Python writes it, as a part of one line."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = most
    try:
        return _cut(short.repr(value), most)
    except ValueError:  # an int of thousands of digits
        return f"a huge {type(value).__name__}"


def _cut(line: str, most: int) -> str:
    return line if len(line) <= most else line[: most - 1] + "…"


class PlainRecord(logging.LogRecord):
    """A line of the log. The site, the collection and Redis can put what they like into it."""

    def getMessage(self) -> str:
        return plain(super().getMessage())

    @property
    def exc_text(self) -> str | None:
        """The traceback. logging keeps it here when it has formatted it."""
        return self._exc_text

    @exc_text.setter
    def exc_text(self, text: str | None) -> None:
        self._exc_text = text and plain(text)


def show_plainly() -> None:
    """Escape control characters in each log, and whatever stdout or stderr can't encode."""
    logging.setLogRecordFactory(PlainRecord)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
