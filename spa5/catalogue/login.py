"""Log-in: a site is given an account for a token, and each request of its API bears the token."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from math import inf
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from scrapy.exceptions import DownloadFailedError, UsageError

from spa5.catalogue.gate import SiteAway

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    from scrapy.http import Response
    from scrapy.settings import BaseSettings

    Send: TypeAlias = Callable[[str, dict[str, Any]], Awaitable[Response]]  # path, JSON to post

logger = logging.getLogger(__name__)

_SHARE_OF_LIFE = 0.75  # after which a token is renewed
_NOT_JSON = (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError)


class LogInFailed(DownloadFailedError):
    """The site gave no token, but it may the next time. This counts as a failed connection."""


class LogInRefused(SiteAway):
    """The site refuses the account, and would do so again."""


@dataclass(frozen=True)
class LogIn:
    """How a site is logged in to. The spider's `log_in` holds it.

    SITE_USER and SITE_PASSWORD are posted to `path` as JSON, and the answer holds a token. If the
    site has a `renewal_path`, it takes a token there and answers with a new one. Each request then
    bears `Authorization: <scheme> <token>`. If the JSON has other names, a subclass overrides
    `account` or `token`.
    """

    path: str
    renewal_path: str | None = None
    scheme: str = "Bearer"

    def account(self, user: str, password: str) -> dict[str, Any]:
        """Return the JSON that is posted to `path`."""
        return {"username": user, "password": password}

    def token(self, answer: Any) -> Any:
        """The token in the answer, given its JSON."""
        return answer["token"]


def account_in(settings: BaseSettings, log_in: LogIn) -> dict[str, Any]:
    """The user's account as the site takes it; `UsageError` where there is none."""
    user, password = settings["SITE_USER"], settings["SITE_PASSWORD"]
    if not (user and password):
        raise UsageError("this site needs a log-in: set SITE_USER and SITE_PASSWORD, see README")
    return log_in.account(user, password)


@dataclass(frozen=True)
class Token:
    text: str
    renew_at: float  # on the session's clock; infinity where nobody knows when the token ends


class Session:
    """Holds the token of a crawl. It asks the site for one when there is none, and before it ends.

    The site is asked once, however many requests wait for the token.
    """

    def __init__(
        self, log_in: LogIn, account: dict[str, Any], clock: Callable[[], float] = monotonic
    ):
        self._log_in = log_in
        self._account = account
        self._clock = clock
        self._token: Token | None = None
        self._asking: asyncio.Task[Token] | None = None
        self._refusal: LogInRefused | None = None

    async def header(self, send: Send) -> str:
        """The Authorization header with a valid token, which may have to be asked for first.

        It raises LogInRefused, LogInFailed, or what `send` raises.
        """
        token = self._token
        if token is None or self._clock() >= token.renew_at:
            if self._asking is None:
                self._asking = asyncio.ensure_future(self._ask(send))
            token = await asyncio.shield(self._asking)
        return f"{self._log_in.scheme} {token.text}"

    def forget(self, header: str) -> None:
        """Note that the site does not take this header; by now there may be a newer token."""
        if self._token and header == f"{self._log_in.scheme} {self._token.text}":
            self._token = None

    async def _ask(self, send: Send) -> Token:
        try:
            self._token = await self._renewed(send) or await self._new(send)
            return self._token
        finally:
            self._asking = None

    async def _renewed(self, send: Send) -> Token | None:
        """A token for the one that ends; None where the site gives none."""
        if self._token is None or self._log_in.renewal_path is None:
            return None
        return self._found(await send(self._log_in.renewal_path, {"token": self._token.text}))

    async def _new(self, send: Send) -> Token:
        """A token for the account."""
        if self._refusal:
            raise self._refusal
        response = await send(self._log_in.path, self._account)
        if token := self._found(response):
            return token
        status = response.status
        if status < 300:
            raise LogInFailed("no token in the answer")
        if status in (408, 429) or status >= 500:
            raise LogInFailed(f"status {status}")
        names = "SITE_USER and SITE_PASSWORD" if status in (400, 401, 403) else "SITE_URL"
        self._refusal = LogInRefused(
            f"The site refuses the log-in (status {status}): check {names}"
        )
        logger.error("%s", self._refusal)
        raise self._refusal

    def _found(self, response: Response) -> Token | None:
        if not 200 <= response.status < 300:
            return None
        try:
            text = self._log_in.token(json.loads(response.body))
        except _NOT_JSON:
            return None
        if not isinstance(text, str) or not re.fullmatch("[!-~]+", text):  # else it is no header
            return None
        return Token(text, self._clock() + _SHARE_OF_LIFE * seconds_left(text))


def seconds_left(token: str) -> float:
    """Return how long a JSON Web Token (RFC 7519) stays valid; infinity if nobody can tell."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        left = float(claims["exp"]) - time()
    except _NOT_JSON:
        return inf
    return left if left > 0 else inf  # it can't have ended yet: the clock here is wrong
