"""BookStore: the books in MongoDB. The only module that imports the MongoDB driver."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import warnings
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from bson.codec_options import CodecOptions, DatetimeConversion
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import InsertOne, UpdateOne, WriteConcern
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
)

from spa5.documents import Document, Outcome, Rejected, now, plan
from spa5.items import brief
from spa5.mongod import EmbeddedServer, MongodError, data_dir

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from datetime import datetime

    from bson import ObjectId
    from scrapy.settings import BaseSettings

logger = logging.getLogger(__name__)
# At DEBUG the driver logs each command with the books in it.
logging.getLogger("pymongo").setLevel(logging.INFO)

T = TypeVar("T")

LOCAL_URI = "mongodb://localhost:27017/"
_OLDEST = (5, 0)  # the first that takes field names with dots and dollars in `extra`
_DUPLICATE_KEY = 11000
_OUR_KEYS = ({"id": 1}, {"_id": 1})
_OTHER_INDEX = (85, 86)  # there is one on this field already, with other options
_TOO_DEEP = 15
# Shutting down, stepping down, no primary, out of time, out of disk: it may pass. The numbers are
# MongoDB's, from src/mongo/base/error_codes.yml.
_PASSING = {
    *(6, 7, 24, 50, 64, 89, 91, 112, 133, 134, 189, 262, 9001, 10058, 10107),
    *(11600, 11602, 13388, 13435, 13436, 14031),
}
# What SkipStored decides by.
_SEEN = ("id", "name", "authors", "cover", "score", "crawled_at", "listed_at")
_LENIENT: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="replace",
)


class StoreError(Exception):
    """MongoDB can't be used: one line for people, what happened and what to do."""


