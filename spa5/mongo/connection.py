"""Connection: the way to MongoDB. This is the only module that knows motor."""

from __future__ import annotations

import asyncio
import logging
import warnings
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from bson.codec_options import CodecOptions, DatetimeConversion
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection
from pymongo import WriteConcern
from pymongo.errors import ConnectionFailure, PyMongoError

from spa5.mongo.directory import data_dir
from spa5.mongo.errors import UNUSABLE, StoreError, database_of, explain, reason, wrong_part
from spa5.mongo.server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from scrapy.settings import BaseSettings

    Client: TypeAlias = AsyncIOMotorClient[dict[str, Any]]
    Items: TypeAlias = AsyncIOMotorCollection[dict[str, Any]]

logger = logging.getLogger(__name__)
# At DEBUG the driver logs each command with the items in it.
logging.getLogger("pymongo").setLevel(logging.INFO)

LOCAL_URI = "mongodb://localhost:27017/"
_OPTIONS: dict[str, Any] = {  # unless MONGO_URI has them
    "appname": "spa5",
    "serverSelectionTimeoutMS": 5_000,
    "connectTimeoutMS": 5_000,
    "socketTimeoutMS": 30_000,
    # `Retry` repeats writes, which may be done twice. After a handshake that failed, PyMongo 4.20's
    # own repetition asks a single server for what only replica sets have.
    "retryWrites": False,
}
_OLDEST = (5, 0)  # the first that takes field names with dots and dollars in `extra`
_CONFIRM_MILLISECONDS = 20_000  # then it is said that members are down, and not that none answers
# What other programs stored must not end a crawl.
_LENIENT: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="replace",
)


class Connection:
    """The way to the server of MONGO_URI, or to the embedded one, which it starts and leaves.

    Settings: MONGO_URI, MONGO_DATABASE, MONGO_COLLECTION, MONGO_DATA_DIR.
    """

    def __init__(self, settings: BaseSettings, spider_name: str):
        self._settings = settings
        self._uri: str = settings["MONGO_URI"] or ""
        self._database, self.items_name = names_of(settings, spider_name)
        self._client: Client | None = None
        self._server: EmbeddedServer | None = None  # the embedded one, where it is used
        self.place = ""  # where the items are, for people: no credentials in it
        self.version = ""  # MongoDB's

    async def open(self, *, read_only: bool) -> None:
        """Connect. With `read_only` an embedded server that runs without a crawl goes on."""
        self._client = connect(await self._choose_uri(read_only))
        self._warn_of_database()
        seeds = sorted(cast("Any", self._client).topology_description.server_descriptions())
        hosts = [host if port is None else f"{host}:{port}" for host, port in seeds]
        where = self._server.place if self._server else ",".join(hosts)
        self.place = f"{where}, {self._database}.{self.items_name}"
        info = await self._client.server_info()
        self.version = info["version"]
        if tuple(info["versionArray"][:2]) < _OLDEST:
            raise StoreError(
                f"MongoDB {self.version} at {self.place} is too old: 5.0 or later is needed"
            )

    async def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._server is not None:
            await self._server.stop()

    async def uses_embedded(self) -> bool:
        """True if `open` takes the embedded server, which this does not start."""
        return self._uri == "embedded" or not (self._uri or await has_local_server())

    async def restart_server(self) -> None:
        """Start the embedded server again, if that is used and has ended."""
        if self._client is not None and self._server is not None:
            with suppress(StoreError):  # the next try says that it is away
                await self._server.start()

    def collection(self, name: str) -> Items:
        """Return a collection whose writes count when a majority has them in its journal.

        MONGO_URI may ask for something else. With `j` alone a replica set's primary would confirm
        what a failover takes back.
        """
        assert self._client is not None
        own: dict[str, Any] = {"w": "majority", "j": True, "wtimeout": _CONFIRM_MILLISECONDS}
        concern = WriteConcern(**own | self._client.write_concern.document)
        return self._client[self._database].get_collection(
            name, codec_options=_LENIENT, write_concern=concern
        )

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Raise a `StoreError` where the driver raises an error of its own."""
        try:
            yield
        except PyMongoError as error:
            raise StoreError(explain(error, self.place or "MONGO_URI", self._uri)) from None

    async def _choose_uri(self, read_only: bool) -> str:
        if not await self.uses_embedded():
            return self._uri or LOCAL_URI
        self._server = EmbeddedServer(data_dir(self._settings))
        await self._server.start(visit=read_only)
        return self._server.uri

    def _warn_of_database(self) -> None:
        """MONGO_DATABASE rules, for the name in a URI often is where the user is looked up."""
        if (named := database_of(self._uri)) not in ("", self._database):
            said = "MONGO_URI names the database %r, this crawl uses %r: MONGO_DATABASE says which"
            logger.warning(said, named, self._database)


def names_of(settings: BaseSettings, spider_name: str) -> tuple[str, str]:
    """Return the names of a crawl's database and collection, which may be the spider's."""
    given = settings["MONGO_DATABASE"], settings["MONGO_COLLECTION"]
    return given[0] or spider_name, given[1] or spider_name


def connect(uri: str) -> Client:
    """Make a client that does not wait for ever; `StoreError` if the URI is not valid."""
    options = {name: one for name, one in _OPTIONS.items() if f"{name.lower()}=" not in uri.lower()}
    host, _, path = uri.partition("://")[2].partition("/")
    try:
        if "@" in path and "@" not in host:
            raise ValueError("a slash in the password: what is before it is no host")
        with warnings.catch_warnings():
            # An option that the driver does not know may be part of a password.
            warnings.simplefilter("error", UserWarning)
            client: Client = AsyncIOMotorClient(uri, **options)
    except UNUSABLE as error:  # whose words may quote a part of the password
        raise StoreError(f"MONGO_URI is not valid: {wrong_part(uri, error)}") from None
    if not client.write_concern.acknowledged:
        raise StoreError("MONGO_URI says w=0: an item counts only when MongoDB acknowledges it")
    return client


async def has_local_server() -> bool:
    """True if a MongoDB answers on this machine; `StoreError` where something else is there."""
    if not await _is_taken(LOCAL_URI):
        return False
    client: Client = AsyncIOMotorClient(LOCAL_URI, serverSelectionTimeoutMS=3_000)
    try:
        await client.admin.command("ping")
    except ConnectionFailure as error:
        if "refused" in reason(error):  # it took a slow machine longer to tell
            return False
        raise StoreError(
            f"something listens on {urlsplit(LOCAL_URI).netloc}, but does not answer as MongoDB "
            f"does: see to it, or set MONGO_URI, to 'embedded' for the embedded server"
        ) from None
    except PyMongoError:  # it is there, and `open` will say what is wrong with it
        return True
    finally:
        client.close()
    return True


async def _is_taken(uri: str) -> bool:
    """True if somebody listens there. The driver would go on trying where nobody does."""
    address = urlsplit(uri)
    try:
        connecting = asyncio.open_connection(address.hostname, address.port)
        _, writer = await asyncio.wait_for(connecting, 0.5)
        writer.close()
    except asyncio.TimeoutError:  # it listens, and takes no more connections
        pass
    except OSError:
        return False
    return True
