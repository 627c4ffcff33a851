"""One GET over http or https, for strangers' URLs: checked addresses, bounded bytes, seconds and redirects.

A name is looked up once a hop, each address that it has is checked, and the socket is connected to one of these very
addresses: what the name means a moment later does not matter. Proxies and credentials play no part.
"""

from __future__ import annotations

import http
import io
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, urljoin, urlsplit

from opsin.errors import RequestError
from opsin.media.addresses import is_public
from opsin.media.body import PIECE_BYTES, read_body

if TYPE_CHECKING:
    from opsin.media.fetch import FetchRules

MOST_URL = 8192
MOST_OVERHEAD = 1 << 20  # bytes of headers, chunk sizes and the like
REDIRECTS = (301, 302, 303, 307, 308)
PAGES = ("text/html", "application/xhtml+xml", "application/json")
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?|[0-9a-f:.]*:[0-9a-f:.]*")
# What Python's readers of HTTP and TLS raise on bytes that nobody should send.
_FAULTS = (HTTPException, OSError, ValueError, LookupError, AssertionError, RecursionError)
SEND_INSTEAD = "send the bytes in a data: URL instead"
LOOK_UP_SECONDS = 0.2  # somebody may not want it any more
Address = tuple[int, str]  # socket family, IP address


def download(url: str, rules: FetchRules, came: Callable[[int], None]) -> bytes:
    """The body at the end of at most so many redirects. Raises RequestError for all that goes wrong.

    What `came` raises ends it; it is called now and then with the bytes that came since, perhaps none.
    """
    if not rules.remote:
        raise RequestError("pictures are not fetched from other servers here", hint=SEND_INSTEAD)
    clock, base = _Clock(rules, came), ""
    for _ in range(rules.redirects + 1):
        target = _parse(url, base)
        try:
            found = _get(target, rules, clock)
        except TimeoutError as error:
            raise RequestError(f"{target.host} was too slow: {error}", hint=SEND_INSTEAD) from error
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", "") or error.reason or str(error)
            raise RequestError(f"no secure connection to {target.host}: {reason}", hint=SEND_INSTEAD) from error
        except _FAULTS as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise RequestError(f"{target.host} did not send it: {reason}", hint=SEND_INSTEAD) from error
        if isinstance(found, bytes):
            return found
        url, base = found.location, target.url
    raise RequestError(f"more than {rules.redirects} redirects", hint="send the URL that they lead to")


class _Clock:
    """Seconds left of all that a fetch may take."""

    def __init__(self, rules: FetchRules, came: Callable[[int], None]) -> None:
        self.came = came
        self.end = time.monotonic() + rules.total_seconds
        self.total = rules.total_seconds

    def at_most(self, seconds: float) -> float:
        """So long, or what is left. Raises TimeoutError when nothing is, and what `came` raises."""
        self.came(0)
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"it took more than {self.total:g} seconds in all")
        return min(seconds, left)


@dataclass(frozen=True)
class _Target:
    """A URL taken apart."""

    secure: bool
    host: str
    port: int
    path: str  # with the query

    @property
    def url(self) -> str:
        """All of it again."""
        return f"{'https' if self.secure else 'http'}://{self.authority}{self.path}"

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


@dataclass(frozen=True)
class _Redirect:
    location: str


def _parse(url: str, base: str) -> _Target:
    """Take a URL apart, or one that a page at `base` names."""
    hint = "send a whole URL: https://host/picture.png"
    try:
        if len(url) > MOST_URL:
            raise ValueError(f"it is longer than {MOST_URL} characters")
        if any(ord(letter) <= 0x20 or ord(letter) == 0x7F for letter in url):
            raise ValueError("it holds spaces or control characters")
        parts = urlsplit(urljoin(base, url))
        if parts.scheme not in ("http", "https"):
            raise ValueError("a redirect leads away from http")
        if "@" in parts.netloc:
            raise ValueError("it holds a user name or a password")
        host = (parts.hostname or "").encode("idna").decode("ascii").lower()
        if not _HOST.fullmatch(host):
            raise ValueError("its host is none")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + ("?" + quote(parts.query, safe="/%:@!$&'()*+,;=~?"))
    except ValueError as error:
        # Of some errors the words are the URL's own, with passwords.
        reason = "its host is none" if "netloc" in str(error) else ascii(str(error))[1:-1][:200]
        raise RequestError(f"not a URL that is fetched: {reason}", hint=hint) from error
    return _Target(parts.scheme == "https", host, port, path if parts.query else path[:-1])