class BookStore:
    """The collection of books, retried while MongoDB is away for at most MONGO_RETRY_SECONDS.

    Settings: MONGO_URI, MONGO_DATABASE, MONGO_COLLECTION, MONGO_DATA_DIR, MONGO_RETRY_SECONDS.
    """

    def __init__(self, settings: BaseSettings, count: Callable[[str, Any], None]):
        self._uri: str = settings["MONGO_URI"] or ""
        self._database: str = settings["MONGO_DATABASE"]
        self._collection: str = settings["MONGO_COLLECTION"]
        self._settings = settings
        self._server: EmbeddedServer | None = None  # the embedded one, where it is used
        self._expects_new = True
        self._client: AsyncIOMotorClient[dict[str, Any]] | None = None
        self._retry_seconds = settings.getfloat("MONGO_RETRY_SECONDS")
        self._count = count  # of stats
        self._away_since: float | None = None
        self._waiting = 0  # queries and writes that are being repeated
        self._given_up: StoreError | None = None
        self.place = ""  # where the books are, for people: no credentials in it
        self.version = ""  # MongoDB's

    async def open(self, *, read_only: bool = False) -> None:
        """Connect, starting the embedded server where it is to be used, and make the indexes.

        With `read_only` nothing is written, not even an index.
        """
        try:
            self._client = _client(await self._choose_uri())
            where = self._server.place if self._server else _hosts(self._client)
            self.place = f"{where}, {self._database}.{self._collection}"
            # Acknowledged means in the journal of a majority, if MONGO_URI does not say otherwise.
            # With `j` alone a replica set's primary would confirm what a failover takes back.
            asked = self._client.write_concern.document
            concern = WriteConcern(**{"w": "majority", "j": True, **asked})
            self._books = self._client[self._database].get_collection(
                self._collection, codec_options=_LENIENT, write_concern=concern
            )
            await self._check_version()
            if not read_only:
                await self._make_indexes()
        except MongodError as error:
            raise StoreError(str(error)) from None
        except PyMongoError as error:
            raise StoreError(self._explain(error)) from None

    async def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._server is not None:
            await self._server.stop()

    async def uses_embedded(self) -> bool:
        """Whether `open` takes the embedded server; it is not started yet."""
        return self._uri == "embedded" or not (self._uri or await _answers(LOCAL_URI))

    async def try_write(self) -> tuple[dict[str, Any], bool]:
        """A write that changes nothing; `StoreError` where a crawl's would fail.

        Return the write concern, and whether a replica set took it.
        """
        assert self._client is not None
        try:
            await self._books.update_many({"_id": {"$in": []}}, {"$set": {"id": ""}})
            hello = await self._client.admin.command("hello")
        except PyMongoError as error:
            raise StoreError(self._explain(error)) from None
        return self._books.write_concern.document, "setName" in hello

    async def has_unique_index(self) -> bool:
        """Whether it is there; `StoreError` where it could not be made. Writes nothing."""
        copies: list[dict[str, Any]] = [
            {"$group": {"_id": "$id", "books": {"$sum": 1}}},
            {"$match": {"books": {"$gt": 1}}},
            {"$limit": 1},
        ]
        try:
            indexes = await self._books.index_information()
            if _has_unique(indexes):
                return True
            if "id_1" in indexes:
                raise OperationFailure("its name is taken", _OTHER_INDEX[0])
            async for _ in self._books.aggregate(copies, allowDiskUse=True):
                raise DuplicateKeyError("as MongoDB would say")
        except PyMongoError as error:
            raise StoreError(self._explain(error)) from None
        return False

    async def write(self, documents: list[Document]) -> Sequence[Outcome | Exception]:
        """Upsert a batch; return for each, in order, what it was or why it is `Rejected`.

        While all books are new they are inserted, which is one round trip. The others are compared
        with what is stored, in a query before the write, and then updated.
        """
        moment = now()
        results: dict[ObjectId, Outcome | Rejected] = {}
        left = documents
        if self._expects_new:
            results, left = await self._insert(documents, moment)
        if left:
            results |= await self._update(left, moment)
        self._expects_new = all(results[document.oid] == "inserted" for document in documents)
        return [results[document.oid] for document in documents]

    async def _insert(
        self, documents: list[Document], moment: datetime
    ) -> tuple[dict[ObjectId, Outcome | Rejected], list[Document]]:
        """Insert what is new; return the outcomes by `_id`, and what is stored already."""
        inserts = [InsertOne(document.as_new(moment)) for document in documents]
        refused = await self._persist(lambda: self._bulk_write(inserts))
        results: dict[ObjectId, Outcome | Rejected] = {}
        left = []
        for index, document in enumerate(documents):
            refusal = refused.get(index)
            if refusal is not None and refusal.is_duplicate:
                left.append(document)
            else:
                results[document.oid] = refusal or "inserted"
        return results, left

    async def _update(
        self, documents: list[Document], moment: datetime
    ) -> dict[ObjectId, Outcome | Rejected]:
        """Upsert; return the outcomes by `_id`. They come from one query before the write, so
        that a write which had to be repeated is not counted as something else.
        """
        stored = await self.get(list({document.id for document in documents}))
        outcomes, updates = plan(documents, stored, moment)
        operations = [UpdateOne({"id": one}, change, upsert) for one, change, upsert in updates]
        refused = await self._persist(lambda: self._bulk_write(operations, duplicates_pass=True))
        refusals = {updates[index].id: refusal for index, refusal in refused.items()}
        return {
            document.oid: refusals.get(document.id, outcome)
            for document, outcome in zip(documents, outcomes, strict=True)
        }

    async def see(self, ids: list[str]) -> dict[str, dict[str, Any]]:
        """What is stored of the listed books, as it was before `listed_at` is set for them."""
        query = {"id": {"$in": ids}}
        stored = await self._persist(lambda: self._find(query, dict.fromkeys(_SEEN, 1)))
        if stored:
            update = {"$set": {"listed_at": now()}}
            query = {"id": {"$in": list(stored)}}
            await self._persist(lambda: self._books.update_many(query, update))
        return stored

    async def get(self, ids: list[str]) -> dict[str, dict[str, Any]]:
        """The stored documents of these books, by id."""
        query = {"id": {"$in": ids}}
        return await self._persist(lambda: self._find(query))

    async def count(self, ids: list[str]) -> int:
        """How many of these books are stored."""
        query = {"id": {"$in": ids}}
        return await self._persist(lambda: self._books.count_documents(query))

    async def count_listed(self, since: datetime) -> int:
        """How many stored books were seen in the catalogue since then."""
        query = {"listed_at": {"$gte": since}}
        return await self._persist(lambda: self._books.count_documents(query))

    async def _find(
        self, query: dict[str, Any], projection: dict[str, int] | None = None
    ) -> dict[str, dict[str, Any]]:
        found = self._books.find(query, projection)
        return {book["id"]: book async for book in found if isinstance(book["id"], str)}

    async def _bulk_write(
        self, operations: Sequence[Any], *, duplicates_pass: bool = False
    ) -> dict[int, Rejected]:
        """Write; return the refusals by position.

        Two crawls that upsert a new book at the same moment collide on its id, once: with
        `duplicates_pass` that is worth another try.
        """
        try:
            await self._books.bulk_write(operations, ordered=False)
        except BulkWriteError as error:
            refusals = {one["index"]: _refusal(one) for one in error.details["writeErrors"]}
            passing = any(one["code"] in _PASSING for one in error.details["writeErrors"])
            duplicate = any(refusal.is_duplicate for refusal in refusals.values())
            if error.details["writeConcernErrors"] or passing or (duplicates_pass and duplicate):
                raise AutoReconnect(str(error)) from None
            return refusals
        except OperationFailure as error:
            if error.code != _TOO_DEEP:
                raise
            if len(operations) == 1:
                return {0: Rejected("it is nested too deeply for MongoDB")}
            # One book made MongoDB refuse the message with all of them: find it.
            alone = [
                await self._bulk_write([one], duplicates_pass=duplicates_pass) for one in operations
            ]
            return {index: refused[0] for index, refused in enumerate(alone) if refused}
        return {}

    async def _persist(self, work: Callable[[], Awaitable[T]]) -> T:
        """The result of `work`, repeated with growing pauses while MongoDB is away.

        `StoreError` when it is away for longer than MONGO_RETRY_SECONDS, or not usable.
        """
        if self._given_up:
            raise self._given_up
        try:
            return await work()
        except PyMongoError as error:
            return await self._retry(work, error)

    async def _retry(self, work: Callable[[], Awaitable[T]], error: PyMongoError) -> T:
        self._waiting += 1
        began = monotonic()
        for attempt in itertools.count():
            self._away(error, monotonic() - began)
            self._count("mongo/retries", 1)
            await asyncio.sleep(min(0.05 * 2**attempt, 5) * random.uniform(0.5, 1))
            await self._restart_server()
            if self._given_up:
                break
            try:
                result = await work()
            except PyMongoError as again:
                error = again
            else:
                self._back()
                return result
        raise self._given_up or error

    def _away(self, error: PyMongoError, seconds: float) -> None:
        """Note an outage; `StoreError` where waiting is over or does not help."""
        if not _is_passing_error(error):
            raise StoreError(self._explain(error)) from None
        if self._away_since is None:
            self._away_since = monotonic()
            logger.warning(
                "MongoDB at %s is away (%s): the crawl waits for it, %g s at the most",
                self.place,
                brief(str(error), 200),
                self._retry_seconds,
            )
        if seconds >= self._retry_seconds:
            self._count("mongo/outage_seconds", monotonic() - self._away_since)
            self._given_up = StoreError(
                f"MongoDB at {self.place} stayed away for {self._retry_seconds:g} s: see to it, "
                f"and run the crawl again"
            )
            raise self._given_up

    def _back(self) -> None:
        """One that waited goes on; the outage is over when none waits any more."""
        self._waiting -= 1
        if self._away_since is not None and not self._waiting:
            seconds = monotonic() - self._away_since
            self._away_since = None
            self._count("mongo/outage_seconds", seconds)
            logger.info("MongoDB is back after %.1f s", seconds)

    async def _restart_server(self) -> None:
        if self._client is not None and self._server is not None:
            with suppress(MongodError):  # the next try says that it is away
                await self._server.start()

    async def _choose_uri(self) -> str:
        if not await self.uses_embedded():
            return self._uri or LOCAL_URI
        self._server = EmbeddedServer(data_dir(self._settings))
        await self._server.start()
        return self._server.uri

    async def _check_version(self) -> None:
        assert self._client is not None
        info = await self._client.server_info()
        self.version = info["version"]
        if tuple(info["versionArray"][:2]) < _OLDEST:
            raise StoreError(
                f"MongoDB {self.version} at {self.place} is too old: 5.0 or later is needed"
            )

    async def _make_indexes(self) -> None:
        if not _has_unique(await self._books.index_information()):
            await self._books.create_index("id", unique=True)
        try:
            await self._books.create_index("listed_at")  # tells also whether one may write
        except OperationFailure as error:
            if error.code not in _OTHER_INDEX:  # one with other options serves as well
                raise

    def _explain(self, error: PyMongoError) -> str:
        where = self.place or "MONGO_URI"
        code = error.code if isinstance(error, OperationFailure) else None
        if isinstance(error, DuplicateKeyError):
            return (
                f"{where} holds books twice, so that its unique index on id can't be made: "
                f"remove the copies (README, Duplicates) or use another MONGO_COLLECTION"
            )
        if code in _OTHER_INDEX:
            return (
                f"{where} has an index on id that is not unique: drop it with "
                f"db.{self._collection}.dropIndex('id_1'), and crawl again"
            )
        if code == 18:
            return f"{where}: user or password is wrong, check MONGO_URI"
        if code == 13:
            return f"{where}: this user may not use it (not authorized), check MONGO_URI"
        if isinstance(error, ConfigurationError) and "wire version" in str(error):
            return f"MongoDB at {where} is too old: 5.0 or later is needed"
        if isinstance(error, ConnectionFailure):
            return f"no MongoDB answers at {where}: start it, or check MONGO_URI"
        return f"{where}: {brief(str(error), 200)}"


