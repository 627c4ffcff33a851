"""Who may ask, by their keys, and how much: requests at once and in a minute.

No secret is ever written: not into logs, errors or names. For the event loop's thread.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from opsin.errors import RequestError
from opsin.serve.errors import COME_AGAIN_SECONDS, HttpError

MINUTE = 60.0
_MOST = 1 << 20


@dataclass(frozen=True)
class ApiKey:
    """One who may ask.

    Attributes:
        secret: of ASCII, without white space: what is more than that, clients write into a head in more ways than one.
        name: what logs and metrics call it; "" for none.
        at_once, per_minute: requests, by POST; None for any number.
    """

    secret: str = field(repr=False)
    name: str = ""
    at_once: int | None = None
    per_minute: int | None = None

    def check(self, place: str) -> None:
        """Raises RequestError, in which the secret is not. `place` says which key it is."""
        if not self.secret.strip():
            raise RequestError(f"{place} is empty", hint="give a long random text, or no key")
        if not (self.secret.isascii() and self.secret.isprintable()) or " " in self.secret:
            raise RequestError(
                f"{place} has white space, or characters beyond ASCII, in it",
                hint="a comment has a line of its own, after #; a name stands before the key: NAME: KEY",
            )
        if not (len(self.name) <= 64 and all(c.isalnum() or c in "-_.@" for c in self.name)):
            raise RequestError(f"{place} has a name of other characters than letters, digits and -_.@")
        for limit in (self.at_once, self.per_minute):
            if limit is not None and not 1 <= limit <= _MOST:
                raise RequestError(f"{place} has the limit {limit}", hint=f"give 1 to {_MOST}")


class KeyRing:
    """All keys, and what each is doing. `clock` gives seconds."""

    def __init__(self, keys: Sequence[ApiKey], clock: Callable[[], float] = time.monotonic) -> None:
        self._uses = [(_digest(key.secret.encode()), KeyUse(key, clock)) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._uses)

    def find(self, given: bytes) -> KeyUse:
        """Whose key it is. Raises HttpError 401. All keys are compared, by digests, in equal time."""
        digest, found = _digest(given), None
        for right, use in self._uses:
            if hmac.compare_digest(digest, right):
                found = use
        if found is None:
            raise HttpError(401, "the API key is missing or wrong", hint="send Authorization: Bearer KEY")
        return found

    def without_secrets(self, text: str) -> str:
        """A text in which no key stands."""
        for _, use in self._uses:
            text = text.replace(use.key.secret, "***")
        return text


class KeyUse:
    """What one key does now, and did within a minute. `tenant` says whose things are whose, without the secret."""

    def __init__(self, key: ApiKey, clock: Callable[[], float]) -> None:
        self.key, self._clock = key, clock
        self.tenant = _digest(b"tenant" + key.secret.encode()).hex()
        self._running = 0
        self._times: deque[float] = deque()

    @contextmanager
    def admit(self) -> Iterator[None]:
        """A request of it. Raises HttpError 429 where it has too many."""
        self._check()
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    def _check(self) -> None:
        key = self.key
        if key.at_once is not None and self._running >= key.at_once:
            raise _too_much(f"{self._running} requests of this key are running", COME_AGAIN_SECONDS)
        if key.per_minute is None:
            return
        now = self._clock()
        while self._times and self._times[0] <= now - MINUTE:
            self._times.popleft()
        if len(self._times) >= key.per_minute:
            wait = max(1, math.ceil(self._times[0] + MINUTE - now))
            raise _too_much(f"this key had {key.per_minute} requests within a minute", wait)
        self._times.append(now)


def _too_much(message: str, seconds: int) -> HttpError:
    """A key asks more than it may."""
    return HttpError(429, message, hint=f"come again in {seconds} s", retry_seconds=seconds)


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