def _get(target: _Target, rules: FetchRules, clock: _Clock) -> bytes | _Redirect:
    """One request: the body, or where else to look."""
    addresses = _resolve(target, rules, clock)
    if not rules.allow_private and not all(is_public(address) for _, address in addresses):
        hint = "send the bytes in a data: URL instead, or ask the operator to allow private addresses"
        raise RequestError(f"{target.host} is not on the public internet", hint=hint)
    with _connect(target, addresses, rules, clock) as plain, _secure(plain, target, rules, clock) as connection:
        request = f"GET {target.path} HTTP/1.1\r\nHost: {target.authority}\r\nUser-Agent: opsin\r\n"
        request += "Accept: image/*, */*;q=0.1\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n"
        connection.settimeout(clock.at_most(rules.read_seconds))
        connection.sendall(request.encode("ascii"))
        # http.client asks a socket for its reader and for nothing else.
        response = HTTPResponse(cast(socket.socket, _Wire(connection, rules, clock)), method="GET")
        with response:
            response.begin()
            return _answer(response, target, rules, clock)


def _answer(response: HTTPResponse, target: _Target, rules: FetchRules, clock: _Clock) -> bytes | _Redirect:
    location = response.getheader("Location")
    if response.status in REDIRECTS and location:
        return _Redirect(location.strip())
    if response.status != http.HTTPStatus.OK:
        words = http.client.responses.get(response.status, "")
        raise RequestError(f"{target.host} answered {response.status} {words}".rstrip(), hint="check the URL")
    kind = (response.getheader("Content-Type") or "").partition(";")[0].strip().lower()
    if kind in PAGES:
        raise RequestError(f"a page ({kind}), not a picture", hint="send the URL of the picture itself")
    if (response.getheader("Content-Encoding") or "identity").strip().lower() != "identity":
        raise RequestError("it is compressed, though nobody asked for that", hint=SEND_INSTEAD)
    return read_body(response, rules, clock.came)


def _resolve(target: _Target, rules: FetchRules, clock: _Clock) -> list[Address]:
    """All addresses of a host. Looking up cannot be interrupted, so it runs beside, and is left alone when too slow."""
    answers: queue.SimpleQueue[list[Address] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answers.put((rules.resolve or _system_resolver)(target.host, target.port))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=look_up, name="opsin-resolve", daemon=True).start()
    try:
        found = answers.get(timeout=clock.at_most(rules.connect_seconds))
    except queue.Empty:
        raise TimeoutError("its name was not found in time") from None
    if isinstance(found, Exception) or not found:
        raise RequestError(f"no server is called {target.host}", hint="check the URL")
    return found


def _system_resolver(host: str, port: int) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, str(where[0])) for family, _, _, _, where in found]


def _connect(target: _Target, addresses: list[Address], rules: FetchRules, clock: _Clock) -> socket.socket:
    """A socket to the first address that answers."""
    failure: OSError = OSError("no address")
    for family, address in addresses[:8]:
        seconds = clock.at_most(rules.connect_seconds)  # raises where the time is over, before there is a socket
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(seconds)
            connection.connect((address, target.port))
        except OSError as error:
            connection.close()
            failure = TimeoutError("it does not answer") if isinstance(error, TimeoutError) else error
            continue
        return connection
    raise failure


def _secure(plain: socket.socket, target: _Target, rules: FetchRules, clock: _Clock) -> socket.socket:
    """The same connection, with TLS where the URL says so; the certificate must be that of the name."""
    if not target.secure:
        return plain
    plain.settimeout(clock.at_most(rules.read_seconds))
    context = rules.tls or ssl.create_default_context()
    return context.wrap_socket(plain, server_hostname=target.host)


class _Wire(io.RawIOBase):
    """Reads from a socket while there is time, and not without end."""

    def __init__(self, connection: socket.socket, rules: FetchRules, clock: _Clock) -> None:
        self._connection, self._rules, self._clock = connection, rules, clock
        self._left = rules.bytes + rules.bytes // 8 + MOST_OVERHEAD

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self, PIECE_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        count = self._receive(cast(bytearray, buffer))
        self._left -= count
        if self._left < 0:
            raise RequestError(f"more than {self._rules.bytes} bytes", hint="send a smaller file")
        return count

    def _receive(self, buffer: bytearray) -> int:
        silent = time.monotonic() + self._clock.at_most(self._rules.read_seconds)
        while (left := silent - time.monotonic()) > 0:
            self._connection.settimeout(min(left, LOOK_UP_SECONDS))
            try:
                return self._connection.recv_into(buffer)
            except TimeoutError:
                self._clock.at_most(1)
        raise TimeoutError(f"nothing came for {self._rules.read_seconds:g} seconds")