def _has_unique(indexes: Mapping[str, Any]) -> bool:
    on_id = [index for index in indexes.values() if list(index["key"]) == [("id", 1)]]
    return any(index.get("unique") for index in on_id)


def _is_passing_error(error: PyMongoError) -> bool:
    """Whether to try again: the server or the way to it is away, not the request wrong."""
    if isinstance(error, OperationFailure):
        return error.code in _PASSING or error.has_error_label("RetryableWriteError")
    return isinstance(error, ConnectionFailure)


def _refusal(error: dict[str, Any]) -> Rejected:
    duplicate = error["code"] == _DUPLICATE_KEY and error.get("keyPattern") in _OUR_KEYS
    return Rejected(brief(str(error.get("errmsg")), 200), is_duplicate=duplicate)


def _client(uri: str) -> AsyncIOMotorClient[dict[str, Any]]:
    """A client that does not wait for ever."""
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
            client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(uri, **options)
    except (PyMongoError, OSError, ValueError, TypeError, UserWarning):
        # The driver's own words may quote a part of the password.
        raise StoreError(
            "MONGO_URI is not valid: use mongodb://user:password@host:27017/ with the special "
            "characters of user and password percent-encoded, or 'embedded'"
        ) from None
    if not client.write_concern.acknowledged:
        raise StoreError("MONGO_URI says w=0: a book counts only when MongoDB acknowledges it")
    return client


def _hosts(client: AsyncIOMotorClient[dict[str, Any]]) -> str:
    seeds = cast("Any", client).topology_description.server_descriptions()
    return ",".join(host if port is None else f"{host}:{port}" for host, port in sorted(seeds))


async def _answers(uri: str) -> bool:
    address = urlsplit(uri)
    try:  # the driver would go on trying where nobody listens
        connecting = asyncio.open_connection(address.hostname, address.port)
        _, writer = await asyncio.wait_for(connecting, 0.5)
    except (OSError, asyncio.TimeoutError):
        return False
    writer.close()
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(
        uri, serverSelectionTimeoutMS=500
    )
    try:
        await client.admin.command("ping")
    except ConnectionFailure:
        return False
    except PyMongoError:  # it is there, and `open` will say what is wrong with it
        return True
    finally:
        client.close()
    return True
