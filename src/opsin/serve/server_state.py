"""What all models of a server share: who may ask, what was counted and logged, and whether the server ends."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping

from opsin.engine.watch import COUNTED
from opsin.serve.access_log import AccessLog
from opsin.serve.keys import KeyRing
from opsin.serve.metrics import Metrics
from opsin.serve.options import Options
from opsin.serve.record import Record
from opsin.serve.response_store import ResponseStore
from opsin.serve.spans import SpanWriter
from opsin.serve.stored_files import StoredFiles

Look = Callable[[], Mapping[str, float]]


class ServerState:
    """Of one server.

    Attributes:
        started: when, in seconds of the epoch.
        ended: set when the server ends, and those who wait still must hear of it.
        ending: whether nobody new gets in.
        responses, files: what is kept of both.
    """

    def __init__(self, options: Options) -> None:
        self.options, self.started = options, int(time.time())
        self.keys, self.metrics = KeyRing(options.keys), Metrics(self._look)
        self.ended, self.ending = asyncio.Event(), False
        self.responses, self.files = ResponseStore(), StoredFiles(options.files_bytes)
        self._looks, self._past = list[Look](), Counter[str]()
        self._log = AccessLog(options.access_log) if options.access_log else None
        self._spans = SpanWriter.load(options.traces) if options.traces else None

    def join(self, look: Look) -> None:
        """A model's own figures, by the names of the metrics: they are summed."""
        self._looks.append(look)

    def part(self, look: Look) -> None:
        """They are gone; what was counted stays, as a counter that falls is taken for one of another server."""
        last = look()
        self._past.update({name: last[name] for name in COUNTED})
        self._looks.remove(look)

    def _look(self) -> Mapping[str, float]:
        """What is so at this moment, of a server without models, too. The server is ready where any model is."""
        figures = [look() for look in self._looks]
        total = self._past.copy()
        for one in figures:
            total.update(one)
        total["ready"] = any(one["ready"] for one in figures)
        return total

    async def drain(self, active: Callable[[], int], seconds: float) -> bool:
        """Say that nobody new shall come, and wait so long for those inside; whether all have their answers."""
        self.ending = True
        until = time.monotonic() + seconds
        while active() and time.monotonic() < until:
            await asyncio.sleep(0.02)
        self.ended.set()
        return not active()

    def record(self, record: Record, route: str) -> None:
        """A request to a declared route, or to "other", has ended."""
        self.metrics.respond(route, record.status, record.key)
        if self._spans is not None:
            self._spans.add(record, route)
        if self._log is not None:
            self._log.add(record, self.keys.without_secrets(record.path))

    def close(self) -> None:
        """Write what waits to be written."""
        if self._log is not None:
            self._log.close()
        if self._spans is not None:
            self._spans.close()
