"""What a crawl is given: spider arguments and settings, read and checked before any request.

Whatever is wrong is a `UsageError`: one line that says what to use instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scrapy.exceptions import UsageError

from spa5.items import InvalidBook, book_id, brief

if TYPE_CHECKING:
    from scrapy.settings import BaseSettings

_NUMBERS = (
    *("REFRESH_AFTER_DAYS", "MAX_SWEEPS", "MONGO_RETRY_SECONDS", "SITE_RETRY_SECONDS"),
    "DRIFT_SHARE",
)


def positive(name: str, value: Any) -> int:
    """Return a whole number from 1 on."""
    text = str(value)
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise UsageError(f"{name}={brief(value)}: use a whole number from 1 on")
    return int(text)


def check_number(name: str, value: Any) -> None:
    """Refuse what is not a number from 0 on."""
    try:
        usable = 0 <= float(value) < 1e9
    except (TypeError, ValueError):
        usable = False
    if not usable:
        raise UsageError(f"{name}={brief(value)}: use a number from 0 on")


def check_settings(settings: BaseSettings) -> None:
    """Refuse settings with which no crawl can do what was asked."""
    if any(settings[name] is None for name in ("SITE_URL", *_NUMBERS)):
        raise UsageError(
            "the project's settings are missing: a script passes get_project_settings() to "
            "CrawlerProcess, see README, Scripts"
        )
    if settings["JOBDIR"]:
        raise UsageError(
            "leave JOBDIR out: the collection itself tells what is stored, so the same command, "
            "run again, does what is left"
        )
    for name in _NUMBERS:
        check_number(name, settings[name])


def book_ids(value: Any) -> list[str]:
    """Return the ids of a comma-separated list, each once; `@FILE` reads them from a file.

    A script may pass a list.
    """
    text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    if text.startswith("@"):
        return _ids_of_file(text[1:])
    try:
        ids = [book_id(one.strip()) for one in text.split(",")]
    except InvalidBook as error:
        raise UsageError(f"ids={brief(text)}: {error}; use digits, separated by commas") from None
    return list(dict.fromkeys(ids))


def _ids_of_file(name: str) -> list[str]:
    """Return what stands in the file one a line, or separated by commas. Blanks are ignored."""
    where = f"ids={brief('@' + name, 200)}"
    ids: dict[str, None] = {}
    for number, line in enumerate(_text_of(Path(name), where).splitlines(), 1):
        try:
            ids |= {book_id(one.strip()): None for one in line.split(",") if one.strip()}
        except InvalidBook:  # which quotes the line: the file may be one of secrets
            raise UsageError(
                f"{where}, line {number}: use ids of digits, one a line or separated by commas"
            ) from None
    if not ids:
        raise UsageError(f"{where} holds no id: put ids into it, one a line")
    return list(ids)


def _text_of(file: Path, where: str) -> str:
    try:
        if file.exists() and not file.is_file():  # reading a device or a pipe might never end
            raise UsageError(f"{where} is no file: use a file of ids, one a line")
        return file.read_text(encoding="utf-8-sig")
    except UnicodeError:
        raise UsageError(f"{where} is no text in UTF-8: use ids of digits, one a line") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{where} can't be read: {reason}") from None
