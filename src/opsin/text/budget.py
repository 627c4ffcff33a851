"""What one rendering of a template may still use, and how large the values are that it works on.

An operation says before it runs how long it may take (`step`) and how much it needs for a moment (`expect`); what it
made is taken from the whole (`make`). So the memory of a rendering is at most MAX_TOTAL and MAX_VALUE together, and
its time MAX_SECONDS and one operation of MAX_WORK. The numbers: a prompt of 100,000 tokens is half a megabyte, and a
template copies each message some five times; what a single operation in C makes of 48 MB takes some milliseconds, and
nothing can stop it once it runs.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import ItemsView, Iterable, Iterator, KeysView, ValuesView
from typing import Any, NamedTuple, TypeVar

import jinja2

from opsin.text.origin import Written, spans_of

MAX_SECONDS = 0.5
MAX_STEPS = 1 << 21
MAX_TOTAL = 5 << 24  # bytes of everything that one rendering makes, also of what it drops again
MAX_VALUE = 3 << 24  # bytes that one operation may need
MAX_WORK = 1 << 26  # nanoseconds of one operation, roughly
MAX_DEPTH = 100  # of lists in lists: hashing a tuple in C does not look how deep it goes
MAX_BITS = 61  # larger numbers may share one hash, and then every dictionary is slow
_STEP = 500  # nanoseconds that the step itself takes
_LOOK = 200_000  # nanoseconds after which the clock is read again
_ITEM = 200  # nanoseconds to measure an item
_MEASURED = 300  # bytes that a container takes, and that remembering its extent takes
_WRITTEN = 250  # bytes of a text that knows whose it is, beside its letters
_SPAN = 130  # bytes of a span in it
_SPAN_ITEMS = 20  # a span costs as much time as so many items of lists

Value = TypeVar("Value")
Views = (KeysView, ValuesView, ItemsView)
Sized = (str, list, tuple, dict, range, *Views)


class LimitError(jinja2.TemplateError):
    """A template asked for more than a chat needs."""


class Extent(NamedTuple):
    """How large a value is when all of it is walked: shared parts count as often as they occur."""

    items: int = 1
    chars: int = 0
    wide: bool = False  # whether a character is not ASCII
    depth: int = 0

    @property
    def work(self) -> int:
        """Nanoseconds to walk it in C."""
        return self.items * 100 + self.chars

    @property
    def written(self) -> int:
        """Bytes that it may take as text, with all that is escaped in it: `\\U000e0001` has ten letters."""
        letters = self.chars * (10 if self.wide else 6) + self.items * 32
        return letters * (4 if self.wide else 1)


class Budget:
    """What one rendering may still use. Lives on the thread that renders, which holds it in a `with` block.

    Its time is that thread's processor time, so that a busy machine changes nothing. What Python's collector takes
    meanwhile is not counted: that is the price of all that the process holds, not of a template.
    """

    def __init__(self, seconds: float = MAX_SECONDS) -> None:
        self._seconds = seconds
        self._began = self._paused = time.thread_time()
        self._thread = threading.get_ident()
        self._steps = MAX_STEPS
        self._slack = 0
        self._total = MAX_TOTAL
        self._extents: dict[int, tuple[object, Extent]] = {}  # by address; the value is kept so that it stays there

    def __enter__(self) -> Budget:
        gc.callbacks.append(self._collect)
        self._began = time.thread_time()  # what came before, such as compiling, has limits of its own
        return self

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self._collect)

    def _collect(self, phase: str, _: object) -> None:
        """Called by the collector, on the thread that it interrupts."""
        if threading.get_ident() != self._thread:
            return
        if phase == "start":
            self._paused = time.thread_time()
        else:
            self._began += time.thread_time() - self._paused

    @property
    def spent(self) -> float:
        """Seconds of processor time."""
        return time.thread_time() - self._began

    def step(self, work: int = 0) -> None:
        """One round of a loop, one operation, before it runs: `work` is what it may take in nanoseconds."""
        self._steps -= 1
        self._slack -= _STEP + work
        if self._slack < 0:
            self._look(work)

    def _look(self, work: int) -> None:
        if work > MAX_WORK:
            raise LimitError("one operation of the chat template would take too long")
        if self._steps < 0:
            raise LimitError(f"the chat template takes more than {MAX_STEPS} steps")
        if self.spent > self._seconds:
            raise LimitError("the chat template takes too long")
        self._slack = _LOOK

    def expect(self, size: int) -> None:
        """An operation is about to need so many bytes, at most."""
        if size > MAX_VALUE:
            raise LimitError("the chat template makes too much text at once")

    def make(self, size: int) -> None:
        """So many bytes are about to be made, or were."""
        self._total -= size
        if size > MAX_VALUE or self._total < 0:
            raise LimitError("the chat template makes too much text")

    def measure(self, value: object) -> Extent:
        """How large a value is. Templates cannot change what they are given, so what is known of a container stays."""
        if isinstance(value, str):
            return Extent(1 + _SPAN_ITEMS * len(spans_of(value)), len(value), not value.isascii())
        if isinstance(value, list | tuple | dict):
            known = self._extents.get(id(value))
            if known is None:
                self.make(_MEASURED + (100 if isinstance(value, dict) else 8) * len(value))
                known = self._extents[id(value)] = (value, self._sum(value))
            return known[1]
        if isinstance(value, int):
            return Extent(1 + value.bit_length() // 64)
        if isinstance(value, range):
            return Extent(1 + len(value), depth=1)
        return self._sum(value) if isinstance(value, Views) else Extent(8)

    def _sum(self, value: list[Any] | tuple[Any, ...] | dict[Any, Any] | Iterable[Any]) -> Extent:
        parts = [*value.keys(), *value.values()] if isinstance(value, dict) else list(value)
        self.step(len(parts) * _ITEM)
        items, chars, wide, depth = 1 + len(parts), 0, False, 0
        for part in map(self.measure, parts):
            items, chars = items + part.items, chars + part.chars
            wide, depth = wide or part.wide, max(depth, part.depth)
        if depth >= MAX_DEPTH:
            raise LimitError(f"the chat template nests lists deeper than {MAX_DEPTH}")
        return Extent(items, chars, wide, depth + 1)

    def check(self, value: Value, *given: object) -> Value:
        """A result, its memory taken from the whole, unless it is one of the values that were given."""
        if isinstance(value, str):
            if not any(value is one for one in given):
                kept = _WRITTEN + _SPAN * len(spans_of(value)) if isinstance(value, Written) else 0
                self.make(sys.getsizeof(value) + kept)
        elif isinstance(value, list | tuple | dict):
            self.measure(value)
        elif isinstance(value, int):
            check_bits(value.bit_length())
        elif isinstance(value, complex):
            raise LimitError("the chat template makes a complex number")
        elif value is not None and not isinstance(value, float):
            self.make(1000)
        return value

    def forget(self) -> None:
        """Lets go of all that was measured."""
        self._extents.clear()

    def walk(self, values: Iterable[Value]) -> Iterator[Value]:
        """The items one by one, counted."""
        for value in values:
            self.step(self.measure(value).work)
            yield value

    def settle(self, value: object) -> object:
        """A lazy sequence as a list, so that its length is known; anything else as it is."""
        return self.check(list(self.walk(value))) if isinstance(value, Iterator) else value


class Lazy(Iterator[Any]):
    """What a filter makes step by step: each item is counted when it is asked for."""

    def __init__(self, items: Iterator[Any], budget: Budget) -> None:
        self._items, self._budget = items, budget

    def __next__(self) -> Any:
        self._budget.step()
        return next(self._items)

    def __repr__(self) -> str:
        return "<generator object>"


def check_bits(bits: int) -> None:
    """Whether a template may have a number of so many bits."""
    if bits > MAX_BITS:
        raise LimitError("the chat template makes too large a number")
