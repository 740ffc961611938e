"""Errors of MongoDB: what they mean to a crawl, and what people are told."""

from __future__ import annotations

import warnings
from urllib.parse import parse_qsl, urlsplit

from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
)
from pymongo.uri_parser import parse_uri

from spa5.catalogue.text import Trouble, one_line

# These may pass: a server shuts down or steps down, there is no primary, no time or no disk left.
# MongoDB has the numbers in src/mongo/base/error_codes.yml.
PASSING = {
    *(6, 7, 24, 50, 64, 89, 91, 112, 133, 134, 189, 262, 9001, 10058, 10107),
    *(11600, 11602, 13388, 13435, 13436, 14031),
}
_UNAUTHORIZED = 13
_WRONG_PASSWORD = 18
_UNSATISFIABLE = (64, 79, 100)  # write concerns
_BAD_VALUE = 2
_IN_ADMIN = "; if the user belongs to admin, as root does, add ?authSource=admin to it"
# What a URI that can't be used makes the driver raise, where warnings are errors.
UNUSABLE = (PyMongoError, OSError, ValueError, TypeError, UserWarning)

_SECRET_OPTIONS = {"authmechanismproperties", "tlscertificatekeyfilepassword", "proxypassword"}
_GENERAL = (
    "use mongodb://user:password@host:27017/ with the special characters of user and password "
    "percent-encoded, or 'embedded'"
)


class StoreError(Trouble):
    """MongoDB can't be used."""


def is_passing(error: PyMongoError) -> bool:
    """True if trying again may help: the server or the way to it is away, not the request wrong."""
    if isinstance(error, OperationFailure):
        return error.code in PASSING or error.has_error_label("RetryableWriteError")
    return isinstance(error, ConnectionFailure)


def lacks_index(code: int | None, message: str) -> bool:
    """True if the index that a query or a write was told to use does not exist."""
    return code == _BAD_VALUE and "hint provided does not correspond" in message


def reason(error: PyMongoError) -> str:
    """Return the driver's words without its settings and its list of all servers."""
    said = str(error)
    for more in (", Timeout: ", " (configured timeouts: ", ", full error: "):
        said = said.partition(more)[0]
    return one_line(said)


def explain(error: PyMongoError, where: str, uri: str) -> str:
    """Return one line for people: what the driver's error means, and what to do."""
    code = error.code if isinstance(error, OperationFailure) else None
    if code == _WRONG_PASSWORD:
        hint = "" if auth_source(uri) == "admin" else _IN_ADMIN
        return f"{where}: user or password is wrong, check MONGO_URI{hint}"
    if code == _UNAUTHORIZED:
        return f"{where}: this user may not use it (not authorized), check MONGO_URI"
    if isinstance(error, WriteConcernError) or code in _UNSATISFIABLE:
        return (
            f"{where} does not confirm writes as MONGO_URI asks for ({reason(error)}): see to the "
            f"members that are down (rs.status() in mongosh), or ask for less, w=1 for instance"
        )
    if isinstance(error, ConfigurationError) and "wire version" in str(error):
        return f"MongoDB at {where} is too old: 5.0 or later is needed"
    if isinstance(error, ConnectionFailure):
        return _unreachable(where, reason(error))
    return f"{where}: {one_line(error)}"


def _unreachable(where: str, said: str) -> str:
    if "SSL" in said or "certificate" in said:
        return f"{where}: {said}: check the TLS options in MONGO_URI and the server's certificate"
    if "replica set" in said:
        return f"{where}: {said}: check replicaSet in MONGO_URI, and rs.status() in mongosh"
    return f"no MongoDB answers at {where} ({said}): start it, or check MONGO_URI"


def database_of(uri: str) -> str:
    """Return the database that a valid URI names, or ""."""
    return urlsplit(uri).path.strip("/") if "://" in uri else ""


def auth_source(uri: str) -> str:
    """Return the database in which the driver looks for the user."""
    options = {name.lower(): value for name, value in parse_qsl(urlsplit(uri).query)}
    return options.get("authsource") or database_of(uri) or "admin"


def wrong_part(uri: str, error: Exception) -> str:
    """Say what is wrong with a URI, without any part of it that may belong to a password.

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
    """Return why the driver refuses this option, or ""."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            parse_uri(f"mongodb://localhost/?{option}")
    except UNUSABLE as error:
        return str(error) or "refused"
    return ""
