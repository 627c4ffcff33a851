"""Behind a proxy: who asked it, by which scheme and name, told in `X-Forwarded-*` by those whom an operator trusts.

From everybody else these headers are nothing: they are taken out before anything reads them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from starlette.types import Scope

from opsin.errors import RequestError

UNIX: Final = "unix"
_HEADERS: Final = re.compile(rb"forwarded|x-forwarded-[a-z-]+|x-real-ip")
_NAME: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?")
_HOPS: Final = 32


@dataclass(frozen=True)
class Proxies:
    """Those whose `X-Forwarded-*` is believed: networks, everybody on a Unix socket, or everybody."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    on_unix: bool = False
    all: bool = False

    @classmethod
    def read(cls, texts: Sequence[str]) -> Proxies:
        """Addresses, networks (`10.0.0.0/8`), `unix` or `*`. Raises RequestError."""
        networks = []
        for text in texts:
            if text not in ("*", UNIX):
                try:
                    networks.append(ip_network(text, strict=False))
                except ValueError:
                    raise RequestError(
                        f"{text!r:.80} is no address", hint="give an address, a network as 10.0.0.0/8, unix or *"
                    ) from None
        return cls(tuple(networks), UNIX in texts, "*" in texts)

    def trust(self, host: str | None) -> bool:
        """Whether what comes from this address is believed; None is a Unix socket's."""
        if self.all:
            return True
        if host is None:
            return self.on_unix
        try:
            address = ip_address(host)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped in network for network in self.networks if network.version == mapped.version)

    def resolve(self, scope: Scope) -> Scope:
        """A request as the nearest proxy that is trusted saw it, without any header of this kind."""
        told = [(name.lower(), value) for name, value in scope["headers"] if _HEADERS.fullmatch(name.lower())]
        if not told:
            return scope
        headers = [(name, value) for name, value in scope["headers"] if not _HEADERS.fullmatch(name.lower())]
        found = {**scope, "headers": headers}
        if not self.trust(_peer(scope)):
            return found
        client = self._client(_all(told, b"x-forwarded-for"))
        if client is not None:
            found["client"] = (client, 0)
        scheme, host = _last(told, b"x-forwarded-proto").lower(), _last(told, b"x-forwarded-host")
        if scheme in (b"http", b"https"):
            found["scheme"] = scheme.decode()
        if _NAME.fullmatch(host):
            found["headers"] = [(name, value) for name, value in headers if name != b"host"] + [(b"host", host)]
        return found

    def _client(self, chain: list[bytes]) -> str | None:
        """The first address, from our side, that is no proxy of ours. Nothing beyond what is no address is believed."""
        found = None
        for part in reversed(chain[-_HOPS:]):
            text = _without_port(part.decode("latin-1"))
            try:
                found = str(ip_address(text))
            except ValueError:
                return found
            if not self.trust(found):
                return found
        return found


def _peer(scope: Scope) -> str | None:
    client = scope.get("client")
    return client[0] if client and client[0] else None


def _all(told: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """What all headers of a name list, as if they were one."""
    return [part.strip() for given, value in told if given == name for part in value.split(b",")]


def _last(told: list[tuple[bytes, bytes]], name: bytes) -> bytes:
    """What the proxy next to us wrote: it stands behind what came with the request."""
    return next(reversed(_all(told, name)), b"")


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
