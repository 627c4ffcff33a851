"""The process: listen, load, serve, end."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
import socket
import ssl
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

import uvicorn

from opsin.errors import RequestError
from opsin.serve.connection import Connection, connections
from opsin.serve.factory import app_of
from opsin.serve.options import Options
from opsin.serve.registry import ModelRegistry
from opsin.serve.service import Service
from opsin.serve.traces import without_messages

_SAY_SECONDS, _LAST_SECONDS = 3, 0.1  # for those that are cut off to hear it; also where nobody wants to wait
_LARGEST_HEADERS = 64 << 10
_LOG = logging.getLogger("opsin.serve")


def listen(options: Options) -> list[socket.socket]:
    """The sockets of a server. Raises RequestError where an address is taken or not ours."""
    made: list[socket.socket] = []
    try:
        for place in options.places:
            made.append(_listen_at(place) if place.endswith(".sock") else _listen_on(place, options))
    except BaseException:
        for other in made:
            other.close()
        raise
    return made


def _listen_on(host: str, options: Options) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio looks at the protocol's number: without it, responses wait for Nagle's algorithm (42 ms each).
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        _say_whose_port_it_is(made, shared=options.reuse_port)
        if family is socket.AF_INET6 and len(options.places) > 1:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # beside 0.0.0.0, which is another's
        made.bind((host, options.port))
        made.listen(256)
    except (OSError, RequestError) as error:
        made.close()
        if isinstance(error, RequestError):
            raise
        where = f"{host}:{options.port}"
        raise RequestError(
            f"cannot listen on {where}: {error.strerror}", hint="give another --host or --port"
        ) from None
    return made


def _say_whose_port_it_is(made: socket.socket, *, shared: bool) -> None:
    """Ours also while connections of an earlier server end; nobody else's, unless it is `shared`."""
    if shared and not hasattr(socket, "SO_REUSEPORT"):  # Windows
        raise RequestError("--reuse-port: this system does not share a port", hint="leave it out")
    # Windows lets us listen beside ending connections anyway; SO_REUSEADDR would let any program take the port over.
    number = socket.SO_EXCLUSIVEADDRUSE if hasattr(socket, "SO_EXCLUSIVEADDRUSE") else socket.SO_REUSEADDR
    made.setsockopt(socket.SOL_SOCKET, number, 1)
    if shared:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _listen_at(path: str) -> socket.socket:
    """A Unix socket. Who may connect, the umask and the folder say. What a server left that is gone is taken away."""
    if not hasattr(socket, "AF_UNIX"):  # Windows
        raise RequestError(f"cannot listen on {path}: this system has no Unix sockets", hint="give --host and --port")
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_left(path):
            Path(path).unlink()
        made.bind(path)
        made.listen(256)
    except OSError as error:
        made.close()
        what = error.strerror or error
        raise RequestError(f"cannot listen on {path}: {what}", hint="give another --host FILE.sock") from None
    return made


def _is_left(path: str) -> bool:
    """Whether a socket lies there that nobody listens on."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        return other.connect_ex(path) == errno.ECONNREFUSED


def address(made: socket.socket, options: Options) -> str:
    """The URL of a listening socket, with the prefix of its paths."""
    if made.family == getattr(socket, "AF_UNIX", None):
        return f"unix://{made.getsockname()}"
    host, port = made.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    scheme = "http" if options.tls is None else "https"
    return f"{scheme}://[{host}]:{port}{options.prefix}" if ":" in host else f"{scheme}://{host}:{port}{options.prefix}"


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """What a server speaks TLS with, from version 1.2 on. Raises RequestError that says which file is wrong."""
    for path in (certificate, key):
        try:
            path.read_bytes()
        except OSError as error:
            raise RequestError(f"cannot read {path}: {error.strerror}") from None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise RequestError(
                f"{key} is not the key of {certificate}", hint="give the two that were made together"
            ) from None
        raise RequestError(
            f"{certificate} and {key} cannot be read as a certificate and its key",
            hint="give them in PEM: BEGIN CERTIFICATE, and BEGIN PRIVATE KEY without a password",
        ) from None
    return context


def _no_password() -> str:
    """OpenSSL would ask a terminal."""
    return ""


def uvicorn_of(service: Service | ModelRegistry) -> uvicorn.Server:
    """uvicorn as we want it: quiet about what strangers send wrong."""
    app = app_of(service)
    longest = math.ceil(service.options.drain_seconds) + _SAY_SECONDS
    tls = service.options.tls
    context = None if tls is None else tls_context(*tls)
    config = uvicorn.Config(
        app, log_level="error", access_log=False, lifespan="off", server_header=False,
        timeout_keep_alive=30, timeout_graceful_shutdown=longest, h11_max_incomplete_event_size=_LARGEST_HEADERS,
        http=connections(service.options), ws="none", loop="asyncio", proxy_headers=False,
        ssl_context_factory=None if context is None else lambda *_: context,
    )  # fmt: skip
    for name in ("uvicorn.error", "asyncio", "concurrent.futures"):
        logging.getLogger(name).addFilter(without_messages)
    return Server(config, service)


class Server(uvicorn.Server):
    """uvicorn's server, whose running answers get a while when it is told to end, and then hear that it ends."""

    def __init__(self, config: uvicorn.Config, service: Service | ModelRegistry) -> None:
        super().__init__(config)
        self._service = service
        self._loop: asyncio.AbstractEventLoop | None = None  # once it ends

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Nobody new gets in. Ends when all have got an answer or an error, or at a second Ctrl-C."""
        self._service.state.ending = True
        seconds, inside = self._service.options.drain_seconds, self._service.active
        if inside:
            _LOG.warning("opsin: ending: %d answers have %g s (Ctrl-C again ends at once)", inside, seconds)
        loop = self._loop = asyncio.get_running_loop()
        if self.force_exit:
            self._end_now()
        timers = [loop.call_later(seconds, self._service.state.ended.set), loop.call_later(0.05, self._turn_away)]
        try:
            await super().shutdown(sockets)
        finally:
            self._service.state.ended.set()
            for timer in timers:
                timer.cancel()
            if self.server_state.tasks:
                await asyncio.sleep(_LAST_SECONDS)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self.force_exit and self._loop is not None:
            self._loop.call_soon_threadsafe(self._end_now)

    def _end_now(self) -> None:
        """Answers hear that the server ends; who does not listen is cut off. Python 3.12 and newer wait for them."""
        self._service.state.ended.set()
        asyncio.get_running_loop().call_later(_LAST_SECONDS, self._cut_off)

    def _cut_off(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def _turn_away(self) -> None:
        """Those who were on their way in when the door was closed: uvicorn has not seen them."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection) and connection.is_idle:
                connection.shutdown()


async def serve(
    made: Sequence[socket.socket], service: Service | ModelRegistry, *, ready: Callable[[], None] = lambda: None
) -> None:
    """Serve until the process is told to end. Raises what loading the model raises."""
    server = uvicorn_of(service)
    loading = asyncio.ensure_future(_load(service, server, ready))
    watching = asyncio.ensure_future(service.watch())
    try:
        await server.serve(sockets=list(made))
        if loading.done():
            await loading
    finally:
        loading.cancel()
        watching.cancel()
        await service.close()
        for place in service.options.places:
            if place.endswith(".sock"):
                with suppress(OSError):
                    Path(place).unlink()


async def _load(service: Service | ModelRegistry, server: uvicorn.Server, ready: Callable[[], None]) -> None:
    try:
        await service.start()
    except Exception:
        server.should_exit = True  # who started it must hear of it, whatever it is
        raise
    ready()
