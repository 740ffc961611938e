"""Store: the items in MongoDB, and the retries while it is away."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from contextlib import suppress
from functools import partial
from itertools import compress
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo import UpdateOne, WriteConcern
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    OperationFailure,
    PyMongoError,
    WriteError,
)

from spa5.catalogue.fields import now
from spa5.catalogue.text import brief
from spa5.mongo import found
from spa5.mongo.connection import (
    LOCAL_URI,
    PASSING,
    StoreError,
    connect,
    database_of,
    explain,
    has_local_server,
    hosts,
    is_passing,
)
from spa5.mongo.directory import MongodError, data_dir
from spa5.mongo.documents import Document, HeldBack, Outcome, Rejected, Update, plan
from spa5.mongo.server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from typing import TypeAlias

    from bson import ObjectId
    from scrapy.settings import BaseSettings

    from spa5.catalogue.item import Key, Schema
    from spa5.mongo.connection import Client

logger = logging.getLogger(__name__)
# At DEBUG the driver logs each command with the items in it.
logging.getLogger("pymongo").setLevel(logging.INFO)

T = TypeVar("T")
Results: TypeAlias = "dict[ObjectId, Outcome | Rejected | HeldBack]"

_OLDEST = (5, 0)  # the first that takes field names with dots and dollars in `extra`
_DUPLICATE_KEY = 11000
_BAD_VALUE = 2
_CONFIRM_MILLISECONDS = 20_000  # then it is said that members are down, and not that none answers
_TOO_DEEP = 15
_MOST_IDS = 10_000  # in a query
_MOST_TRIES = 5  # to write what something else deletes or inserts at the same moment
_LENIENT: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="replace",
)


class Seen(NamedTuple):
    """What is stored of listed items, and where `listed_at` could not be set; both by id."""

    stored: dict[Key, dict[str, Any]]  # as it was before `listed_at` was set
    refused: dict[Key, str]  # why


class Written(NamedTuple):
    """What a bulk write did, by the position of its updates."""

    upserted: set[int]
    matched: int
    refused: dict[int, Rejected]

    def met_all(self, updates: Sequence[Update]) -> bool:
        """True if each update has met the document that it was meant for, or was refused."""
        upserts = {index for index, update in enumerate(updates) if update.upsert}
        done = self.matched + len(self.upserted) + len(self.refused)
        return done == len(updates) and upserts <= self.upserted | self.refused.keys()


class Store:
    """The collection of items, retried while MongoDB is away for at most MONGO_RETRY_SECONDS.

    Settings: MONGO_URI, MONGO_DATABASE, MONGO_COLLECTION, MONGO_DATA_DIR, MONGO_RETRY_SECONDS.
    """

    def __init__(
        self,
        settings: BaseSettings,
        spider_name: str,
        schema: Schema,
        count: Callable[[str, Any], None],
        admit: Callable[[Key, Iterable[str]], Awaitable[str | None]] | None = None,
    ):
        self.schema = schema
        self._admit = admit  # see `Drift`; None: every update
        self._uri: str = settings["MONGO_URI"] or ""
        self._database: str = settings["MONGO_DATABASE"] or spider_name
        self._collection: str = settings["MONGO_COLLECTION"] or spider_name
        self._settings = settings
        self._server: EmbeddedServer | None = None  # the embedded one, where it is used
        self._index: str | None = None  # the unique one's name; None: nothing is written
        self._expects_new = True
        # What SkipStored decides by.
        self._seen = dict.fromkeys((schema.key, *schema.listed, "crawled_at", "listed_at"), 1)
        self._key_alone = {schema.key: 1, "_id": 0}  # the index alone tells it
        self._client: Client | None = None
        self._retry_seconds = settings.getfloat("MONGO_RETRY_SECONDS")
        self._count = count  # of stats
        self._away_since: float | None = None
        self._waiting = 0  # queries and writes that are being repeated
        self._given_up: StoreError | None = None
        self.place = ""  # where the items are, for people: no credentials in it
        self.version = ""  # MongoDB's

    async def open(self, *, read_only: bool = False) -> None:
        """Connect, starting the embedded server where it is to be used, and make the index.

        With `read_only` nothing is written, not even an index, and an embedded server that runs
        without a crawl goes on.
        """
        try:
            self._client = connect(await self._choose_uri(read_only))
            self._warn_of_database()
            where = self._server.place if self._server else hosts(self._client)
            self.place = f"{where}, {self._database}.{self._collection}"
            # Acknowledged means in the journal of a majority, if MONGO_URI does not say otherwise.
            # With `j` alone a replica set's primary would confirm what a failover takes back.
            asked = self._client.write_concern.document
            own: dict[str, Any] = {"w": "majority", "j": True, "wtimeout": _CONFIRM_MILLISECONDS}
            concern = WriteConcern(**own | asked)
            self._items = self._client[self._database].get_collection(
                self._collection, codec_options=_LENIENT, write_concern=concern
            )
            database = self._client[self._database]
            self._crawls = database.get_collection("crawls", write_concern=concern)
            await self._check_version()
            if not read_only:
                await self._make_index()
                await self.try_write()
        except MongodError as error:
            raise StoreError(str(error)) from None
        except PyMongoError as error:
            raise StoreError(self._explain(error)) from None

    def _warn_of_database(self) -> None:
        """MONGO_DATABASE rules, for the name in a URI often is where the user is looked up."""
        named = database_of(self._uri)
        if named not in ("", self._database):
            logger.warning(
                "MONGO_URI names the database %r, this crawl uses %r: MONGO_DATABASE says which",
                named,
                self._database,
            )

    async def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._server is not None:
            await self._server.stop()

    async def uses_embedded(self) -> bool:
        """Whether `open` takes the embedded server; it is not started yet."""
        return self._uri == "embedded" or not (self._uri or await has_local_server())

    async def try_write(self) -> tuple[dict[str, Any], bool]:
        """A write that changes nothing; `StoreError` where a crawl's would fail.

        Return the write concern, and whether a replica set took it.
        """
        assert self._client is not None
        try:
            await self._items.update_many({"_id": {"$in": []}}, {"$set": {self.schema.key: ""}})
            hello = await self._client.admin.command("hello")
        except PyMongoError as error:
            raise StoreError(self._explain(error)) from None
        return self._items.write_concern.document, "setName" in hello

    async def has_unique_index(self) -> bool:
        """Whether it is there; `StoreError` where it could not be made. Writes nothing."""
        try:
            if await found.unique_index(self._items, self.schema):
                return True
            await found.refuse_copies(self._items, self.schema)
        except PyMongoError as error:
            raise StoreError(self._explain(error)) from None
        return False

    async def write(self, documents: list[Document]) -> Sequence[Outcome | Exception]:
        """Store a batch; return for each, in order, what it was or why it is `Rejected`.

        While all items are new, one round trip inserts them. The others are compared with what
        is stored, in a query before the write. Of two with one id the first goes first.
        """
        moment = now()
        results: Results = {}
        if self._expects_new:
            results = await self._insert(documents, moment)
        while left := {one.key: one for one in reversed(documents) if one.oid not in results}:
            results |= await self._update([*reversed(left.values())], moment)
        self._expects_new = all(results[document.oid] == "inserted" for document in documents)
        return [results[document.oid] for document in documents]

    async def _insert(self, documents: list[Document], moment: datetime) -> Results:
        """Insert the new ones; return nothing for those that are stored already."""
        updates = [document.as_new(moment) for document in documents]
        written = await self._persist(self._bulk_write, updates)
        results: Results = {documents[index].oid: "inserted" for index in written.upserted}
        return results | {documents[index].oid: why for index, why in written.refused.items()}

    async def _update(self, documents: list[Document], moment: datetime) -> Results:
        """Query, compare and write; again where a document was deleted or inserted meanwhile.

        The outcomes come from the query, so that a write which had to be repeated is not counted
        as something else.
        """
        results: Results = {}
        for _ in range(_MOST_TRIES):
            stored = await self.get([document.key for document in documents])
            plans = [plan(document, stored.get(document.key), moment) for document in documents]
            if not results:
                results |= await self._hold_back(documents, plans, stored)
                kept = [document.oid not in results for document in documents]
                documents, plans = [*compress(documents, kept)], [*compress(plans, kept)]
            if not documents:
                return results
            updates = [update for _, update in plans]
            written = await self._persist(self._bulk_write, updates)
            for index, (document, (outcome, _)) in enumerate(zip(documents, plans, strict=True)):
                if outcome != "unchanged" or results.get(document.oid) != "changed":
                    results[document.oid] = written.refused.get(index, outcome)
            if written.met_all(updates):
                return results
        held = await self.held(document.key for document in documents)
        lost = Rejected("MongoDB acknowledges it and does not hold it: something deletes items")
        return results | {one.oid: lost for one in documents if one.key not in held}

    async def _hold_back(
        self,
        documents: list[Document],
        plans: list[tuple[Outcome, Update]],
        stored: dict[Key, dict[str, Any]],
    ) -> Results:
        """Ask `admit` about each document that is stored already; return those held back."""
        results: Results = {}
        if self._admit is None:
            return results
        for document, (outcome, _) in zip(documents, plans, strict=True):
            if outcome == "inserted":
                continue
            changed = outcome == "changed"
            emptied = document.emptied(stored[document.key]) if changed else []
            if field := await self._admit(document.key, emptied):
                results[document.oid] = HeldBack(f"it would empty {field!r}, as others would")
        return results

    async def see(self, ids: Iterable[Key]) -> Seen:
        """Return what is stored of the listed items, then set their `listed_at` to now."""
        seen = Seen({}, {})
        for chunk in _chunks(ids):
            stored = await self._persist(self._find, chunk, self._seen)
            seen.stored.update(stored)
            if stored:
                seen.refused.update(await self._persist(self._set_listed, list(stored)))
        return seen

    async def get(self, ids: Iterable[Key]) -> dict[Key, dict[str, Any]]:
        """The stored documents of these items, by id."""
        stored: dict[Key, dict[str, Any]] = {}
        for chunk in _chunks(ids):
            stored |= await self._persist(self._find, chunk)
        return stored

    async def held(self, ids: Iterable[Key]) -> set[Key]:
        """Which of these items are stored now."""
        held: set[Key] = set()
        for chunk in _chunks(ids):
            stored = await self._persist(
                self._find, chunk, {self.schema.key: 1, "_id": 0}
            )  # the index alone tells it
            held.update(one for one in chunk if one in stored)
        return held

    async def total(self) -> int:
        """How many documents the collection holds."""
        return await self._persist(self._items.count_documents, {})

    async def last_complete(self, spider: str, site: str) -> int | None:
        """How many items the last complete crawl of the whole catalogue found; None: no such."""
        query = {"spider": spider, "site": site, "collection": self._collection}
        youngest = [("ended", -1)]
        found = await self._persist(lambda: self._crawls.find_one(query, sort=youngest))
        listed = (found or {}).get("listed")
        return listed if isinstance(listed, int) else None

    async def note_complete(self, spider: str, site: str, listed: int) -> None:
        """Remember a complete crawl of the whole catalogue."""
        crawl: dict[str, Any] = {"spider": spider, "site": site, "collection": self._collection}
        crawl |= {"ended": now(), "reason": "finished", "listed": listed}
        try:
            await self._persist(lambda: self._crawls.insert_one(crawl))
        except StoreError as error:
            logger.warning("This crawl can't be noted in `crawls`: %s", error)

    async def _find(
        self, ids: list[Key], projection: dict[str, int] | None = None
    ) -> dict[Key, dict[str, Any]]:
        key, kind = self.schema.key, self.schema.kind.type
        query = {key: {"$in": ids}}
        found = self._items.find(query, projection, hint=self._index, batch_size=len(ids) + 1)
        return {item[key]: item async for item in found if isinstance(item[key], kind)}

    async def _set_listed(self, ids: list[Key]) -> dict[Key, str]:
        """Note that these stored items are listed; return why, by id, where MongoDB refuses it."""
        change = {"$set": {"listed_at": now()}}
        try:
            await self._items.update_many({self.schema.key: {"$in": ids}}, change, hint=self._index)
        except WriteError as error:  # it ends at the first document that is refused
            if is_passing(error) or _lacks_index(error.code, str(error)):
                raise
            written = await self._bulk_write([Update(one, change, upsert=False) for one in ids])
            return {ids[index]: str(refusal) for index, refusal in written.refused.items()}
        return {}

    async def _bulk_write(self, updates: Sequence[Update]) -> Written:
        """Write, each update on the unique index: without it MongoDB refuses them all."""
        operations = [
            UpdateOne({self.schema.key: key}, change, upsert, hint=self._index)
            for key, change, upsert in updates
        ]
        try:
            result = await self._items.bulk_write(operations, ordered=False)
        except BulkWriteError as error:
            return _written(error.details, self.schema.key)
        except OperationFailure as error:
            if error.code != _TOO_DEEP:
                raise
            return await self._write_one_by_one(updates)
        return _written(result.bulk_api_result, self.schema.key)

    async def _write_one_by_one(self, updates: Sequence[Update]) -> Written:
        """One item made MongoDB refuse the message with all of them: find it."""
        if len(updates) == 1:
            return Written(set(), 0, {0: Rejected("it is nested too deeply for MongoDB")})
        every = Written(set(), 0, {})
        for index, update in enumerate(updates):
            one = await self._bulk_write([update])
            every.upserted.update({index} if one.upserted else ())
            every.refused.update({index: one.refused[0]} if one.refused else {})
            every = every._replace(matched=every.matched + one.matched)
        return every

    async def _persist(self, work: Callable[..., Awaitable[T]], *args: Any) -> T:
        """The result of `work`, repeated with growing pauses while MongoDB is away.

        `StoreError` when it is away for longer than MONGO_RETRY_SECONDS, or not usable.
        """
        if self._given_up:
            raise self._given_up
        attempt = partial(self._on_index, partial(work, *args))
        try:
            return await attempt()
        except PyMongoError as error:
            return await self._retry(attempt, error)

    async def _on_index(self, work: Callable[[], Awaitable[T]]) -> T:
        """The result of `work`; where it finds the unique index gone, that is made again first."""
        for _ in range(_MOST_TRIES):
            try:
                return await work()
            except OperationFailure as error:
                if not _lacks_index(error.code, str(error)):
                    raise
            logger.warning(
                "%s has lost its unique index on %s: it is made again", self.place, self.schema.key
            )
            await self._make_index()
        return await work()

    async def _retry(self, work: Callable[[], Awaitable[T]], error: PyMongoError) -> T:
        self._waiting += 1
        began = monotonic()
        for attempt in itertools.count():
            self._away(error, monotonic() - began)
            self._count("mongo/retries", 1)
            await asyncio.sleep(min(0.05 * 2 ** min(attempt, 7), 5) * random.uniform(0.5, 1))
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
        if not is_passing(error):
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

    async def _choose_uri(self, read_only: bool) -> str:
        if not await self.uses_embedded():
            return self._uri or LOCAL_URI
        self._server = EmbeddedServer(data_dir(self._settings))
        await self._server.start(visit=read_only)
        return self._server.uri

    async def _check_version(self) -> None:
        assert self._client is not None
        info = await self._client.server_info()
        self.version = info["version"]
        if tuple(info["versionArray"][:2]) < _OLDEST:
            raise StoreError(
                f"MongoDB {self.version} at {self.place} is too old: 5.0 or later is needed"
            )

    async def _make_index(self) -> None:
        self._index = await found.unique_index(self._items, self.schema)
        if self._index is None:
            self._index = await found.make_unique_index(self._items, self.schema)

    def _explain(self, error: PyMongoError) -> str:
        return explain(error, self.place or "MONGO_URI", self._uri)


def _lacks_index(code: int | None, message: str) -> bool:
    return code == _BAD_VALUE and "hint provided does not correspond" in message


def _written(details: Mapping[str, Any], key: str) -> Written:
    """What a bulk write did; raises what concerns it as a whole.

    Two crawls that insert a new item at the same moment may collide on its id: that is no
    refusal, the loser has not met its document.
    """
    errors = details["writeErrors"]
    for one in errors:
        if _lacks_index(one["code"], one["errmsg"]):
            raise OperationFailure(one["errmsg"], one["code"])
    if passing := [*details["writeConcernErrors"], *filter(_is_passing_refusal, errors)]:
        raise AutoReconnect(passing[0]["errmsg"])
    refused = {
        one["index"]: Rejected(brief(str(one.get("errmsg")), 200))
        for one in errors
        if one["code"] != _DUPLICATE_KEY or one.get("keyPattern") not in ({key: 1}, {"_id": 1})
    }
    upserted = {one["index"] for one in details["upserted"]}
    return Written(upserted, details["nMatched"], refused)


def _is_passing_refusal(error: Mapping[str, Any]) -> bool:
    return error["code"] in PASSING


def _chunks(ids: Iterable[Key]) -> Iterator[list[Key]]:
    left = iter(ids)
    while chunk := list(itertools.islice(left, _MOST_IDS)):
        yield chunk
