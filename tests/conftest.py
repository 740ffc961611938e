"""What the tests share: a real MongoDB and databases of their own in it."""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import TYPE_CHECKING, Any

import pytest
from bson.codec_options import CodecOptions
from hypothesis import HealthCheck, settings
from pymongo import MongoClient

from spa5.mongo.server import EmbeddedServer
from tests.helpers.databases import Database
from tests.helpers.mongods import PASSWORD, mongod_with_users

if TYPE_CHECKING:
    from collections.abc import Iterator


# A command that is started over and over shall not compile the project each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

_number = itertools.count(1)

# How long an example takes depends on the machine.
settings.register_profile(
    "patient", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")


def pytest_xdist_auto_num_workers() -> int:
    """Two for each core: a test waits about as long as it computes."""
    return 2 * (os.cpu_count() or 1)


@pytest.fixture(scope="session")
def mongo_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a MongoDB server that runs for the whole session."""
    server = EmbeddedServer(tmp_path_factory.mktemp("mongodb"))
    asyncio.run(server.start())
    try:
        yield server.uri
    finally:
        asyncio.run(server.stop())


@pytest.fixture(scope="session")
def mongo(mongo_uri: str) -> Iterator[MongoClient[dict[str, Any]]]:
    with MongoClient[dict[str, Any]](mongo_uri) as client:
        yield client


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with the users `reader` and `writer` of the database "guarded"."""
    with mongod_with_users(tmp_path_factory.mktemp("auth"), "guarded", PASSWORD) as host:
        yield host


@pytest.fixture
def database(mongo: MongoClient[dict[str, Any]], mongo_uri: str) -> Iterator[Database]:
    name = f"test{next(_number)}"
    books = mongo[name].get_collection("books", codec_options=CodecOptions(tz_aware=True))
    yield Database(mongo_uri, name, books)
    mongo.drop_database(name)
