"""Door: the log-in of https://login3.scrape.center, as observed.

`site.control(log_in={"user": …, "password": …, "seconds": 2})` shuts it: the API then wants a
token. Done again, earlier tokens are worth nothing. `log_in=None` opens it.
"""

from __future__ import annotations

import hmac
import json
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

HALF_A_DAY = 43_200


@dataclass
class Counts:
    """What the door was asked for."""

    log_ins: int = 0
    renewals: int = 0
    unauthorized: int = 0  # requests of the API
    tokens: list[str] = field(default_factory=list)  # that were given


class Refusal(Exception):
    """The text is the site's."""


@dataclass
class Door:
    """Gives tokens for one account, and lets requests with a valid one through."""

    user: str
    password: str
    seconds: float = HALF_A_DAY  # that a token is valid, less what rounding down takes
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    async def answer(self, request: web.BaseRequest, counts: Counts) -> web.Response | None:
        """The door's answer; None where the request may pass."""
        target = request.raw_path
        if target.startswith(("/api/login", "/api/refresh")):
            return await self._give(request, target, counts)
        if not target.startswith("/api/"):
            return None
        try:
            self._check(request.headers.get("Authorization", ""))
        except Refusal as refusal:
            counts.unauthorized += 1
            headers = {"WWW-Authenticate": 'JWT realm="api"'}
            return web.json_response({"detail": str(refusal)}, status=401, headers=headers)
        return None

    async def _give(self, request: web.BaseRequest, target: str, counts: Counts) -> web.Response:
        """A token, for the account or for another token."""
        if target not in ("/api/login", "/api/refresh"):
            return web.Response(text="<h1>Not Found</h1>", content_type="text/html", status=404)
        if request.method != "POST":
            return web.json_response({"detail": 'Method "GET" not allowed.'}, status=405)
        try:
            token = self._token(target, json.loads(await request.read()), counts)
        except Refusal as refusal:
            return web.json_response({"non_field_errors": [str(refusal)]}, status=400)
        counts.tokens.append(token)
        return web.json_response({"token": token})

    def _token(self, target: str, given: dict[str, Any], counts: Counts) -> str:
        if target == "/api/refresh":
            counts.renewals += 1
            return self.sign(read(given["token"], self.key)["orig_iat"])
        counts.log_ins += 1
        if (given["username"], given["password"]) != (self.user, self.password):
            raise Refusal("Unable to log in with provided credentials.")
        return self.sign(int(time.time()))

    def sign(self, logged_in_at: int) -> str:
        """A JSON Web Token that is valid from now on."""
        ends = int(time.time() + self.seconds)
        payload = {"user_id": 1, "username": self.user, "exp": ends, "email": ""}
        payload["orig_iat"] = logged_in_at
        text = f"{_encoded({'typ': 'JWT', 'alg': 'HS256'})}.{_encoded(payload)}"
        return f"{text}.{_signature(text, self.key)}"

    def _check(self, header: str) -> None:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "jwt":
            raise Refusal("Authentication credentials were not provided.")
        read(token, self.key)


def read(token: str, key: bytes) -> dict[str, Any]:
    """The payload of a token, which must be whole and must not have ended."""
    text, _, signature = token.rpartition(".")
    if not hmac.compare_digest(signature, _signature(text, key)):
        raise Refusal("Error decoding signature.")
    payload = text.partition(".")[2]
    claims: dict[str, Any] = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    if claims["exp"] <= time.time():
        raise Refusal("Signature has expired.")
    return claims


def _encoded(value: dict[str, Any]) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _signature(text: str, key: bytes) -> str:
    return _base64(hmac.digest(key, text.encode(), "sha256"))


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
