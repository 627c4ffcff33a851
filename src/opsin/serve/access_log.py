"""The access log: a line of JSON for each request, without anything of what it said.

Lines are written on a thread of their own, so that a disk or a reader that takes nothing stops no answer: then lines
are left out, and the next says how many.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TextIO

from opsin.errors import RequestError
from opsin.serve.record import Record

_WAITING: Final = 10_000  # lines
_PATH: Final = 200  # characters of a path


class AccessLog:
    """Writes to a file, or with "-" to stdout. Close it to write what waits."""

    def __init__(self, place: str) -> None:
        self._lines: queue.Queue[str | None] = queue.Queue(_WAITING)
        self._lost = 0
        self._file = sys.stdout if place == "-" else _opened(place)
        self._thread = threading.Thread(target=self._write, name="opsin-log", daemon=True)
        self._thread.start()

    def add(self, record: Record, path: str) -> None:
        """A request that has ended; `path` is what may be told of its path."""
        try:
            self._lines.put_nowait(line_of(record, path, self._lost))
            self._lost = 0
        except queue.Full:
            self._lost += 1

    def close(self, seconds: float = 1.0) -> None:
        """Write what waits, for at most so long."""
        with suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(seconds)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            with suppress(OSError, ValueError):  # a full disk, a pipe that nobody reads: the server goes on
                self._file.write(line + "\n")
                if self._lines.empty():
                    self._file.flush()
        with suppress(OSError, ValueError):
            self._file.flush()
            if self._file is not sys.stdout:
                self._file.close()


def line_of(record: Record, path: str, lost: int = 0) -> str:
    """A record as JSON in ASCII, which no line break or control character of a stranger gets through."""
    values: dict[str, object] = {
        "time": datetime.fromtimestamp(record.at, UTC).isoformat(timespec="milliseconds"),
        "id": record.id,
        "client": record.client,
        "key": record.key,
        "method": record.method[:16],
        "path": path[:_PATH],
        "status": record.status,
        "seconds": round(record.ended, 6),
        "first_byte_seconds": None if record.first is None else round(record.first, 6),
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        **record.tokens,
    }
    if lost:
        values["lines_lost"] = lost
    return json.dumps(values, separators=(",", ":"))


def _opened(place: str) -> TextIO:
    try:
        return Path(place).open("a", encoding="ascii")
    except OSError as error:
        raise RequestError(f"cannot write the access log to {place}: {error.strerror}") from None
