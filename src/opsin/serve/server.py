"""The process: listen, load, serve, end."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from opsin.errors import OpsinError, RequestError
from opsin.serve.app import build_app
from opsin.serve.connection import connections
from opsin.serve.options import Options
from opsin.serve.service import Service
from opsin.serve.traces import without_messages

_END_SECONDS = 3  # for running answers, when the server is told to end
_LARGEST_HEADERS = 64 << 10
_MMAP_THRESHOLD = -3  # of malloc.h


def give_memory_back() -> None:
    """Tell glibc that what is larger than 1 MB goes back to the system as soon as it is free. For the whole process.

    By default bodies and pictures are cut from heaps, one of each thread, which keep what they once had.
    """
    with suppress(AttributeError, OSError):  # other libraries have no such knob
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 1 << 20)


def listen(options: Options) -> socket.socket:
    """The socket of a server. Raises RequestError where the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # asyncio looks at the protocol's number: without it, responses wait for Nagle's algorithm (42 ms each).
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((options.host, options.port))
        made.listen(256)
    except OSError as error:
        made.close()
        where = f"{options.host}:{options.port}"
        raise RequestError(
            f"cannot listen on {where}: {error.strerror}", hint="give another --host or --port"
        ) from None
    return made


def address(made: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = made.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def uvicorn_of(service: Service) -> uvicorn.Server:
    """uvicorn as we want it: quiet about what strangers send wrong."""
    config = uvicorn.Config(
        build_app(service), log_level="error", access_log=False, lifespan="off", server_header=False,
        timeout_keep_alive=30, timeout_graceful_shutdown=_END_SECONDS, h11_max_incomplete_event_size=_LARGEST_HEADERS,
        http=connections(service.options), ws="none", loop="asyncio",
    )  # fmt: skip
    for name in ("uvicorn.error", "asyncio"):
        logging.getLogger(name).addFilter(without_messages)
    return uvicorn.Server(config)


async def serve(made: socket.socket, service: Service, *, ready: Callable[[], None] = lambda: None) -> None:
    """Serve until the process is told to end. Raises what loading the model raises."""
    server = uvicorn_of(service)
    loading = asyncio.ensure_future(_load(service, server, ready))
    try:
        await server.serve(sockets=[made])
        if loading.done():
            await loading
    finally:
        loading.cancel()
        await service.close()


async def _load(service: Service, server: uvicorn.Server, ready: Callable[[], None]) -> None:
    try:
        await service.start()
    except (OpsinError, MemoryError, OSError):
        server.should_exit = True
        raise
    ready()
