"""The Redis server: how it is reached, and what is said where it can't be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    RedisError,
    ResponseError,
)

from spa5.catalogue.text import Trouble, brief, one_line

if TYPE_CHECKING:
    from scrapy.settings import BaseSettings

TIMEOUT_SECONDS = 2.0  # of one round trip
_MOST_ID = 200  # characters


class RedisUnavailable(Trouble):
    """Redis can't be used."""


def shared(settings: BaseSettings) -> tuple[str, str]:
    """REDIS_URL and CRAWL_ID; `RedisUnavailable` where one of them is missing or unusable."""
    url, crawl_id = settings["REDIS_URL"], str(settings["CRAWL_ID"] or "")
    if not url or not crawl_id:
        raise RedisUnavailable("A shared crawl needs REDIS_URL and CRAWL_ID: set both")
    if not crawl_id.isprintable() or len(crawl_id) > _MOST_ID:
        raise RedisUnavailable(
            f"CRAWL_ID={brief(crawl_id)}: use at most {_MOST_ID} printable characters"
        )
    return url, crawl_id


async def ping(url: str) -> str:
    """The place of a Redis that answers; `RedisUnavailable` where none does."""
    redis = client(url)
    try:
        await redis.ping()
    except RedisError as error:
        raise RedisUnavailable(explain(place(redis), error)) from None
    finally:
        await redis.aclose()
    return place(redis)


def client(url: str) -> Redis:
    """A client of Redis that gives up after TIMEOUT_SECONDS, and tries nothing twice."""
    try:
        return Redis.from_url(
            url,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
    except (ValueError, TypeError):  # whose words may quote the password
        raise RedisUnavailable(
            "REDIS_URL is not valid: use redis://user:password@host:6379/0"
        ) from None


def explain(where: str, error: RedisError) -> str:
    """One line for people."""
    cause = error.__cause__ or error  # on a Unix socket it is wrapped
    said = one_line(error)
    if isinstance(cause, (AuthenticationError, NoPermissionError)):
        return f"Redis at {where} refuses user or password: check REDIS_URL"
    if is_of_others(error):
        return f"Redis at {where} holds other things under the keys of this CRAWL_ID: use another"
    if isinstance(cause, ResponseError):
        return f"Redis at {where} refuses to work ({said}): see to it, or check REDIS_URL"
    return f"no Redis answers at {where} ({said}): start it, or check REDIS_URL"


def is_of_others(error: RedisError) -> bool:
    """True if a key holds what no worker puts there. To wait does not help against that."""
    return "WRONGTYPE" in str(error)


def place(redis: Redis) -> str:
    """Return the address for people, without credentials."""
    options = redis.connection_pool.connection_kwargs
    if "path" in options:
        return str(options["path"])
    return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
