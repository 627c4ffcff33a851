"""The pictures of one request that lie on other servers: fetched in their order, a few at the same time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType

from opsin.api.byte_budget import ByteBudget
from opsin.errors import RequestError
from opsin.media.fetch import FetchRules, fetch

AT_ONCE = 4
_LOOK_UP_SECONDS = 0.1


class Fetching:
    """Ask for them one by one, in the order in which they were given. Use it in a `with` block, which ends the rest.

    Args:
        rules: what may be fetched.
        urls: names for errors, and URLs.
        budget: for what comes, of all requests together.
        check: called now and then; what it raises ends all.
    """

    def __init__(
        self, rules: FetchRules, urls: Iterable[tuple[str, str]], budget: ByteBudget, check: Callable[[], None]
    ) -> None:
        self._rules, self._budget, self._check, self._left = rules, budget, check, deque(urls)
        self._came, self._lock = 0, threading.Lock()
        self._over = threading.Event()
        self._running: deque[Future[bytes]] = deque()
        self._bytes = 0
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="opsin-fetch") if self._left else None

    def __enter__(self) -> Fetching:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Whoever waits for these threads keeps a place for them, so they must have ended."""
        self._over.set()
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
        self._budget.give_back(self._came)

    def take(self) -> bytes:
        """The next one. Raises RequestError, naming it, where it cannot be had."""
        assert self._threads is not None
        while self._left and len(self._running) < AT_ONCE:
            name, url = self._left.popleft()
            self._running.append(self._threads.submit(self._fetch, name, url))
        coming = self._running.popleft()
        while not wait([coming], _LOOK_UP_SECONDS).done:
            self._check()
        try:
            data = coming.result()
        finally:
            del coming  # its error would hold this frame, and all that was fetched
        self._bytes += len(data)
        if self._bytes > self._rules.all_bytes:
            raise RequestError(
                f"the pictures of this request have more than {self._rules.all_bytes} bytes", hint="send fewer"
            )
        return data

    def _fetch(self, name: str, url: str) -> bytes:
        return fetch(url, self._rules, name=name, came=self._take)

    def _take(self, count: int) -> None:
        """So many bytes came, perhaps none."""
        if self._over.is_set():
            raise RequestError("nobody waits for it any more")
        self._budget.need(count)
        with self._lock:
            self._came += count
