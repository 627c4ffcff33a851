"""Guesses by a smaller model (a draft model; Leviathan et al. 2023, arXiv 2211.17192), which reads along.

It has a runner and pages of its own, and of each sequence it knows the text, without media. Before a step it catches up
on what was drawn and writes on, likeliest ids first of all sequences together, as long as it is sure enough of them.

Thread: the engine's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from opsin.engine.drafting import SURE, Drafter
from opsin.engine.look_up import Guess
from opsin.engine.pages import PagePool, pages_for
from opsin.engine.runner import Runner
from opsin.engine.sampling import Sampling
from opsin.engine.scheduler import Slice
from opsin.engine.sequence import Sequence
from opsin.engine.windows import WindowPlaces, deepest
from opsin.ops import PAGE
from opsin.spans import Prompt


@dataclass
class _Read:
    """What the draft model has of one sequence: its text, of which so many rows are computed, and pages."""

    text: Sequence
    told: int = 0  # ids of the answer that it was told
    pages_kept: int = 0
    is_known: bool = True  # none of its ids is unknown to the draft model


class DraftModel(Drafter):
    """Reads along with sequences and guesses how they go on. `runner` is the draft model's."""

    kind = "draft-simple"

    def __init__(self, runner: Runner) -> None:
        super().__init__()
        self._runner, self.pool = runner, PagePool(runner.limits.pages)
        self._windows = WindowPlaces(runner.window, runner.places)
        self._reads: dict[Sequence, _Read] = {}
        self._left = 0  # rows of texts that may be read before this step: no stream waits for a long one

    def keep(self, running: Iterable[Sequence]) -> None:
        super().keep(running)
        for sequence in self._reads.keys() - set(running):
            text = self._reads.pop(sequence).text
            self.pool.give_back(text.pages)
            self._windows.release(text.near)

    def _make(self, wanted: Mapping[Sequence, int]) -> dict[Sequence, list[Guess]]:
        self._left = self._runner.limits.rows
        reads = {sequence: read for sequence in wanted if (read := self._caught_up(sequence)) is not None}
        found: dict[Sequence, list[Guess]] = {sequence: [] for sequence in reads}
        going = dict(reads)
        while going:
            with self.timed():
                going = self._write(going, wanted, found)
        return found

    def _caught_up(self, sequence: Sequence) -> _Read | None:
        """A sequence whose text is computed but for its last row; None where it is not yet, or cannot be."""
        read = self._reads.get(sequence)
        if read is None:
            read = self._reads[sequence] = self._begin(sequence)
        text, answer = read.text, sequence.ids[sequence.prompt_rows :]
        start = text.prompt_rows + read.told
        same = next(
            (i for i, (a, b) in enumerate(zip(text.ids[start:], answer[read.told :], strict=False)) if a != b),
            min(len(text.ids) - start, len(answer) - read.told),
        )
        del text.ids[start + same :]
        text.computed = min(text.computed, len(text.ids))
        news = answer[read.told + same :]
        text.ids += news
        read.told, read.is_known = len(answer), read.is_known and self._knows(news)
        text.computed = min(text.computed, len(text.ids) - 1)
        if len(text.ids) >= self._runner.limits.context or not read.is_known:
            return None
        rows = min(text.waiting_rows - 1, self._left)
        if rows > 0 and self._make_room(read, text.computed + rows):
            self._runner.step([Slice(text, text.computed, rows, wanted=False)])
            self._left -= rows
            self._computed(read, rows)
        return read if text.waiting_rows == 1 else None

    def _knows(self, ids: list[int]) -> bool:
        return max(ids, default=0) < self._runner.ids

    def _begin(self, sequence: Sequence) -> _Read:
        text = Sequence(
            Prompt.of([sequence.rows.text_ids], sequence.prompt.salt), Sampling(temperature=0.0), frozenset()
        )
        found = self.pool.find(text.keys(max(0, text.prompt_rows - 1) // PAGE))
        del found[deepest(self._windows, None, found, ()) :]
        for page in found:
            self.pool.share(page)
        text.pages, text.computed = found, len(found) * PAGE
        return _Read(text, pages_kept=len(found), is_known=bool(text.ids) and self._knows(text.ids))

    def _write(
        self, reads: Mapping[Sequence, _Read], wanted: Mapping[Sequence, int], found: dict[Sequence, list[Guess]]
    ) -> dict[Sequence, _Read]:
        """One id more of each; those that go on."""
        plan, writing = list[Slice](), list[tuple[Sequence, _Read]]()
        for sequence, read in reads.items():
            text = read.text
            if len(text.ids) < self._runner.limits.context and self._make_room(read, len(text.ids)):
                plan.append(Slice(text, text.computed, text.waiting_rows, wanted=True))
                writing.append((sequence, read))
        if not plan:
            return {}
        candidates = self._runner.step(plan)
        going: dict[Sequence, _Read] = {}
        for row, (sequence, read) in enumerate(writing):
            self._computed(read, read.text.waiting_rows)
            id, chance = int(candidates.ids[row, 0]), float(1 / candidates.sums[row])
            if not chance > 0:  # no numbers: a damaged draft model guesses nothing
                continue
            guesses = found[sequence]
            before = guesses[-1].chance if guesses else 1.0
            guesses.append(Guess(id, before * chance))
            read.text.ids.append(id)
            if len(guesses) < wanted[sequence] and before * chance > SURE:
                going[sequence] = read
        return going

    def _make_room(self, read: _Read, rows: int) -> bool:
        text = read.text
        need = pages_for(rows) - len(text.pages)
        if need > 0:
            text.pages += self.pool.take(need) or []
        known = text.prompt_rows + read.told  # what it wrote behind these may be taken back
        start = min(text.computed, max(0, known - 1))
        return pages_for(rows) <= len(text.pages) and self._windows.hold(text.near, text.pages, start, rows)

    def _computed(self, read: _Read, rows: int) -> None:
        """Full pages of the prompt, which nobody writes any more, can be found from now on."""
        text = read.text
        text.computed += rows
        full = min(text.computed, text.prompt_rows) // PAGE
        keys = text.keys(full)
        for block in range(read.pages_kept, full):
            self.pool.keep(text.pages[block], keys[block])
        read.pages_kept = max(read.pages_kept, full)
