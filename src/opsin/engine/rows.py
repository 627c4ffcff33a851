"""The rows of a prompt, one by one: which are media, what RoPE sees of them, and what they see.

Thread: the caller's, which submits a prompt; then the engine's.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from opsin.arrays import Ints
from opsin.ops import PAGE
from opsin.spans import Canvas, MediaSpan, Prompt, TextSpan, memory_keys


@dataclass(frozen=True)
class Placed:
    """Media in a sequence, from its row `start` to before its row `end`.

    Rows after it remember `joined` together with it. Of what is `absorbed` no row remembers it without its follower.
    """

    start: int
    span: MediaSpan
    joined: tuple[MediaSpan, ...] = ()
    absorbed: bool = False

    @property
    def end(self) -> int:
        return self.start + self.span.rows

    @property
    def whole(self) -> tuple[MediaSpan, ...]:
        """All that rows after it remember."""
        return (*self.joined, self.span)

    @property
    def memory(self) -> int:
        """Rows that rows after it remember."""
        return sum(span.memory for span in self.whole)

    @property
    def pages(self) -> int:
        """Of these."""
        return -(-self.memory // PAGE)

    @cached_property
    def keys(self) -> list[bytes]:
        """Of these pages: equal keys mean equal keys and values."""
        return memory_keys(self.whole, PAGE)


class PromptRows:
    """A prompt spelt out. Rows after it, which are generated, go on where it ends.

    Args:
        prompt: text and media.
        axes: positions that a row has: 1, or 3 (time, row, column; Wang et al. 2024, arXiv 2409.12191).
    """

    def __init__(self, prompt: Prompt, axes: int = 1) -> None:
        self.axes = axes
        self.count = len(prompt)
        self.ids: list[int] = []  # 0 where media stands
        self.media: list[Placed] = []  # their ends, in the same order, are found by bisection
        self._ends: list[int] = []
        self.memory: list[Placed] = []  # media that is remembered
        for start, span in prompt.placed():
            if isinstance(span, TextSpan):
                self.ids += span.ids
            else:
                self.ids += [0] * span.rows
                self._append(start, span)
        told = [span.segment if isinstance(span, TextSpan) else 0 for span in prompt.spans]
        self.segments: Ints | None = None  # of each row, where there are several
        if any(told):
            self.segments = np.repeat(np.array(told, np.int32), [len(span) for span in prompt.spans])
        self.text_ids = (
            self.ids[:] if not self.media else [id for s in prompt.spans if isinstance(s, TextSpan) for id in s.ids]
        )
        self._next = self.count  # the position of the first row after the prompt
        self._positions: Ints | None = None
        self._ahead: Ints | None = None  # for each row, the first row that it does not see
        if self.media:
            self._place()

    def _append(self, start: int, span: MediaSpan) -> None:
        last = self.memory[-1] if span.memory and self.memory else None
        if last is None or start > last.end + last.span.marker:
            placed = Placed(start, span)
        else:
            placed = Placed(start, span, last.whole)
            if start == last.start:  # no row stands between
                self.media[self.media.index(last)] = replace(last, absorbed=True)
                self.memory.pop()
        self.media.append(placed)
        self._ends.append(placed.end)
        if span.memory:
            self.memory.append(placed)

    def _place(self) -> None:
        positions = np.repeat(np.arange(self.count, dtype=np.int32)[:, None], self.axes, axis=1)
        ahead = np.arange(1, self.count + 1, dtype=np.int32)
        moved = 0  # what positions are ahead of rows
        for placed in self.media:
            start, end, span = placed.start, placed.end, placed.span
            here = start + moved
            positions[start:end] = here
            if self.axes == 3 and span.grid is not None:
                row, column = np.divmod(np.arange(span.rows, dtype=np.int32), np.int32(span.grid[1]))
                positions[start:end, 0] += np.int32(span.time or 0)
                positions[start:end, 1] += row
                positions[start:end, 2] += column
            else:
                positions[start:end] += np.arange(span.rows, dtype=np.int32)[:, None]
            if span.positions != span.rows:
                moved += span.positions - span.rows
                positions[end:] = np.arange(end + moved, self.count + moved, dtype=np.int32)[:, None]
            if self.axes == 3 and span.canvas is not None:
                _lay_out(positions, start, here, span, span.canvas)
            if span.atomic:
                ahead[start:end] = end
        self._next = self.count + moved
        self._positions, self._ahead = positions, ahead

    def positions(self, start: int, places: Ints) -> Ints:
        """What RoPE sees of the rows at `places`, from `start` on: [rows], or [rows, axes] where axes may differ."""
        if self._positions is None:
            return places
        after: Ints = places + np.int32(self._next - self.count)
        if start >= self.count:
            return after
        known = self._positions[start : start + len(places)]
        rest = after[len(known) :, None].repeat(self.axes, axis=1)
        return np.concatenate((known, rest)) if len(rest) else known

    def position(self, place: int) -> int:
        """What RoPE sees of a row of text after all media."""
        return place + self._next - self.count

    def last(self, start: int, places: Ints) -> Ints:
        """For each row, the first one that it does not see: the next one, or the end of its media."""
        last = places + np.int32(1)
        if self._ahead is not None and start < self.count:
            known = self._ahead[start : start + len(places)]
            last[: len(known)] = known
        return last

    def end(self, places: Ints, window: int) -> Ints:
        """For each row, the first one that it does not see, where rows see what is ahead: all, or through a window."""
        last = places + np.int32(window) if window else np.full_like(places, self.count)
        return np.minimum(last, np.int32(self.count))

    def first(self, places: Ints, window: int) -> Ints:
        """For each row, the first one that it sees through a window of so many rows; 0 for no window.

        Media make no difference: a window cuts off the beginning of a picture for its last rows (see `GroupShape`).
        """
        first: Ints = np.maximum(places - np.int32(window - 1), np.int32(0))
        return first if window else np.zeros_like(first)

    def media_from(self, row: int) -> list[Placed]:
        """Media of which rows from `row` on are part, or that stands before such a row."""
        index = bisect_left(self._ends, row)
        if index < len(self.media) and self.media[index].start < self.media[index].end == row:
            index += 1  # of those that end there, only the first can have rows
        return self.media[index:]

    def uncut(self, start: int, end: int) -> int:
        """`end`, or where rows from `start` on end before it, or after it, so that none see each other across it."""
        for placed in self.media_from(start):
            if placed.span.atomic and placed.start < end < placed.end:
                end = placed.start if placed.start > start else placed.end
        return end

    def divide(self, pages: list[int]) -> list[tuple[Placed, list[int]]]:
        """All that is remembered, each with its part of the pages of all."""
        ends = np.cumsum([placed.pages for placed in self.memory], dtype=int).tolist()
        return [(placed, pages[end - placed.pages : end]) for placed, end in zip(self.memory, ends, strict=True)]

    @property
    def memory_pages(self) -> int:
        """Pages of all that is remembered; what is remembered together begins a page."""
        return sum(placed.pages for placed in self.memory)

    def remembered(self, places: Ints) -> tuple[Ints, Ints]:
        """For each row, the first and the last of the rows of memory that it sees: those of the media before it."""
        sizes = [placed.memory for placed in self.memory]
        pages = np.cumsum([0, *(placed.pages for placed in self.memory)], dtype=np.int32)
        which = np.searchsorted([placed.start for placed in self.memory], places, side="right") - 1
        first = np.where(which < 0, 0, pages[which] * PAGE).astype(np.int32)
        rows = np.where(which < 0, 0, np.array([*sizes, 0], np.int32)[which]).astype(np.int32)
        return first, first + rows


def _lay_out(positions: Ints, start: int, here: int, span: MediaSpan, canvas: Canvas) -> None:
    """Positions of a span on a canvas, and of the markers around it; `here` is the one at which it would begin."""
    begin, grid = max(0, here - canvas.passed), span.grid
    own, first = positions[start : start + span.rows], begin + (span.time or 0)
    if grid is None:
        own[:] = first + np.arange(span.rows, dtype=np.int32)[:, None]
    else:
        rows, columns = (
            begin + corner + _spread(count, size)
            for count, size, corner in zip(grid, canvas.size, canvas.corner, strict=True)
        )
        own[:, 0], own[:, 1], own[:, 2] = first, np.repeat(rows, grid[1]), np.tile(columns, grid[0])
    for place, *at in canvas.markers:
        if 0 <= start + place < len(positions):
            positions[start + place] = [max(0, begin + position) for position in at]


def _spread(count: int, size: int) -> Ints:
    """`count` places, as far from each other as goes, of 0 ... size - 1; in the steps of torch.linspace, rounded."""
    last, places = np.float32(size - 1), np.arange(count, dtype=np.float32)
    step = last / np.float32(max(1, count - 1))
    found = np.where(places < count // 2, step * places, last - step * (count - 1 - places))
    return np.rint(found if count > 1 else places).astype(np.int32)
