"""Outfile: what a command writes to: a file that is there when it is whole, or stdout."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from spa5.catalogue.text import Trouble, brief, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

STDOUT = "-"


@contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """Open what the export is written to; `Trouble` where that fails at any time."""
    where = "stdout" if path == STDOUT else path
    try:
        with _stdout() if path == STDOUT else _replacing(Path(path)) as file:
            yield file
    except BrokenPipeError:  # whoever reads it has enough
        raise
    except OSError as error:
        raise Trouble(f"{where} can't be written: {error.strerror or error}") from None
    except UnicodeEncodeError as error:
        letter = brief(error.object[error.start])
        raise Trouble(f"{error.encoding} can't spell {letter}: set FEED_EXPORT_ENCODING") from None


@contextmanager
def _stdout() -> Iterator[IO[bytes]]:
    """A file of its own, which an exporter may close."""
    with os.fdopen(os.dup(1), "wb") as file:
        yield cast("IO[bytes]", _Terminal(file)) if file.isatty() else file


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file beside `path` that takes its place at the end, unless the block fails."""
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():  # a pipe, say: it can't be replaced
        with path.open("wb") as file:
            yield file
        return
    part = path.with_name(f".scrapy-export-{secrets.token_hex(4)}")
    try:
        with part.open("xb") as file:
            if path.exists():
                shutil.copymode(path, part)
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


class _Terminal(RawIOBase):
    """Shows text on a terminal, with escapes for what that would act upon."""

    def __init__(self, file: IO[bytes]):
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        text = bytes(data).decode(errors="backslashreplace")
        self._file.write(plain(text.replace("\r\n", "\n")).encode(errors="backslashreplace"))
        return len(data)
