"""A sequence: a prompt that grows, and how far it has been computed.

Thread: the submitter's makes it, then it is the engine's; its `Stream` is read by one thread and ended by any.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from opsin.engine.constraint import Constraint
from opsin.engine.logprobs import Logprobs
from opsin.engine.look_up import LookUp
from opsin.engine.memory import Remembered
from opsin.engine.pages import pages_for
from opsin.engine.rows import Placed, PromptRows
from opsin.engine.sampler import Sampler
from opsin.engine.sampling import Sampling
from opsin.engine.states import Carried
from opsin.engine.token_rules import TokenRules
from opsin.engine.trails import Trail
from opsin.engine.windows import Held
from opsin.errors import DeviceError, OpsinError, RequestError
from opsin.ops import PAGE
from opsin.process import Home, Stays
from opsin.spans import Prompt, TextSpan, chained

LOOK_UP_SECONDS = 0.1  # a signal that another thread received does not end a wait: look whether there was one

FinishReason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True)
class PromptProgress:
    """How much of a prompt is done, in rows: of `total`, `done` with those that were `cached`."""

    total: int
    cached: int
    done: int


@dataclass(frozen=True)
class TokenOutput:
    """One id that was generated, or the end: `reason` is set on the last output, whose id may be None.

    Where an id that ends answers ended it, `logprobs` are that id's. Before the first id it may be the progress of the
    prompt alone. `at` is when it was made, by `time.perf_counter`.
    """

    id: int | None
    reason: FinishReason | None = None
    error: OpsinError | None = None
    logprobs: Logprobs | None = None
    progress: PromptProgress | None = None
    at: float = field(default_factory=time.perf_counter, compare=False)


class Stream(Stays):
    """What comes out of a sequence: iterate over outputs; `cancel` from anywhere.

    `cached` says how many rows of the prompt the cache held already, `started` when the work began, by
    `time.perf_counter`; both are known with the first output. `guessed` ids were computed before they were drawn, of
    which so many were `right`.
    """

    def __init__(self) -> None:
        self.cached, self.started = 0, time.perf_counter()
        self.guessed = self.right = 0
        self._outputs: queue.SimpleQueue[TokenOutput] = queue.SimpleQueue()
        self.cancelled = False  # no Event: it has a lock, which Ctrl-C may leave taken
        self._home = Home()
        self._on_cancel: Callable[[], None] = lambda: None
        self._heard: Callable[[], None] = lambda: None
        self._maker: threading.Thread | None = None

    def __iter__(self) -> Iterator[TokenOutput]:
        """Outputs as they come, up to the one with a reason. Raises what `take` raises."""
        while (output := self.take()) is not None:
            yield output
            if output.reason is not None:
                return

    def take(self, *, wait: bool = True) -> TokenOutput | None:
        """The next output; None where none is there and nobody waits for it.

        Raises the sequence's error; DeviceError after a fork, and where nothing can come any more.
        """
        while True:
            self._home.check()
            try:
                output = self._outputs.get(timeout=LOOK_UP_SECONDS) if wait else self._outputs.get_nowait()
            except queue.Empty:
                self._check_maker()
                if not wait:
                    return None
                continue
            if output.error is not None:
                raise output.error
            return output

    @property
    def has_more(self) -> bool:
        """Whether `take` would not wait."""
        return not self._outputs.empty()

    def _check_maker(self) -> None:
        """Raise where nothing can come any more."""
        if self._maker is threading.current_thread():
            raise RequestError("the engine cannot wait for itself", hint="ask from outside of edits and calls")
        if self._maker is not None and not self._maker.is_alive() and self._outputs.empty():
            raise DeviceError("the engine ended", hint="load the model again")

    def cancel(self) -> None:
        """Nobody wants the rest. Its pages are free within a step. In a forked child it is the parent's affair."""
        if not self._home.is_left and not self.cancelled:
            self.cancelled = True
            self._on_cancel()

    def belong(self, maker: threading.Thread, on_cancel: Callable[[], None]) -> None:
        """Outputs come from this thread, which must hear when nobody wants them."""
        self._maker, self._on_cancel = maker, on_cancel

    def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard` now, and on the maker's thread after each output: it waits for nothing and raises nothing."""
        self._heard = heard
        heard()

    def put(self, output: TokenOutput) -> None:
        self._outputs.put(output)
        self._heard()


class Sequence:
    """Rows that are known (`ids`), and how many of them the cache holds (`computed`)."""

    def __init__(
        self, prompt: Prompt, sampling: Sampling, ends: frozenset[int], axes: int = 1,
        constraint: Constraint | None = None, *, progress: bool = False, rules: TokenRules | None = None,
        vocabulary: int = 1 << 31, guessed: bool = False,
    ) -> None:  # fmt: skip
        self.prompt, self.sampling, self._progress = prompt, sampling, progress
        self.rows = PromptRows(prompt, axes)
        self.ids = self.rows.ids
        self.prompt_rows = len(self.ids)
        self.computed = 0
        self.again = 0  # known rows that are computed again, since wrong guesses came after them
        self.was_started = False
        self.pages: list[int] = []
        self.near = Held()
        self.memory = Remembered(self.rows.memory)
        self.state = Carried()
        self.trail = Trail()
        self.ends = (frozenset() if sampling.ignore_eos else ends).union(sampling.stop_token_ids)
        self.sampler = Sampler(sampling, rules, self.rows.text_ids, self.ends, vocabulary)
        self.constraint = constraint
        self.look_up = LookUp(self.rows.text_ids) if guessed else None
        self.stream = Stream()
        self._keys: list[bytes] = []

    @property
    def known(self) -> int:
        return len(self.ids)

    @property
    def waiting_rows(self) -> int:
        """Rows that are known and not computed."""
        return len(self.ids) - self.computed

    @property
    def is_ready(self) -> bool:
        """Whether it lacks one row, beside those that are computed again: a step gives its next id."""
        return self.waiting_rows == 1 + self.again

    @property
    def lacking(self) -> list[Placed]:
        """Media without which its next rows, or later ones, cannot be computed."""
        ahead = [placed for placed in self.rows.media_from(self.computed) if not placed.absorbed]
        if not self.memory.media:
            return ahead
        return sorted({*ahead, *self.memory.lacking}, key=lambda placed: placed.start)

    @property
    def all_pages(self) -> int:
        """Pages for all that it knows and one row more, without what it remembers."""
        return pages_for(self.known + 1)

    @property
    def candidates(self) -> int:
        """So many likeliest ids serve its next draw best; 1 where all logits are needed anyway."""
        return self.sampler.candidates(is_masked=self.constraint is not None)

    @property
    def generated(self) -> int:
        return len(self.ids) - self.prompt_rows

    def start(self) -> None:
        """Its work begins, with what the cache holds of it."""
        self.was_started = True
        self.stream.cached, self.stream.started = self.computed, time.perf_counter()
        self.tell_progress()

    def tell_progress(self) -> None:
        """How much of its prompt is done, to whoever asked for it."""
        if self._progress and not self.generated and self.computed <= self.prompt_rows:
            progress = PromptProgress(self.prompt_rows, self.stream.cached, self.computed)
            self.stream.put(TokenOutput(None, progress=progress))

    def accept(self, id: int, limit: int, logprobs: Logprobs | None = None) -> FinishReason | None:
        """Take the next id; why the sequence ends with it, if it does. `limit` is the rows a sequence may have."""
        if id in self.ends:
            self.stream.put(TokenOutput(None, "stop", logprobs=logprobs))
            return "stop"
        reason: FinishReason | None = None
        if self.constraint is not None:
            self.constraint.accept(id)
            reason = "stop" if self.constraint.ended else None
        self.ids.append(id)
        self.sampler.accept(id)
        if self.look_up is not None:
            self.look_up.append(id)
        if reason is None and (self.generated >= (self.sampling.max_tokens or limit) or self.known >= limit):
            reason = "length"
        self.stream.put(TokenOutput(id, reason, logprobs=logprobs))
        return reason

    def keys(self, number: int) -> list[bytes]:
        """Keys of the first `number` blocks of PAGE rows, as `spans.block_keys` gives them for all known rows."""
        assert number * PAGE <= self.known
        while len(self._keys) < number:
            start = len(self._keys) * PAGE
            before = self._keys[-1] if self._keys else self.prompt.salt
            self._keys.append(chained(before, self._runs(start, start + PAGE)))
        return self._keys[:number]

    def before(self, block: int) -> bytes:
        """What the key of a block is chained to."""
        return self.keys(block)[-1] if block else self.prompt.salt

    def key(self, rows: int) -> bytes:
        """The key of its first `rows` rows, which may end within a block."""
        full, rest = divmod(rows, PAGE)
        before = self.before(full)
        return before if full and not rest else chained(before, self._runs(full * PAGE, rows))

    def names(self, first: int, last: int) -> tuple[Hashable, ...]:
        """What each row from `first` to `last` is, with the media before it that takes no rows."""
        names: list[Hashable] = [*self.ids[first:last]]
        before: dict[int, tuple[bytes, ...]] = {}
        for placed in self.rows.media_from(first):
            if placed.start >= last:
                break
            if not placed.span.rows:
                before[placed.start] = (*before.get(placed.start, ()), placed.span.digest)
            for row in range(max(first, placed.start), min(last, placed.end)):
                names[row - first] = (placed.span.digest, placed.span.first + row - placed.start)
        for row, digests in before.items():
            names[row - first] = (*digests, names[row - first])
        return tuple(names)

    def _runs(self, first: int, last: int) -> Iterator[bytes]:
        """What the rows from `first` to `last` are, run by run."""
        for placed in self.rows.media_from(first):
            if placed.start >= last:
                break
            if placed.start > first:
                yield TextSpan(tuple(self.ids[first : placed.start])).identity(0, placed.start - first)
            begin, first = max(first, placed.start), min(last, placed.end)
            yield placed.span.identity(begin - placed.start, first - placed.start)
        if first < last:
            yield TextSpan(tuple(self.ids[first:last])).identity(0, last - first)
