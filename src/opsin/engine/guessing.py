"""Guesses behind the rows of a step (speculative decoding; Leviathan et al. 2023, arXiv 2211.17192).

A sequence whose next id is wanted may have rows after it for ids that nobody has drawn: a step of several rows costs
little more than one of a single row. Each of these rows' logits are those that it would have by itself, to the bit. So
ids are drawn row by row as ever, with the sequence's own sampler, and as long as what is drawn is what was guessed the
next row counts. Guesses change how fast an answer comes, and nothing else.

Thread: the engine's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from opsin.engine.look_up import Guess
from opsin.engine.pages import pages_for
from opsin.engine.scheduler import Plan, Scheduler, Slice
from opsin.engine.step_costs import MOST, StepCosts
from opsin.engine.step_program import Limits
from opsin.errors import RequestError
from opsin.ops import PAGE

GUESSES = 16  # of a sequence in a step, where nobody says
MOST_GUESSES = MOST - 1
_FORCED = 0.97  # the chance that a text which must come is written in the usual ids


@dataclass(frozen=True)
class Guessing:
    """How ids are guessed.

    Attributes:
        most: guesses of one sequence in a step; 0 for none.
        always: also where they are not worth their time, as tests and measurements want it.
    """

    most: int = GUESSES
    always: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.most <= MOST_GUESSES:
            raise RequestError(f"{self.most} guesses a step", hint=f"give 0 to {MOST_GUESSES}")


class Guesser:
    """Puts guesses into plans, as many as pay."""

    def __init__(self, scheduler: Scheduler, guessing: Guessing, *, limits: Limits, context: int) -> None:
        self._scheduler, self._guessing, self._limits, self._context = scheduler, guessing, limits, context
        self._costs = StepCosts()

    def saw(self, rows: int, seconds: float) -> None:
        """A step of so many rows took so long, with what was drawn of it."""
        self._costs.saw(rows, seconds)

    def extend(self, plan: Plan) -> Plan:
        """The plan with guesses."""
        if not self._guessing.most:
            return plan
        rows, wanted = sum(part.rows for part in plan), sum(part.wanted for part in plan)
        room = min(self._limits.rows - rows, self._limits.outputs - wanted)
        offered = {number: self._offered(part) for number, part in enumerate(plan)}
        ranked = sorted(((guess.chance, number) for number, some in offered.items() for guess in some), reverse=True)
        ranked = ranked[: max(0, min(room, MOST - rows))]
        if not self._guessing.always:
            ranked = ranked[: self._costs.best(rows, wanted, [chance for chance, _ in ranked])]
        counts = dict.fromkeys(offered, 0)
        for _, number in ranked:
            counts[number] += 1
        return [self._with(part, offered[number][: counts[number]]) for number, part in enumerate(plan)]

    def _offered(self, part: Slice) -> list[Guess]:
        """What could follow its last row, as far as there is any use in it."""
        sequence = part.sequence
        look_up = sequence.look_up if sequence.generated else None
        if look_up is None or not part.wanted or part.writes or part.rows > self._guessing.most:
            return []
        end = part.start + part.rows
        left = (sequence.sampling.max_tokens or self._context) - sequence.generated
        most = min(self._guessing.most, left - 1, self._context - end - 1)
        if self._scheduler.states is not None:
            # A state is kept where an answer's page is full: a step ends there.
            most = min(most, -end % PAGE, self._guessing.most + 1 - part.rows)
        if most <= 0:
            return []
        forced = sequence.constraint.forced() if sequence.constraint is not None else ()
        if forced:
            return [Guess(id, _FORCED**ahead) for ahead, id in enumerate(forced[:most], 1)]
        return look_up.guesses(most)

    def _with(self, part: Slice, guesses: list[Guess]) -> Slice:
        """A part with guesses, where there is room for their rows."""
        sequence, end = part.sequence, part.start + part.rows
        pool, states = self._scheduler.pool, self._scheduler.states
        need = pages_for(end + len(guesses)) - len(sequence.pages)
        if need > 0:
            # Not the last ones: those who run want one each before long.
            pages = pool.take(need) if need <= pool.free - len(self._scheduler.running) else None
            sequence.pages += pages or []
            guesses = guesses[: len(sequence.pages) * PAGE - end]
        if not guesses or (states is not None and not states.spare(sequence.state)):
            return part
        return replace(part, guesses=tuple(guess.id for guess in guesses))
