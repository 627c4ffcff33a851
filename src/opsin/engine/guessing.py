"""Guesses behind the rows of a step (speculative decoding; Leviathan et al. 2023, arXiv 2211.17192).

A sequence whose next id is wanted may have rows after it for ids that nobody has drawn: a step of several rows costs
little more than one of a single row. Each of these rows' logits are those that it would have by itself, to the bit. So
ids are drawn row by row as ever, with the sequence's own sampler, and as long as what is drawn is what was guessed the
next row counts. Guesses change how fast an answer comes, and nothing else.

Thread: the engine's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from opsin.engine.drafting import Drafter
from opsin.engine.look_up import Guess
from opsin.engine.pages import pages_for
from opsin.engine.scheduler import Plan, Scheduler, Slice
from opsin.engine.step_costs import MOST, StepCosts
from opsin.engine.step_program import Limits
from opsin.errors import RequestError
from opsin.ops import PAGE

GUESSES = 15  # of a sequence in a step, where nobody says: with its own row 16, which fill tiles
MOST_GUESSES = MOST - 1
_FORCED = 0.97  # the chance that a text which must come is written in the usual ids
_TRIED = 2  # guesses of a drafter that did not pay, now and then

Offered = dict[int, list[Guess]]  # by the number of a part in its plan


@dataclass(frozen=True)
class Guessing:
    """How ids are guessed.

    Attributes:
        most: guesses of one sequence in a step; 0 for none.
        always: also where they are not worth their time, as tests and measurements want it.
        drafter: who computes guesses, a smaller model or a layer of the model's own, if there is one.
    """

    most: int = GUESSES
    always: bool = False
    drafter: Drafter | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.most <= MOST_GUESSES:
            raise RequestError(f"{self.most} guesses a step", hint=f"give 0 to {MOST_GUESSES}")

    @property
    def kinds(self) -> tuple[str, ...]:
        """What guesses, in llama.cpp's words."""
        if not self.most:
            return ()
        return ("ngram-simple",) if self.drafter is None else (self.drafter.kind, "ngram-simple")


class Guesser:
    """Puts guesses into plans, as many as pay."""

    def __init__(self, scheduler: Scheduler, guessing: Guessing, *, limits: Limits, context: int) -> None:
        self._scheduler, self._guessing, self._limits, self._context = scheduler, guessing, limits, context
        self._costs, self._drafter = StepCosts(), guessing.drafter
        self._drafted: set[int] = set()  # parts of the last plan whose guesses a drafter made

    def saw(self, plan: Plan, seconds: float) -> None:
        """A plan was computed, and ids were drawn, which took so long in all."""
        self._costs.saw(sum(part.rows + len(part.guesses) for part in plan), seconds)
        if self._drafter is not None:
            for number in self._drafted:
                self._drafter.saw(plan[number].sequence)

    def keep(self) -> None:
        """Forget all sequences but those that run."""
        if self._drafter is not None:
            self._drafter.keep(self._scheduler.running)

    def extend(self, plan: Plan) -> Plan:
        """The plan with guesses. Raises as `Recorded.run`."""
        self._drafted.clear()
        if not self._guessing.most:
            return plan
        rows, wanted = sum(part.rows for part in plan), sum(part.wanted for part in plan)
        room = min(self._limits.rows - rows, self._limits.outputs - wanted, MOST - rows)
        most = {number: count for number, part in enumerate(plan) if (count := self._most(part)) > 0}
        if room <= 0 or not most:
            return plan
        offered = {number: self._offered(plan[number], count) for number, count in most.items()}
        if self._drafter is not None:
            self._draft(self._drafter, plan, offered, most, room)
        ranked = sorted(((guess.chance, number) for number, some in offered.items() for guess in some), reverse=True)
        ranked = ranked[:room]
        if not self._guessing.always:
            ranked = ranked[: self._costs.best(rows, wanted, [chance for chance, _ in ranked])]
        for number, some in offered.items():
            del some[sum(other == number for _, other in ranked) :]
        return [self._with(part, offered.get(number, [])) for number, part in enumerate(plan)]

    def _most(self, part: Slice) -> int:
        """How many guesses behind its last row are of any use."""
        sequence, end = part.sequence, part.start + part.rows
        if not part.wanted or part.writes or not sequence.generated or part.rows > self._guessing.most:
            return 0
        left = (sequence.sampling.max_tokens or self._context) - sequence.generated
        most = min(self._guessing.most, left - 1, self._context - end - 1)
        if self._scheduler.states is not None:
            # A state is kept where an answer's page is full: a step ends there.
            most = min(most, -end % PAGE, self._guessing.most + 1 - part.rows)
        return most

    def _offered(self, part: Slice, most: int) -> list[Guess]:
        """What could follow its last row, by its form and its text."""
        sequence = part.sequence
        forced = sequence.constraint.forced() if sequence.constraint is not None else ()
        if forced:
            return [Guess(id, _FORCED**ahead) for ahead, id in enumerate(forced[:most], 1)]
        return sequence.look_up.guesses(most) if sequence.look_up is not None else []

    def _draft(self, drafter: Drafter, plan: Plan, offered: Offered, most: dict[int, int], room: int) -> None:
        """Let a drafter guess where it knows better than the text, if that pays."""
        better = [n for n, some in offered.items() if not some or some[0].chance < drafter.share]
        others = sorted((g.chance for n, some in offered.items() if n not in better for g in some), reverse=True)
        if not better or room < len(better):
            return
        count = self._guessing.most if self._guessing.always else self._worth(drafter, plan, len(better), others)
        count = min(count, room // len(better))
        if count <= 0:
            return
        made = drafter.guesses({plan[n].sequence: min(count, most[n]) for n in better})
        for number in better:
            guesses = made.get(plan[number].sequence)
            if guesses:
                offered[number] = guesses
                self._drafted.add(number)

    def _worth(self, drafter: Drafter, plan: Plan, sequences: int, others: list[float]) -> int:
        """How many guesses of each of so many sequences a drafter should make; 0 where they do not pay."""
        rows, ids = sum(part.rows for part in plan), float(sum(part.wanted for part in plan))
        if rows == len(plan) and not self._costs.knows(rows):
            return 0  # who guesses at each step never sees what one takes without
        if not drafter.seconds or drafter.is_due():
            return _TRIED
        beside = self._costs.best(rows, int(ids), others)
        rows, ids = rows + beside, ids + sum(others[:beside])
        best, rate = 0, ids / self._costs.of(rows)
        for count, chance in enumerate(drafter.chances(self._guessing.most), 1):
            ids += sequences * chance
            now = ids / (self._costs.of(rows + sequences * count) + count * drafter.seconds)
            if now > rate:
                best, rate = count, now
        return best

    def _with(self, part: Slice, guesses: list[Guess]) -> Slice:
        """A part with guesses, where there is room for their rows."""
        if not guesses:
            return part
        sequence, end = part.sequence, part.start + part.rows
        pool, states = self._scheduler.pool, self._scheduler.states
        need = pages_for(end + len(guesses)) - len(sequence.pages)
        if need > 0:
            # Not the last ones: those who run want one each before long.
            pages = pool.take(need) if need <= pool.free - len(self._scheduler.running) else None
            sequence.pages += pages or []
            guesses = guesses[: len(sequence.pages) * PAGE - end]
        if guesses and not self._scheduler.windows.hold(sequence.near, sequence.pages, part.start, end + len(guesses)):
            return part
        if not guesses or (states is not None and not states.spare(sequence.state)):
            return part
        return replace(part, guesses=tuple(guess.id for guess in guesses))
