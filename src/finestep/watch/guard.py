"""Guard: who may ask the page's server. Its own machine alone, by its own name, from its own page; others with a token.

A page of another site cannot read a study: its requests carry its own origin, and where it has pointed a name of its own
at this machine (DNS rebinding), that name as the host.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Collection
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
FEWEST_TOKEN_CHARACTERS = 16
COOKIE = "finestep_token"
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}
STEERING = "/commands"
"""The only path that takes anything but GET and HEAD ends so."""


class Guard:
    """ASGI middleware that lets nothing through but what the page itself asks.

    Args:
        names: hosts that the server answers to, without ports.
        port: of the server.
        token: who knows it may steer; None: nobody may.
        open_to_all: reading needs no token, as on the own machine.
        any_address: a host may also be any address, for a server that listens on all of them.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        names: Collection[str],
        port: int,
        token: str | None,
        open_to_all: bool,
        any_address: bool = False,
    ):
        self._app, self._names, self._port = app, {name.lower() for name in names}, port
        self._token, self._open, self._any_address = token, open_to_all, any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        status, text = self._refusal(scope["method"], scope["path"], headers)
        if status is None and (place := self._with_cookie(scope)) is not None:
            await _answer(send, 303, "", [(b"location", place.encode()), (b"set-cookie", self._cookie())])
            return
        knows = self._knows(headers)
        if status is None and not knows and (not self._open or scope["method"] == "POST"):
            status, text = 401, "this page needs its token: open the whole address that finestep has printed"
        if status is not None:
            await _answer(send, status, text)
            return
        scope = {**scope, "finestep_can_steer": knows}
        await self._app(scope, receive, _with_headers(send))

    def _refusal(self, method: str, path: str, headers: list[tuple[bytes, bytes]]) -> tuple[int | None, str]:
        if method not in ("GET", "HEAD") and not (method == "POST" and path.endswith(STEERING)):
            return 405, "this page is for reading"
        hosts = _values(headers, b"host")
        if len(hosts) != 1 or not self._is_own(hosts[0]):
            return 403, "this server does not answer to that name"
        for origin in _values(headers, b"origin"):
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or parts.netloc.lower() != hosts[0].lower():
                return 403, "another site may not read this page"
        site, mode = _values(headers, b"sec-fetch-site"), _values(headers, b"sec-fetch-mode")
        if "cross-site" in site and (method != "GET" or "navigate" not in mode):
            return 403, "another site may not read this page"
        if method == "POST" and not any(
            one.startswith("application/json") for one in _values(headers, b"content-type")
        ):
            return 415, "a command is JSON"
        return None, ""

    def _is_own(self, host: str) -> bool:
        if not host or any(char in host for char in "@/\\ ,;\t"):
            return False
        try:
            parts = urlsplit(f"//{host}")
            name, port = (parts.hostname or "").lower(), parts.port
        except ValueError:
            return False
        if port not in (None, self._port) or host.endswith(":"):
            return False
        return name in self._names or (self._any_address and _is_address(name))

    def _knows(self, headers: list[tuple[bytes, bytes]]) -> bool:
        if self._token is None:
            return False
        said = [one[7:] for one in _values(headers, b"authorization") if one.startswith("Bearer ")]
        for text in _values(headers, b"cookie"):
            try:
                found = SimpleCookie(text).get(self._cookie_name)
            except CookieError:
                continue
            said += [found.value] if found is not None else []
        return any(secrets.compare_digest(one.encode(), self._token.encode()) for one in said)

    def _with_cookie(self, scope: Scope) -> str | None:
        """Where to send somebody who brings the token in the address: there without it, with a cookie."""
        if self._token is None or scope["method"] != "GET":
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        brought = [value for name, value in query if name == "token"]
        if len(brought) != 1 or not secrets.compare_digest(brought[0].encode(), self._token.encode()):
            return None
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        path = "/" + str(scope["path"]).lstrip("/")
        return path + (f"?{rest}" if rest else "")

    @property
    def _cookie_name(self) -> str:
        return f"{COOKIE}_{self._port}"  # cookies do not tell ports apart

    def _cookie(self) -> bytes:
        return f"{self._cookie_name}={self._token}; HttpOnly; SameSite=Strict; Path=/".encode()


def names_of(host: str) -> tuple[set[str], bool]:
    """(names that a server on this address answers to, any address too)."""
    if host in LOOPBACK:
        return set(LOOPBACK), False
    if host in ("0.0.0.0", "::"):
        return {*LOOPBACK, socket.gethostname().lower(), socket.getfqdn().lower()}, True
    return {host.lower()}, False


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _values(headers: list[tuple[bytes, bytes]], name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key.lower() == name]


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            known = {key.lower() for key, _ in message.get("headers", [])}
            more = [(key, value) for key, value in HEADERS.items() if key not in known]
            message = {**message, "headers": [*message.get("headers", []), *more]}
        await send(message)

    return sent


async def _answer(send: Send, status: int, text: str, more: list[tuple[bytes, bytes]] | None = None) -> None:
    body = text.encode()
    headers = [*HEADERS.items(), (b"content-type", b"text/plain; charset=utf-8"), *(more or [])]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
