"""What an operator decides about a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from opsin.errors import RequestError
from opsin.media.fetch import FetchRules


@dataclass(frozen=True)
class Options:
    """Options of a server, complete when made.

    Attributes:
        host, port: where it listens; port 0 takes a free one.
        keys: who may ask; empty for everybody. They are of ASCII, without white space: what is more than that, clients
            write into a head in more ways than one.
        name: what the model is called in answers; None for its file's name.
        body_bytes: size of a request's body.
        body_seconds: time in which a body must have come.
        all_bodies_bytes: bodies of all requests together, until their prompts are made.
        head_seconds: time in which a request's head must have come.
        ping_seconds: after so long a silence a stream sends a comment, so that no proxy cuts it; 0 for never.
        unread_seconds: time in which a client must go on reading what it is sent.
        requests: answers that may be inside at once, running or waiting; more are told to come again.
        seconds: time that a request may take from its last byte to the end of its answer.
        drain_seconds: time that running answers have when the server is told to end.
        origins: pages of other origins that may ask, as "https://chat.example.org"; "*" for all.
        hosts: names under which it may be asked, beside its own and those that no stranger can own; "*" for all.
        media: which pictures may be fetched from where.
        reuse_port: whether others may listen on the same port.
        slots, page: whether /slots and the page to try it are there.
        tags: told with the model's name.
        defaults: fields of a request that hold where it says nothing, beside what the model's file recommends.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    keys: tuple[str, ...] = field(default=(), repr=False)
    name: str | None = None
    body_bytes: int = 64 << 20
    body_seconds: float = 60.0
    all_bodies_bytes: int = 512 << 20
    head_seconds: float = 20.0
    ping_seconds: float = 30.0
    unread_seconds: float = 60.0
    requests: int = 128
    seconds: float = 3600.0
    drain_seconds: float = 5.0
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    media: FetchRules = field(default_factory=FetchRules)
    reuse_port: bool = False
    slots: bool = True
    page: bool = True
    tags: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.port < 1 << 16:
            raise RequestError(f"port {self.port}", hint="give 0 to 65535")
        times = (self.body_seconds, self.head_seconds, self.unread_seconds, self.seconds)
        if (
            min(self.body_bytes, self.all_bodies_bytes, self.requests) < 1
            or min(times) <= 0
            or min(self.ping_seconds, self.drain_seconds) < 0
        ):
            raise RequestError(f"{self}", hint="limits are positive")
        for number, key in enumerate(self.keys, 1):
            _check_key(key, f"API key {number} of {len(self.keys)}")

    @property
    def connections(self) -> int:
        """Connections that may be open at once."""
        return 2 * self.requests + 256

    @property
    def on_loopback(self) -> bool:
        return is_loopback(self.host)


def _check_key(key: str, name: str) -> None:
    """Raises RequestError, in which the key is not."""
    if not key.strip():
        raise RequestError(f"{name} is empty", hint="give a long random text, or no key")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise RequestError(
            f"{name} has white space, or characters beyond ASCII, in it",
            hint="a comment has a line of its own, after #",
        )


def is_loopback(name: str) -> bool:
    """Whether a name or address is this machine's alone."""
    return name == "localhost" or (is_address(name) and ip_address(name).is_loopback)


def is_address(name: str) -> bool:
    """Whether it is an IP address, and not a name that somebody may point elsewhere."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
