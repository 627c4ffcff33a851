"""How ids are drawn for one answer: what its options come to, and what it remembers from id to id.

Thread: the submitter's makes it, then it is the engine's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence, Set
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from opsin.arrays import Floats
from opsin.engine import cuts
from opsin.engine.candidates import CANDIDATES
from opsin.engine.constraint import Bits
from opsin.engine.cuts import Ranked, Wide
from opsin.engine.logprobs import Logprobs
from opsin.engine.repetition import DryWatch, History, dry_penalties, penalised
from opsin.engine.sampling import Sampling
from opsin.engine.token_rules import TokenRules
from opsin.errors import RequestError

Cut = Callable[[Ranked], Ranked]
_PLAIN = ("top_p", "min_p", "temperature")  # after the top k


class Penalties(NamedTuple):
    """What is taken from logits of ids seen before, as `repetition.penalised` says."""

    repeat: float
    each: float
    once: float


class Sampler:
    """How ids are drawn for one request; its random numbers are its own, so company changes nothing.

    Samplers act in the order of the options. Those that stand first and change single logits (penalties, DRY) are done
    for all rows of a step together, beside biases and ids that may not come. If those that follow are the usual ones in
    the usual order, they are done together as well, by `top_k` and `parameters`; else `draw` does them for one row.

    Attributes:
        parameters: temperature, min_p, and top_p or infinity where that keeps all.
        top_k: so many likeliest ids are wanted first; 1 where that is the choice, 0 for all.
        is_plain: whether `top_k` and `parameters` say it all, once logits are steered.
        is_free: whether nothing steers them.
        penalties: of ids among the `window`, where these are done first.
        biases: ids [n], and what is added to their logits [n].
        allowed: bit i % 8 of byte i // 8 says whether id i may be drawn; None lets all.
        told: probabilities of the id that was drawn last, and of others, where those of the end are to be told.
    """

    def __init__(
        self, sampling: Sampling, rules: TokenRules | None = None, prompt: Sequence[int] = (),
        ends: Set[int] = frozenset(), vocabulary: int = 1 << 31,
    ) -> None:  # fmt: skip
        self.sampling = sampling
        self._rules = rules if rules is not None else TokenRules.of(sampling, vocabulary=vocabulary)
        self._ends, self._vocabulary = sorted(ends), vocabulary
        self._random = np.random.default_rng(sampling.seed)
        steps = [*_active(sampling)]
        self._chance: np.random.Generator | None = None
        if "xtc" in steps:  # whether likely ids are left out moves no other draw
            self._chance = np.random.default_rng(None if sampling.seed is None else [int(sampling.seed), 1])
        self._watch = DryWatch(sampling.dry_penalty_last_n, self._rules.breakers, prompt) if "dry" in steps else None
        remembers = "penalties" in steps or self._rules.banned or sampling.processors
        self._history = History(prompt) if remembers else None
        self._generated = 0
        self.told: Logprobs | None = None
        self.penalties: Penalties | None = None
        if steps[:1] == ["penalties"]:
            steps = steps[1:]
            self.penalties = Penalties(sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty)
        self._is_dry = steps[:1] == ["dry"]
        self._plan(steps[self._is_dry :])
        self._steer()

    def _steer(self) -> None:
        """What changes logits before the top k are taken."""
        known = self._rules.biases
        self.biases = np.fromiter(known, np.int64, len(known)), np.fromiter(known.values(), np.float64, len(known))
        self.allowed: Bits | None = None
        ids = self.sampling.allowed_token_ids
        if ids:
            bits = np.zeros(self._vocabulary, np.bool_)
            bits[np.array(ids)] = True
            self.allowed = np.packbits(bits, bitorder="little")
        self._always = bool(
            known or ids or self.penalties or self._is_dry or self._rules.banned or self.sampling.processors
        )
        self.is_free = not self._always and self.sampling.min_tokens == 0

    def _plan(self, steps: list[str]) -> None:
        """What is done once logits are steered."""
        sampling = self.sampling
        self.top_k = int(sampling.top_k) if steps[:1] == ["top_k"] else 0
        steps = steps[1:] if self.top_k else steps
        self._adapts = "adaptive_p" in sampling.samplers and sampling.adaptive_target >= 0 and not sampling.mirostat
        self._mu = 2 * float(sampling.mirostat_tau)
        decay = sampling.adaptive_decay
        self._shares, self._weights = sampling.adaptive_target / (1 - decay), 1 / (1 - decay)
        self._tells = sampling.post_sampling_probs and sampling.logprobs is not None
        places = [_PLAIN.index(step) if step in _PLAIN else -1 for step in steps]
        self.is_plain = (
            -1 not in places and places == sorted(set(places)) and sampling.min_keep <= 1
            and not (self._tells or self._adapts or sampling.mirostat)
            and not ("temperature" in steps and sampling.dynatemp_range > 0)
        )  # fmt: skip
        temperature = float(sampling.temperature) if "temperature" in steps else 1.0
        min_p = float(sampling.min_p) if "min_p" in steps else 0.0
        self.parameters = temperature, min_p, float(sampling.top_p) if "top_p" in steps else np.inf
        if self.is_plain and temperature == 0:
            self.top_k = 1
        self._first = steps[0] if steps and not self.top_k else None
        # What `floor` has cut already is not cut again: deviations of what is left are others.
        cut = steps[1:] if self._first == "top_n_sigma" else steps
        self._cuts = [] if self.is_plain else [self._cut(step) for step in cut]

    def _cut(self, step: str) -> Cut:
        s = self.sampling
        made: dict[str, Cut] = {
            "penalties": self._penalise,
            "dry": self._dry,
            "top_n_sigma": partial(cuts.top_n_sigma, deviations=s.top_n_sigma),
            "top_k": partial(cuts.top_k, k=int(s.top_k)),
            "typ_p": partial(cuts.typical, share=s.typical_p, least=int(s.min_keep)),
            "top_p": partial(cuts.top_p, share=s.top_p, least=int(s.min_keep)),
            "min_p": partial(cuts.min_p, share=s.min_p, least=int(s.min_keep)),
            "xtc": self._leave_out,
            "temperature": self._temper,
        }
        return made[step]

    def candidates(self, *, is_masked: bool) -> int:
        """So many likeliest ids serve it best; 1 where all logits are needed anyway."""
        if self.is_free and not is_masked:
            return self.top_k if self.top_k <= CANDIDATES else 1
        return CANDIDATES if 0 < self.top_k <= CANDIDATES and not self.sampling.processors else 1

    @property
    def window(self) -> npt.NDArray[np.int32]:
        """Ids that penalties look at."""
        assert self._history is not None
        return self._history.last(int(self.sampling.repeat_last_n))

    def forbidden(self) -> list[int]:
        """Ids that may not come next, beside those with a bias of minus infinity."""
        ids = list(self._ends) if self._generated < self.sampling.min_tokens else []
        if self._rules.banned:
            assert self._history is not None
            last = self._history.last(1).tolist()
            near = self._rules.banned.get(last[0], ()) if last else ()
            ids += [run[-1] for run in near if self._history.ends_with(run[:-1])]
        return ids

    def repeats(self) -> tuple[list[int], Wide]:
        """Ids that would make a run longer which was said before, and what is taken from their logits."""
        if self._watch is None or not self._is_dry:
            return [], np.empty(0)
        return self._repeats(self._watch)

    def _repeats(self, watch: DryWatch) -> tuple[list[int], Wide]:
        s = self.sampling
        found = watch.repeated(int(s.dry_allowed_length))
        taken = dry_penalties(found, multiplier=s.dry_multiplier, base=s.dry_base, allowed=int(s.dry_allowed_length))
        return [*found], taken

    def process(self, logits: Floats) -> Floats:
        """What processors make of a row. Raises RequestError where one fails, or gives no row of numbers."""
        assert self._history is not None
        made = logits.copy()
        for processor in self.sampling.processors:
            name = getattr(processor, "__name__", type(processor).__name__)
            try:
                given = processor(self._history.last(-1).copy(), made)
                made = made if given is None else np.array(given, np.float32)
            except Exception as error:
                raise RequestError(f"the processor {name} failed: {type(error).__name__}: {error}") from error
            if made.shape != logits.shape or not made.max(initial=-np.inf) < np.inf:  # NaN is the largest, too
                raise RequestError(
                    f"the processor {name} gave no logits", hint=f"give {len(logits)} numbers, minus infinity for never"
                )
        return made

    def floor(self, logits: Floats) -> float:
        """What the first sampler leaves out of a whole row lies below this, so that nobody need sort it."""
        if self._first == "top_n_sigma":
            return cuts.sigma_floor(logits, self.sampling.top_n_sigma)
        if self._first == "min_p" and self.sampling.min_keep <= 1:
            return float(logits.max()) + math.log(self.sampling.min_p) - 1e-3  # near it, the sampler itself decides
        return -math.inf

    def roll(self) -> float:
        """The next of its random numbers, from 0 up to 1."""
        return self._random.random()

    def draw(self, ranked: Ranked) -> int:
        """An id of one row, sampler by sampler."""
        s = self.sampling
        with np.errstate(over="ignore", under="ignore"):
            for cut in self._cuts:
                ranked = cut(ranked)
            if s.mirostat == 1:
                ranked = cuts.mirostat_first(ranked, self._mu, self._vocabulary)
            elif s.mirostat == 2:
                ranked = cuts.mirostat_second(ranked, self._mu)
            p = shares = cuts.softmax(ranked.logits)
        if self._adapts:
            seen = self._shares / self._weights
            shares = cuts.adapted(p, min(max(2 * s.adaptive_target - seen, 0.0), 1.0))
        reached = shares.cumsum()
        place = min(int(np.count_nonzero(reached <= self.roll() * reached[-1])), len(p) - 1)
        if s.mirostat:
            self._mu -= s.mirostat_eta * (-math.log2(max(float(p[place]), 5e-324)) - s.mirostat_tau)
        if self._adapts:
            self._shares = float(p[place]) + s.adaptive_decay * self._shares
            self._weights = 1 + s.adaptive_decay * self._weights
        if self._tells:
            self.told = _told(ranked, shares, place, s.logprobs or 0)
        return int(ranked.ids[place])

    def accept(self, id: int) -> None:
        """It has become part of the answer."""
        self._generated += 1
        if self._generated == self.sampling.min_tokens:
            self.is_free = not self._always
        if self._history is not None:
            self._history.append(id)
        if self._watch is not None:
            self._watch.append(id)

    def _penalise(self, ranked: Ranked) -> Ranked:
        s = self.sampling
        seen, counts = np.unique(self.window, return_counts=True)
        found = _find(ranked, seen)
        logits = ranked.logits.copy()
        logits[found >= 0] = penalised(
            logits[found >= 0], counts[found[found >= 0]],
            repeat=s.repeat_penalty, each=s.frequency_penalty, once=s.presence_penalty,
        )  # fmt: skip
        return cuts.sort(ranked.ids, logits)

    def _dry(self, ranked: Ranked) -> Ranked:
        assert self._watch is not None
        ids, taken = self._repeats(self._watch)
        order = np.argsort(np.array(ids, np.int64))
        found = _find(ranked, np.array(ids, np.int64)[order])
        logits = ranked.logits.copy()
        logits[found >= 0] -= taken[order][found[found >= 0]]
        return cuts.sort(ranked.ids, logits)

    def _leave_out(self, ranked: Ranked) -> Ranked:
        assert self._chance is not None
        if self._chance.random() > self.sampling.xtc_probability:
            return ranked
        return cuts.without_likely(ranked, self.sampling.xtc_threshold, int(self.sampling.min_keep))

    def _temper(self, ranked: Ranked) -> Ranked:
        s, temperature = self.sampling, self.sampling.temperature
        if s.dynatemp_range > 0 and not s.mirostat:
            temperature = cuts.dynamic_temperature(ranked, temperature, s.dynatemp_range, s.dynatemp_exponent)
        return cuts.tempered(ranked, temperature)


def _active(s: Sampling) -> Iterator[str]:
    """Samplers that do anything, in their order. Mirostat leaves the temperature alone of them."""
    does = {
        "penalties": s.repeat_last_n != 0 and (s.repeat_penalty, s.presence_penalty, s.frequency_penalty) != (1, 0, 0),
        "dry": s.dry_multiplier != 0 and s.dry_penalty_last_n != 0,
        "top_n_sigma": s.top_n_sigma > 0,
        "top_k": s.top_k > 0,
        "typ_p": s.typical_p < 1,
        "top_p": s.top_p < 1,
        "min_p": s.min_p > 0,
        "xtc": s.xtc_probability > 0 and s.xtc_threshold <= 0.5,
        "temperature": s.temperature != 1 or s.dynatemp_range > 0,
    }
    for name in ("temperature",) if s.mirostat else s.samplers:
        if does.get(name, False):
            yield name


def _find(ranked: Ranked, ids: npt.NDArray[np.integer]) -> npt.NDArray[np.intp]:
    """Where each ranked id stands among some in ascending order; -1 for not at all."""
    if not len(ids):
        return np.full(len(ranked.ids), -1)
    places = np.minimum(np.searchsorted(ids, ranked.ids), len(ids) - 1)
    return np.where(ids[places] == ranked.ids, places, -1)


def _told(ranked: Ranked, shares: Wide, place: int, most: int) -> Logprobs:
    """Logarithms of what was drawn from, likeliest first; of those that were nothing none."""
    order = np.argsort(-shares, kind="stable")[:most]
    likeliest = [(int(ranked.ids[i]), math.log(shares[i])) for i in order if shares[i] > 0]
    return Logprobs((int(ranked.ids[place]), math.log(max(shares[place], 5e-324))), tuple(likeliest))
