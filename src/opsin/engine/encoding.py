"""A thread that encodes media, operation by operation, while the engine lets it: streams go on meanwhile.

Only one of the two threads uses the device at any time. The encoding thread asks before each operation (`turn`), and
the engine lets it work for a while between two steps (`let`). What needs no device, such as making features out of
pixels, goes on beside steps.

Thread: `Encoding`'s methods are the engine's; what they start runs on the encoding thread, which calls `turn`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from opsin.arrays import Floats
from opsin.engine.media_cache import MediaCache
from opsin.errors import DeviceError, FileError, OpsinError, known
from opsin.ops import Array, most
from opsin.ops.device import Stopped
from opsin.spans import MediaSpan

Turn = Callable[[], None]
_FAILED = "a picture could not be encoded"


class Encodes(Protocol):
    """The part of `models.VisionEncoder` that makes embeddings."""

    def encode(self, features: npt.NDArray[np.float32]) -> Array: ...


@dataclass(frozen=True)
class Made:
    """Embeddings of some media of one shape, `rows` rows each."""

    digests: tuple[bytes, ...]
    array: Array
    rows: int


@dataclass
class Outcome:
    """What came of a batch. Media in none was abandoned. `found` are embeddings that were kept on disk."""

    made: list[Made] = field(default_factory=list)
    found: dict[bytes, Floats] = field(default_factory=dict)
    failed: dict[bytes, OpsinError] = field(default_factory=dict)


class Encoding:
    """One batch of media at a time: `start`, `let` until `done`, then `take`.

    Args:
        load: makes the encoder when it is first needed, on its thread; operations of it must call `turn` first.
        cache: keeps embeddings on disk; None for none.
    """

    def __init__(self, load: Callable[[Turn], Encodes], cache: MediaCache | None = None) -> None:
        self._load, self._cache = load, cache
        self._encoder: Encodes | None = None
        self._changed = threading.Condition()
        self._bell = threading.Lock()  # taken by who waits for it, let go by who rings
        self._batch: list[MediaSpan] | None = None
        self._outcome: Outcome | None = None
        self._holds = self._wants = False  # the encoding thread: has the device, waits for it
        self._hurried = self._abandoned = self._leaving = False
        self._until = 0.0
        self._thread = threading.Thread(target=self._live, name="opsin-encoding", daemon=True)
        self._thread.start()

    # The engine's side

    @property
    def batch(self) -> Sequence[MediaSpan]:
        """What is being encoded; empty when nothing is, and what came of it was taken."""
        return self._batch or ()

    def start(self, batch: Sequence[MediaSpan]) -> None:
        """Encode media whose features have one shape."""
        assert self._batch is None, "one batch at a time"
        with self._changed:
            self._batch, self._abandoned = list(batch), False
            self._changed.notify_all()

    def let(self, seconds: float, *, wait: bool) -> Outcome | None:
        """Give the device away for some time, if it is wanted, and take the outcome, if it is there.

        `wait`: there is nothing else to do, so wait for either. The device comes back earlier when the batch is done or
        somebody calls `hurry`.
        """
        if wait:
            self._wait_for_news(seconds)
        with self._changed:
            if self._wants and not (wait and self._hurried):  # beside streams it gets on by an operation at least
                self._until = time.perf_counter() + seconds
                self._holds = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self._holds)
            self._hurried = False
            outcome, self._outcome = self._outcome, None
            if outcome is not None:
                self._batch = None
            return outcome

    def hurry(self) -> None:
        """Let the engine have the device back after the operation that runs now. From any thread, at any moment.

        It takes no lock: a dropped answer may be collected, and so cancelled, where the lock is held, and Ctrl-C would
        leave it taken.
        """
        self._hurried, self._until = True, 0.0
        self._ring()

    def _ring(self) -> None:
        with suppress(RuntimeError):  # it has been rung, and nobody came yet
            self._bell.release()

    def _wait_for_news(self, seconds: float) -> None:
        """Until the device is wanted, the batch is done or somebody hurries, but no longer than this."""
        end = time.perf_counter() + seconds
        while not (self._wants or self._outcome or self._hurried):
            left = end - time.perf_counter()
            if left <= 0 or not self._bell.acquire(timeout=left):
                return

    def abandon(self) -> None:
        """Nobody wants this batch any more."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def close(self) -> None:
        """End the thread. The device must refuse to run, or be idle."""
        with self._changed:
            self._leaving = self._abandoned = True
            self._changed.notify_all()
        self._thread.join()

    # The encoding thread's side

    def turn(self) -> None:
        """Wait until the device may be used. Raises Stopped where nobody wants the result any more."""
        if self._holds and time.perf_counter() < self._until:
            return
        with self._changed:
            self._holds, self._wants = False, True
            self._changed.notify_all()
            self._ring()
            self._changed.wait_for(lambda: self._holds or self._abandoned)
            self._wants = False
            if self._abandoned:
                self._holds = False
                raise Stopped

    def _live(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._leaving or (self._batch and self._outcome is None))
                if self._leaving:
                    return
                batch = list(self._batch or ())
            outcome = Outcome()
            try:
                self._encode(batch, outcome)
            except Stopped:
                pass
            except Exception as error:  # noqa: BLE001 - those who wait for this media must hear of it
                outcome.failed |= {span.digest: known(error, _FAILED) for span in batch}
            with self._changed:
                self._outcome, self._holds = outcome, False
                self._changed.notify_all()
                self._ring()
            self._keep(outcome.made)
            del batch, outcome  # pictures are large, and the next ones may be long in coming

    def _keep(self, made: Sequence[Made]) -> None:
        """On disk, when nobody waits for it any more."""
        for one in made if self._cache is not None else ():
            assert self._cache is not None
            values = np.asarray(one.array.numpy(), np.float32)
            for number, digest in enumerate(one.digests):
                self._cache.keep(digest, values[number * one.rows : (number + 1) * one.rows])

    def _encode(self, batch: list[MediaSpan], outcome: Outcome) -> None:
        made: list[tuple[MediaSpan, npt.NDArray[np.float32]]] = []
        for span in batch:
            known_rows = None if self._cache is None else self._cache.find(span.digest, span.kept)
            if known_rows is not None:
                outcome.found[span.digest] = known_rows
                continue
            try:
                made.append((span, _features(span)))
            except Exception as error:  # noqa: BLE001 - this picture's failure
                outcome.failed[span.digest] = known(error, _FAILED)
        if not made:
            return
        self.turn()
        if self._encoder is None:
            self._encoder = self._load(self.turn)
        try:
            outcome.made.append(self._run(made))
        except Stopped:
            raise
        except Exception as error:  # noqa: BLE001 - one of them may be to blame
            for one in made:
                self._alone(one, error, outcome, last=len(made) == 1)

    def _alone(
        self, one: tuple[MediaSpan, npt.NDArray[np.float32]], error: Exception, outcome: Outcome, *, last: bool
    ) -> None:
        """Again without company, where there was some."""
        if last:
            outcome.failed[one[0].digest] = known(error, _FAILED)
            return
        try:
            outcome.made.append(self._run([one]))
        except Stopped:
            raise
        except Exception as again:  # noqa: BLE001 - this picture's failure
            outcome.failed[one[0].digest] = known(again, _FAILED)

    def _run(self, made: list[tuple[MediaSpan, npt.NDArray[np.float32]]]) -> Made:
        assert self._encoder is not None
        self.turn()
        array = self._encoder.encode(np.stack([features for _, features in made]))
        rows = made[0][0].kept
        check_finite(array.numpy())
        if most(array.shape[0]) != rows * len(made):
            raise DeviceError(f"the encoder gave {array.shape[0]} rows for {len(made)} of {rows}")
        return Made(tuple(span.digest for span, _ in made), array, rows)


def _features(span: MediaSpan) -> npt.NDArray[np.float32]:
    assert span.features is not None
    made = np.asarray(span.features.make(), np.float32)
    if made.shape != span.features.shape:
        raise DeviceError(f"the features are {made.shape}, where {span.features.shape} were promised")
    return made


def check_finite(embeddings: npt.NDArray[np.generic]) -> None:
    """Raises FileError for what no prompt can hold."""
    if not np.isfinite(embeddings).all():
        raise FileError(
            "the part for pictures gave embeddings that are no numbers", hint="its file is damaged, or overflows"
        )
