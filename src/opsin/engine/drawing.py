"""The ids of a step, into their sequences: one for each that wants one, and one more for each guess that was right.

Thread: the engine's.
"""

from __future__ import annotations

from dataclasses import dataclass

from opsin.engine.candidates import Candidates
from opsin.engine.draws import chosen_ids
from opsin.engine.logprobs import logprobs
from opsin.engine.masks import Masks, MaskWork
from opsin.engine.scheduler import Plan, Scheduler, Slice
from opsin.engine.sequence import Sequence
from opsin.engine.watch import EngineWatch
from opsin.errors import FileError, RequestError

Failures = list[tuple[Sequence, Exception]]


@dataclass
class _Drawn:
    """A part of a step whose ids are drawn: the next one from this row of the candidates, after `right` guesses."""

    part: Slice
    row: int
    right: int = 0


class Drawing:
    """Draws from the candidates of a step, row by row of each sequence, all sequences together.

    A row after a guess counts once its guess was drawn. Until then no sampler and no form knows of it, so that they
    are asked for each id as if there were no guesses.

    Args:
        context: rows that one sequence may have.
    """

    def __init__(self, scheduler: Scheduler, masks: MaskWork, watch: EngineWatch, context: int) -> None:
        self._scheduler, self._masks, self._watch, self._context = scheduler, masks, watch, context

    def take(self, plan: Plan, candidates: Candidates, masks: Masks) -> Failures:
        """Take what a step gave; `masks` are those of its first ids. Which sequences went wrong, and how."""
        failures: Failures = []
        drawn, row = list[_Drawn](), 0
        for part in plan:
            if not part.guesses:
                self._scheduler.computed(part.sequence, part.rows, part.writes)
            if part.wanted:
                drawn.append(_Drawn(part, row))
                row += 1 + len(part.guesses)
        while drawn:
            samplers = [one.part.sequence.sampler for one in drawn]
            rows = [one.row for one in drawn]
            here = candidates if len(rows) == len(candidates.ids) else candidates.of(rows)
            ids = enumerate(chosen_ids(samplers, here, masks))
            drawn = [one for one in drawn if self._accept(one, here, *next(ids), failures)]
            masks = self._masks.begin([one.part.sequence.constraint for one in drawn])() if drawn else []
        return failures

    def _accept(self, one: _Drawn, candidates: Candidates, row: int, id: int | Exception, failures: Failures) -> bool:
        """Take the next id of one sequence; whether the row after it counts.

        What goes wrong here, or in choosing it, is its own failure.
        """
        part, sequence = one.part, one.part.sequence
        try:
            if isinstance(id, Exception):
                raise id
            most, told = sequence.sampling.logprobs, sequence.sampler.told
            if most is not None and not sequence.sampling.post_sampling_probs:
                told = logprobs(candidates.whole()[row], id, most)
            reason = sequence.accept(id, self._context, told)
        except FileError as error:
            given = any(placed.span.embeddings is not None for placed in sequence.rows.media)
            failures.append((sequence, _overflow(error) if given else error))
            return False
        except Exception as error:  # noqa: BLE001 - its stream hears of it
            failures.append((sequence, error))
            return False
        if reason is None and part.guesses[one.right : one.right + 1] == (id,):
            one.row, one.right = one.row + 1, one.right + 1
            return True
        if part.guesses:
            self._checked(part, one.right)
        if reason is not None:
            self._scheduler.remove(sequence)
        return False

    def _checked(self, part: Slice, right: int) -> None:
        """All ids of a part with guesses are drawn."""
        self._scheduler.checked(part, right)
        self._watch.checked(len(part.guesses), right)
        stream = part.sequence.stream
        stream.guessed, stream.right = stream.guessed + len(part.guesses), stream.right + right


def _overflow(error: FileError) -> RequestError:
    """With embeddings that somebody else made, the file is not to blame alone."""
    return RequestError(error.message, hint="the embeddings that were given are too large, or the file is damaged")
