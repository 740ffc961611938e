"""The way to MongoDB: a client for MONGO_URI, and what people are told where it fails."""

from __future__ import annotations

import asyncio
import warnings
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl, urlsplit

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
)
from pymongo.uri_parser import parse_uri

from spa5.catalogue.text import Trouble, brief

if TYPE_CHECKING:
    from typing import TypeAlias

    Client: TypeAlias = AsyncIOMotorClient[dict[str, Any]]

LOCAL_URI = "mongodb://localhost:27017/"
OTHER_INDEX = (85, 86)  # there is one on this field already, with other options
_UNSATISFIABLE = (64, 79, 100)  # write concerns
# Shutting down, stepping down, no primary, out of time, out of disk: it may pass. The numbers are
# MongoDB's, from src/mongo/base/error_codes.yml.
PASSING = {
    *(6, 7, 24, 50, 64, 89, 91, 112, 133, 134, 189, 262, 9001, 10058, 10107),
    *(11600, 11602, 13388, 13435, 13436, 14031),
}
_SECRET_OPTIONS = {"authmechanismproperties", "tlscertificatekeyfilepassword", "proxypassword"}
_GENERAL = (
    "use mongodb://user:password@host:27017/ with the special characters of user and password "
    "percent-encoded, or 'embedded'"
)


class StoreError(Trouble):
    """MongoDB can't be used."""


def connect(uri: str) -> Client:
    """A client that does not wait for ever; `StoreError` where the URI is not valid."""
    options: dict[str, Any] = {
        "appname": "spa5",
        "serverSelectionTimeoutMS": 5_000,
        "connectTimeoutMS": 5_000,
        "socketTimeoutMS": 30_000,
    }
    given = uri.lower()
    options = {name: value for name, value in options.items() if f"{name.lower()}=" not in given}
    host, _, path = uri.partition("://")[2].partition("/")
    try:
        if "@" in path and "@" not in host:
            raise ValueError("a slash in the password: what is before it is no host")
        with warnings.catch_warnings():
            # An option that the driver does not know may be part of a password.
            warnings.simplefilter("error", UserWarning)
            client: Client = AsyncIOMotorClient(uri, **options)
    except (PyMongoError, OSError, ValueError, TypeError, UserWarning) as error:
        # The driver's own words may quote a part of the password.
        raise StoreError(f"MONGO_URI is not valid: {_wrong_part(uri, error)}") from None
    if not client.write_concern.acknowledged:
        raise StoreError("MONGO_URI says w=0: an item counts only when MongoDB acknowledges it")
    return client


def database_of(uri: str) -> str:
    """The database that a valid URI names, or ""."""
    return urlsplit(uri).path.strip("/") if "://" in uri else ""


def hosts(client: Client) -> str:
    seeds = cast("Any", client).topology_description.server_descriptions()
    return ",".join(host if port is None else f"{host}:{port}" for host, port in sorted(seeds))


async def has_local_server() -> bool:
    """True if a MongoDB answers on this machine; `StoreError` where something else is there."""
    address = urlsplit(LOCAL_URI)
    try:  # the driver would go on trying where nobody listens
        connecting = asyncio.open_connection(address.hostname, address.port)
        _, writer = await asyncio.wait_for(connecting, 0.5)
        writer.close()
    except asyncio.TimeoutError:  # it listens, and takes no more connections
        pass
    except OSError:
        return False
    client: Client = AsyncIOMotorClient(LOCAL_URI, serverSelectionTimeoutMS=3_000)
    try:
        await client.admin.command("ping")
    except ConnectionFailure as error:
        if "refused" in reason(error):  # it took a slow machine longer to tell
            return False
        raise StoreError(
            f"something listens on {address.netloc}, but does not answer as MongoDB does: see to "
            f"it, or set MONGO_URI, to 'embedded' for the embedded server"
        ) from None
    except PyMongoError:  # it is there, and `open` will say what is wrong with it
        return True
    finally:
        client.close()
    return True


def is_passing(error: PyMongoError) -> bool:
    """True if trying again may help: the server or the way to it is away, not the request wrong."""
    if isinstance(error, OperationFailure):
        return error.code in PASSING or error.has_error_label("RetryableWriteError")
    return isinstance(error, ConnectionFailure)


def reason(error: PyMongoError) -> str:
    """The driver's words, without what it knows besides."""
    said = str(error)
    for more in (", Timeout: ", " (configured timeouts: ", ", full error: "):
        said = said.partition(more)[0]
    return brief(said, 200)[1:-1]


def explain(error: PyMongoError, where: str, uri: str) -> str:
    """What the driver's error means, and what to do: one line."""
    said = reason(error)
    code = error.code if isinstance(error, OperationFailure) else None
    if code == 18:
        hint = "" if _auth_source(uri) == "admin" else _IN_ADMIN
        return f"{where}: user or password is wrong, check MONGO_URI{hint}"
    if code == 13:
        return f"{where}: this user may not use it (not authorized), check MONGO_URI"
    if isinstance(error, WriteConcernError) or code in _UNSATISFIABLE:
        return (
            f"{where} does not confirm writes as MONGO_URI asks for ({said}): see to the members "
            f"that are down (rs.status() in mongosh), or ask for less, w=1 for instance"
        )
    if isinstance(error, ConfigurationError) and "wire version" in str(error):
        return f"MongoDB at {where} is too old: 5.0 or later is needed"
    if not isinstance(error, ConnectionFailure):
        return f"{where}: {brief(str(error), 200)}"
    if "SSL" in said or "certificate" in said:
        return f"{where}: {said}: check the TLS options in MONGO_URI and the server's certificate"
    if "replica set" in said:
        return f"{where}: {said}: check replicaSet in MONGO_URI, and rs.status() in mongosh"
    return f"no MongoDB answers at {where} ({said}): start it, or check MONGO_URI"


_IN_ADMIN = "; if the user belongs to admin, as root does, add ?authSource=admin to it"


def _auth_source(uri: str) -> str:
    """The database in which the driver looks for the user."""
    parts = urlsplit(uri)
    options = {name.lower(): value for name, value in parse_qsl(parts.query)}
    return options.get("authsource") or database_of(uri) or "admin"


def _wrong_part(uri: str, error: Exception) -> str:
    """What is wrong with a URI, without any part of it that may belong to a password.

    That ends before the last `@`; but a value may hold a secret, too, and go on behind a `&`.
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
    except (PyMongoError, OSError, ValueError, TypeError, UserWarning) as error:
        return str(error) or "refused"
    return ""
