"""Samplers for one row, which cut a list of ids or change its logits; formulas in float64.

Each takes ids likeliest first and gives some of them, likeliest first. Sources of the formulas stand at `Sampling`.

Thread: the engine's.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Wide = npt.NDArray[np.float64]
_MIROSTAT_IDS = 100  # of which mirostat 1 estimates how fast probabilities fall
_WIDTH, _PEAK, _SHARPNESS = 0.3, 5.0, 10.0  # of adaptive-p


class Ranked(NamedTuple):
    """Ids that a row may draw from, likeliest first, and their logits; all finite."""

    ids: npt.NDArray[np.integer]
    logits: Wide

    def first(self, count: int) -> Ranked:
        """The likeliest ones."""
        return Ranked(self.ids[:count], self.logits[:count])


def softmax(logits: Wide) -> Wide:
    """Probabilities of logits of which the first is the largest."""
    p: Wide = np.exp(logits - logits[0])
    p /= p.sum()
    return p


def sort(ids: npt.NDArray[np.integer], logits: Wide) -> Ranked:
    """Ids with finite logits, likeliest first; equal ones in the order of ids."""
    order = np.lexsort((ids, -logits))
    order = order[: np.count_nonzero(logits > -np.inf)]
    return Ranked(ids[order], logits[order])


def top_k(ranked: Ranked, k: int) -> Ranked:
    """The k likeliest; 0 keeps all."""
    return ranked.first(k) if k else ranked


def top_p(ranked: Ranked, share: float, least: int) -> Ranked:
    """The likeliest ones whose probabilities sum to `share`."""
    before = np.cumsum(softmax(ranked.logits)) < share
    return ranked.first(max(1 + int(np.count_nonzero(before)), least))


def min_p(ranked: Ranked, share: float, least: int) -> Ranked:
    """Those of at least this share of the likeliest one's probability."""
    kept = ranked.logits >= ranked.logits[0] + math.log(share)
    return ranked.first(max(int(np.count_nonzero(kept)), least))


def top_n_sigma(ranked: Ranked, deviations: float) -> Ranked:
    """Those within so many standard deviations of the largest."""
    return ranked.first(int(np.count_nonzero(ranked.logits >= sigma_floor(ranked.logits, deviations))))


def sigma_floor(logits: npt.NDArray[np.floating], deviations: float) -> float:
    """What top-n-sigma leaves out lies below this; minus infinity counts for nothing."""
    finite = logits[logits > -np.inf].astype(np.float64)
    return float(finite.max() - deviations * finite.std())


def typical(ranked: Ranked, share: float, least: int) -> Ranked:
    """Those whose surprise is nearest to the expected one, until their probabilities sum to more than `share`."""
    p = softmax(ranked.logits)
    surprise = -_log(p)
    order = np.argsort(np.abs(surprise - (p * surprise).sum()), kind="stable")
    before = np.cumsum(p[order]) <= share
    kept = np.sort(order[: max(1 + int(np.count_nonzero(before)), least)])
    return Ranked(ranked.ids[kept], ranked.logits[kept])


def without_likely(ranked: Ranked, threshold: float, least: int) -> Ranked:
    """XTC: all but those likelier than the least likely of those that reach the threshold."""
    out = int(np.count_nonzero(softmax(ranked.logits) >= threshold)) - 1
    if out < 1 or len(ranked.ids) - out < least:
        return ranked
    return Ranked(ranked.ids[out:], ranked.logits[out:])


def tempered(ranked: Ranked, temperature: float) -> Ranked:
    """Logits divided; by 0 only the largest stays."""
    if temperature <= 0:
        return ranked.first(1)
    return Ranked(ranked.ids, (ranked.logits - ranked.logits[0]) / temperature)


def dynamic_temperature(ranked: Ranked, temperature: float, reach: float, exponent: float) -> float:
    """A temperature up to `reach` below or above, as the entropy of what is left is small or large."""
    if len(ranked.ids) == 1:
        return temperature
    p = softmax(ranked.logits)
    entropy = min(max(float(-(p * _log(p)).sum()) / math.log(len(p)), 0.0), 1.0)
    low = max(0.0, temperature - reach)
    return low + (temperature + reach - low) * float(entropy**exponent)


def mirostat_first(ranked: Ranked, mu: float, vocabulary: int) -> Ranked:
    """Mirostat 1: so many ids that their expected surprise is the target, if probabilities fall as Zipf says."""
    falls = -np.diff(ranked.logits[:_MIROSTAT_IDS])  # logarithms of p[i] / p[i + 1]
    places = np.arange(1, len(falls) + 1)
    steps = np.log((places + 1) / places)
    count = 1.0
    if len(steps):
        s = float((steps * falls).sum() / (steps * steps).sum())
        with np.errstate(all="ignore"):
            power = np.float64(vocabulary) ** -(s - 1)
            count = float((np.float64(s - 1) * np.exp2(np.float64(mu)) / (1 - power)) ** (1 / np.float64(s)))
    # Without a slope, or with one of exactly 1, the formula is no number: then one id, as for a count below 1.
    return ranked.first(max(1, int(min(count, len(ranked.ids)))) if count == count else 1)


def mirostat_second(ranked: Ranked, mu: float) -> Ranked:
    """Mirostat 2: those whose surprise, in bits, is not above mu; one at least."""
    surprise = -_log(softmax(ranked.logits)) / math.log(2)
    return ranked.first(max(1, int(np.count_nonzero(surprise <= mu))))


def adapted(p: Wide, target: float) -> Wide:
    """Adaptive-p: probabilities drawn towards those ids whose own are near the target."""
    distance = np.abs(p - target) / _WIDTH
    logits = _PEAK - _SHARPNESS * distance * distance / (1 + distance)
    shares: Wide = np.exp(logits - logits.max())
    shares /= shares.sum()
    return shares


def _log(p: Wide) -> Wide:
    """Of probabilities, of which those that are nothing count as the smallest number there is."""
    found: Wide = np.log(np.maximum(p, 5e-324))
    return found
