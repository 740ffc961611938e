"""MONGO_URI: what it names, and what is wrong with one that the driver does not take."""

from __future__ import annotations

import warnings
from urllib.parse import parse_qsl, urlsplit

from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

# What a URI that can't be used makes the driver raise, where warnings are errors.
UNUSABLE = (PyMongoError, OSError, ValueError, TypeError, UserWarning)

_SECRET_OPTIONS = {"authmechanismproperties", "tlscertificatekeyfilepassword", "proxypassword"}
_GENERAL = (
    "use mongodb://user:password@host:27017/ with the special characters of user and password "
    "percent-encoded, or 'embedded'"
)


def database_of(uri: str) -> str:
    """The database that a valid URI names, or ""."""
    return urlsplit(uri).path.strip("/") if "://" in uri else ""


def auth_source(uri: str) -> str:
    """The database in which the driver looks for the user."""
    options = {name.lower(): value for name, value in parse_qsl(urlsplit(uri).query)}
    return options.get("authsource") or database_of(uri) or "admin"


def has_slash_in_password(uri: str) -> bool:
    """True if the driver would take a part of the password for the host."""
    host, _, path = uri.partition("://")[2].partition("/")
    return "@" in path and "@" not in host


def wrong_part(uri: str, error: Exception) -> str:
    """What is wrong with a URI, without any part of it that may belong to a password.

    A password ends before the last `@`. The value of an option may be a secret, too, and go on
    behind a `&`.
    """
    before, _, query = uri.partition("?")
    if "@" not in query and "/" in before.partition("://")[2]:
        for option in query.split("&"):
            name = option.partition("=")[0]
            if (refusal := _refusal(option)) and name.isascii() and name.isalpha():
                if refusal.startswith("Unknown option"):
                    return f"the driver knows no option {name[:40]!r}, check its spelling"
                return f"the value of its option {name} can't be used"
            if refusal or name.lower() in _SECRET_OPTIONS:
                return _GENERAL
    if isinstance(error, OSError):
        return "a file that it names can't be read"
    return _GENERAL


def _refusal(option: str) -> str:
    """Why the driver refuses this option by itself, or ""."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            parse_uri(f"mongodb://localhost/?{option}")
    except UNUSABLE as error:
        return str(error) or "refused"
    return ""
