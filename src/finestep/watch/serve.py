"""Serving: an address that is free, a token, and the server until it is ended."""

from __future__ import annotations

import contextlib
import secrets
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from finestep.errors import BadInput, MissingDependency
from finestep.watch.guard import FEWEST_TOKEN_CHARACTERS, LOOPBACK, Guard, names_of

if TYPE_CHECKING:
    import uvicorn

DEFAULT_PORT = 8765
PORTS_TRIED = 20
FAREWELL_S = 3.0
"""How long pages may fetch the end of a study before the server beside it ends."""


@dataclass(frozen=True)
class Address:
    """Where the page is."""

    host: str
    port: int
    token: str | None

    @property
    def url(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{name}:{self.port}/" + (f"?token={self.token}" if self.token else "")


def check_place(host: str, token: str | None) -> None:
    """Raise BadInput for a server that others could reach without a token."""
    if host not in LOOPBACK and token is None:
        raise BadInput(
            "a page that other machines can reach needs a token",
            value=host,
            place="--host",
            next_step="add --token new, or leave out --host: only this machine can reach it then",
        )
    if token not in (None, "new") and len(token or "") < FEWEST_TOKEN_CHARACTERS:
        raise BadInput(
            f"a token has at least {FEWEST_TOKEN_CHARACTERS} characters",
            place="--token",
            next_step="--token new makes one that nobody can guess",
        )
    if token is not None and not all(char.isalnum() or char in "-_" for char in token):
        raise BadInput("a token has letters, digits, - and _", place="--token", next_step="--token new makes one")


def serve(place: Path, *, host: str, port: int, token: str | None, say: Callable[[Address], None]) -> None:
    """Serve the studies at a place until the process is ended; `say` is told the address.

    Without a token of its own, one is made for steering: it is in the address.

    Raises:
        MissingDependency: Starlette or uvicorn are not installed.
        BadInput: the address cannot be used.
    """
    check_place(host, token)
    check_server_installed()
    listener = listening(host, port)
    address = Address(host, listener.getsockname()[1], secrets.token_urlsafe(24) if token in (None, "new") else token)
    say(address)
    serve_on(listener, place, address)


def check_server_installed() -> None:
    """Raise MissingDependency where the page cannot be served."""
    for package in ("starlette", "uvicorn"):
        if find_spec(package) is None:
            raise MissingDependency(package, needed_for="the live page", extra="dashboard")


def serve_on(listener: socket.socket, place: Path, address: Address, *, ends_with_input: bool = False) -> None:
    """Serve on a socket that listens already.

    Args:
        ends_with_input: end when standard input ends, as beside a study.
    """
    server = make_server(place, address)
    if ends_with_input:
        threading.Thread(target=_end_with_input, args=(server,), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])


def make_server(place: Path, address: Address) -> uvicorn.Server:
    """The server of the studies at a place, behind its guard; `run` serves, `should_exit` ends it."""
    import uvicorn

    from finestep.watch.server import application

    names, any_address = names_of(address.host)
    app = Guard(
        application(place),
        names=names,
        port=address.port,
        token=address.token,
        open_to_all=address.host in LOOPBACK,
        any_address=any_address,
    )
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            http="h11",
            loop="asyncio",
            lifespan="off",
            timeout_graceful_shutdown=1,
            limit_concurrency=256,
        )
    )


def listening(host: str, port: int) -> socket.socket:
    """A socket on the port, or, for the default one, on the next that is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    tried = range(port, port + PORTS_TRIED) if port == DEFAULT_PORT else (port,)
    for one in tried:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, one))
        except (OSError, OverflowError) as error:
            listener.close()
            cause = error
            continue
        listener.listen(128)
        return listener
    raise BadInput(
        f"the address cannot be used ({cause})", value=f"{host}:{port}", place="--port", next_step="try another --port"
    )


def _end_with_input(server: uvicorn.Server) -> None:
    sys.stdin.buffer.read()
    threading.Event().wait(FAREWELL_S)
    server.should_exit = True
