"""What an operator decides about a server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from opsin.engine.pooling import Pooling
from opsin.errors import RequestError
from opsin.grammar import Grammar
from opsin.media.fetch import FetchRules
from opsin.serve.forwarded import Proxies
from opsin.serve.keys import ApiKey

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")


@dataclass(frozen=True)
class Options:
    """Options of a server, complete when made.

    Attributes:
        host, port: where it listens; port 0 takes a free one. A host that ends with ".sock" is a Unix socket's file,
            and between commas there may be several.
        tls: files of a certificate chain and of its key, in PEM; None for plain HTTP.
        prefix: what all paths begin with, as "/llm"; "" for nothing.
        proxies: whose X-Forwarded-* is believed.
        keys: who may ask; empty for everybody.
        name: what the model is called in answers, and with commas other names of it; None for its file's name.
        body_bytes: size of a request's body.
        body_seconds: time in which a body must have come.
        files_bytes: of pictures that clients store, to name them later.
        all_bodies_bytes: bodies of all requests together, until their prompts are made.
        head_seconds: time in which a request's head must have come.
        ping_seconds: after so long a silence a stream sends a comment, so that no proxy cuts it; 0 for never.
        unread_seconds: time in which a client must go on reading what it is sent.
        requests: answers that may be inside at once, running or waiting; more are told to come again.
        sleep_seconds: after so long without a request a model is taken out of memory, until the next; 0 for never.
        seconds: time that a request may take from its last byte to the end of its answer.
        drain_seconds: time that running answers have when the server is told to end.
        origins: pages of other origins that may ask, as "https://chat.example.org"; "*" for all.
        hosts: names under which it may be asked, beside its own and those that no stranger can own; "*" for all.
        media: which pictures may be fetched from where.
        reuse_port: whether others may listen on the same port.
        slot_path: the folder of what /slots saves; None where it saves nothing.
        slot_bytes: of all files there; None for any number.
        slots, page: whether /slots and the page to try it are there.
        access_log: the file that gets a line for each request; "-" for stdout, "" for none.
        traces: where spans of requests are sent by OTLP over HTTP; "" for nowhere.
        tells_key: whether answers tell the key of their request, for gateways.
        tags: told with the model's name.
        chat_defaults: fields of a conversation that hold where it says nothing of thoughts and variables.
        grammar: the form of answers to requests that ask for none.
        media_marker: what stands for a picture in raw prompts; "" for another one in each process.
        prefill: whether a last message of the assistant's is gone on with unasked.
        pooling: how states become an embedding; None for what the model's file says.
        defaults: fields of a request that hold where it says nothing, beside what the model's file recommends.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    tls: tuple[Path, Path] | None = None
    prefix: str = ""
    proxies: Proxies = field(default_factory=Proxies)
    keys: tuple[ApiKey, ...] = field(default=(), repr=False)
    name: str | None = None
    body_bytes: int = 64 << 20
    body_seconds: float = 60.0
    all_bodies_bytes: int = 512 << 20
    files_bytes: int = 256 << 20
    head_seconds: float = 20.0
    ping_seconds: float = 30.0
    unread_seconds: float = 60.0
    requests: int = 128
    sleep_seconds: float = 0.0
    seconds: float = 3600.0
    drain_seconds: float = 5.0
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    media: FetchRules = field(default_factory=FetchRules)
    reuse_port: bool = False
    slots: bool = True
    slot_path: Path | None = None
    slot_bytes: int | None = None
    page: bool = True
    access_log: str = ""
    traces: str = ""
    tells_key: bool = False
    tags: tuple[str, ...] = ()
    chat_defaults: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    grammar: Grammar | None = None
    media_marker: str = ""
    prefill: bool = True
    pooling: Pooling | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port < 1 << 16:
            raise RequestError(f"port {self.port}", hint="give 0 to 65535")
        times = (self.body_seconds, self.head_seconds, self.unread_seconds, self.seconds)
        if (
            min(self.body_bytes, self.all_bodies_bytes, self.requests) < 1
            or min(times) <= 0
            or min(self.ping_seconds, self.drain_seconds, self.sleep_seconds, self.files_bytes) < 0
        ):
            raise RequestError(f"{self}", hint="limits are positive")
        for number, key in enumerate(self.keys, 1):
            key.check(f"API key {number} of {len(self.keys)}")
        if len(names := [key.name for key in self.keys if key.name]) > len(set(names)):
            raise RequestError("two API keys have one name", hint="give each a name of its own")
        if self.port == 0 and len([place for place in self.places if not place.endswith(".sock")]) > 1:
            raise RequestError("port 0 with several addresses", hint="give a port, which they share")
        if self.prefix and not _PREFIX.fullmatch(self.prefix):
            raise RequestError(f"the prefix {self.prefix!r:.80}", hint="give one like /llm, without a slash at its end")

    @property
    def connections(self) -> int:
        """Connections that may be open at once."""
        return 2 * self.requests + 256

    @property
    def places(self) -> tuple[str, ...]:
        """All hosts that it listens on."""
        return tuple(part.strip() for part in self.host.split(","))

    @property
    def is_socket(self) -> bool:
        """Whether it listens on Unix sockets alone."""
        return all(place.endswith(".sock") for place in self.places)

    @property
    def on_loopback(self) -> bool:
        """Whether no other machine reaches it."""
        return all(place.endswith(".sock") or is_loopback(place) for place in self.places)


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
