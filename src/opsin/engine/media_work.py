"""What is to be encoded, and when: for sequences that wait for it, and for whoever asks for embeddings alone.

Thread: the engine's.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from opsin.arrays import Floats
from opsin.engine.encoding import Encodes, Encoding, Turn
from opsin.engine.media_store import MediaStore
from opsin.engine.reply import Reply
from opsin.engine.scheduler import Scheduler
from opsin.errors import OpsinError
from opsin.ops import Array, product
from opsin.spans import MediaSpan

VALUES = 1 << 22  # of features that are encoded together: more do not make it faster
_TIMES = 256  # pictures
VALUES_WHILE_STREAMING = 1 << 20  # so that an operation is short


@dataclass(eq=False)
class EmbedRequest:
    """Somebody wants embeddings of media, and no text: [rows, width] of all spans. Until it is `abandoned`."""

    spans: tuple[MediaSpan, ...]
    reply: Reply[Floats]
    abandoned: bool = False


class MediaWork:
    """The embeddings of a model's media, and the thread that makes them. Its owner is the engine's thread.

    Others only append to `requests`, and call `hurry` (see `Encoding`).

    Args:
        store: where embeddings are kept.
        load: makes the encoder, see `Encoding`.
        constant: puts embeddings that somebody else made on the device.
    """

    def __init__(self, store: MediaStore, load: Callable[[Turn], Encodes], constant: Callable[[Floats], Array]) -> None:
        self.store, self._constant = store, constant
        self._encoding = Encoding(load, store.disk)
        self.hurry = self._encoding.hurry
        self.requests: list[EmbedRequest] = []
        self.encoded = 0  # pictures, or parts of them, since the beginning
        self.read = 0  # of them those that lay on disk
        self.pinned = 0  # pictures that were needed when it was last looked
        self.seconds: deque[float] = deque(maxlen=1 << 12)  # of batches, until somebody takes them
        self.times: dict[bytes, tuple[float, float]] = {}  # when the last pictures were encoded: begin and end
        self._started = 0.0

    @property
    def is_busy(self) -> bool:
        return bool(self._encoding.batch or self.requests)

    def plan(self, scheduler: Scheduler, *, streaming: bool) -> None:
        """Begin with what is needed next, or stop what is needed no more."""
        for request in [request for request in self.requests if request.abandoned]:
            self.requests.remove(request)  # in place: other threads append
        needed = self._needed(scheduler)
        self.pinned = len(needed)
        if self._encoding.batch:
            if not any(span.digest in needed for span in self._encoding.batch):
                self._encoding.abandon()
            return
        missing = list(self._in_order([*scheduler.missing(), *self._missing_for_requests()]))
        for span in missing:
            if span.embeddings is not None and span.digest not in self.store:
                self.store.put([span.digest], self._constant(span.embeddings), span.kept)
        batch = self._choose(
            [span for span in missing if span.embeddings is None],
            VALUES_WHILE_STREAMING if streaming else VALUES,
        )
        if batch:
            self._started = time.perf_counter()
            self._encoding.start(batch)

    def let(self, scheduler: Scheduler, seconds: float, *, wait: bool) -> dict[bytes, OpsinError]:
        """Encode for some time; see `Encoding.let`. Digests that cannot be encoded, and why."""
        if not self._encoding.batch:
            self._finish_requests()
            return {}
        outcome = self._encoding.let(seconds, wait=wait)
        if outcome is None:
            return {}
        now = time.perf_counter()
        self.seconds.append(now - self._started)
        for made in outcome.made:
            self.store.put(made.digests, made.array, made.rows)
            self.encoded += len(made.digests)
            self.times |= dict.fromkeys(made.digests, (self._started, now))
        for digest, embeddings in outcome.found.items():
            self.store.put([digest], self._constant(embeddings), len(embeddings))
        self.read += len(outcome.found)
        for digest in list(self.times)[:-_TIMES]:
            del self.times[digest]
        self._finish_requests()
        self._fail_requests(outcome.failed)
        self.store.trim(self._needed(scheduler))
        return outcome.failed

    def fail(self, error: OpsinError) -> None:
        """All requests end with this error."""
        self._fail_requests({span.digest: error for request in self.requests for span in request.spans})

    def close(self, error: OpsinError) -> None:
        """End the thread; requests end with this error."""
        self._encoding.close()
        self.fail(error)

    def _needed(self, scheduler: Scheduler) -> set[bytes]:
        return scheduler.needed() | {span.digest for request in self.requests for span in request.spans}

    def _missing_for_requests(self) -> Iterator[tuple[object, MediaSpan]]:
        for request in self.requests:
            for span in request.spans:
                if span.digest not in self.store:
                    yield request, span

    def _in_order(self, missing: Iterable[tuple[object, MediaSpan]]) -> Iterator[MediaSpan]:
        """The first of everybody, then the second; where the store is full, only the first."""
        by_owner: dict[int, dict[bytes, MediaSpan]] = {}  # those of one digest once
        for owner, span in missing:
            by_owner.setdefault(id(owner), {}).setdefault(span.digest, span)
        queues = [list(spans.values()) for spans in by_owner.values()]
        deepest = max(map(len, queues), default=0)
        for depth in range(deepest if self.store.used_bytes < self.store.limit else min(1, deepest)):
            for queue in queues:
                yield from queue[depth : depth + 1]

    def _choose(self, missing: list[MediaSpan], values: int) -> list[MediaSpan]:
        """The first, and others whose features have the same shape, up to so many values."""
        chosen: dict[bytes, MediaSpan] = {}
        for span in missing:
            assert span.features is not None
            first = next(iter(chosen.values()), span)
            assert first.features is not None
            alike = span.features.shape == first.features.shape and span.kept == first.kept
            room = values // max(1, product(span.features.shape))
            if span.digest not in chosen and alike and len(chosen) < max(1, room):
                chosen[span.digest] = span
        return list(chosen.values())

    def _finish_requests(self) -> None:
        for request in [r for r in self.requests if all(span.digest in self.store for span in r.spans)]:
            self.requests.remove(request)
            parts = [self.store.get(span.digest) for span in request.spans]
            copies = {part.array: np.asarray(part.array.numpy(), np.float32) for part in parts}
            rows = [copies[part.array][part.row : part.row + part.rows] for part in parts]
            shown = [found[span.shown] for found, span in zip(rows, request.spans, strict=True)]
            request.reply.give(np.concatenate(shown))

    def _fail_requests(self, failed: dict[bytes, OpsinError]) -> None:
        for request in list(self.requests):
            error = next((failed[span.digest] for span in request.spans if span.digest in failed), None)
            if error is not None:
                self.requests.remove(request)
                request.reply.fail(error)
