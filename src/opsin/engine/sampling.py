"""How the next id is chosen: frozen knobs of one request, and the choice itself."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import numpy.typing as npt

from opsin.errors import FileError, RequestError

Floats = npt.NDArray[np.float32]
_BLOCK = 64  # for finding the top k: maxima of so many logits bound the k-th largest value from below


@dataclass(frozen=True)
class Sampling:
    """Knobs of one request. temperature 0 takes the likeliest id.

    Attributes:
        temperature: divides logits; 0 for greedy.
        top_k: keep the k likeliest ids; 0 keeps all.
        top_p: keep the likeliest ids whose probabilities sum to p (Holtzman et al. 2020).
        min_p: keep ids at least this share of the likeliest one's probability (Nguyen et al. 2024).
        seed: None for a random one.
        max_tokens: end after so many ids; None for as many as the context holds.
        ignore_eos: go on past end-of-turn ids.
        logprobs: tell the log-probability of each id, and of so many likeliest ones; None tells none.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    seed: int | None = None
    max_tokens: int | None = None
    ignore_eos: bool = False
    logprobs: int | None = None

    def __post_init__(self) -> None:
        _within("temperature", self.temperature, 0.0, 100.0)
        _within("top_k", self.top_k, 0, 1 << 31, whole=True)
        _within("top_p", self.top_p, 0.0, 1.0)
        _within("min_p", self.min_p, 0.0, 1.0)
        if self.seed is not None:
            _within("seed", self.seed, 0, (1 << 64) - 1, whole=True)
        if self.max_tokens is not None:
            _within("max_tokens", self.max_tokens, 0, 1 << 31, whole=True)
        if self.logprobs is not None:
            _within("logprobs", self.logprobs, 0, 1 << 31, whole=True)
        if not isinstance(self.ignore_eos, bool):
            raise RequestError(f"ignore_eos={self.ignore_eos!r:.80}", hint="give True or False")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0 or self.top_k == 1


def _within(name: str, value: float, low: float, high: float, *, whole: bool = False) -> None:
    kind = Integral if whole else Real
    if not isinstance(value, kind) or isinstance(value, bool) or not low <= value <= high:
        raise RequestError(f"{name}={value!r:.80}", hint=f"give {'a whole number, ' * whole}{low:g} to {high:g}")


class Sampler:
    """Chooses ids for one request; its random numbers are its own, so company changes nothing."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._random = np.random.default_rng(sampling.seed)

    def choose(self, logits: Floats, likeliest: int | None = None) -> int:
        """One id for a row of logits [vocabulary]; `likeliest` where the device knows it already.

        Raises FileError where the logits are no numbers.
        """
        s = self.sampling
        best = int(logits.argmax()) if likeliest is None else likeliest  # NaN counts as the largest
        if not np.isfinite(logits[best]):
            raise _damaged()
        if s.greedy:
            return best
        ids = top_ids(logits, s.top_k)
        wide = logits[ids].astype(np.float64)
        with np.errstate(over="ignore"):  # a temperature near 0 sends all but the best to minus infinity
            p = np.exp((wide - wide[0]) / s.temperature)
        p /= p.sum()
        keep = p >= s.min_p * p[0]
        if s.top_p < 1.0:
            keep &= np.concatenate(([True], np.cumsum(p)[:-1] < s.top_p))
        ids, p = ids[keep], p[keep]
        place = int(np.searchsorted(np.cumsum(p), self._random.random() * p.sum(), side="right"))
        return int(ids[min(place, len(ids) - 1)])


def top_ids(logits: Floats, k: int) -> npt.NDArray[np.intp]:
    """The k likeliest ids, likeliest first; equal logits in the order of ids. k = 0 takes all.

    Raises FileError where a logit is no number.
    """
    n = len(logits)
    whole = n // _BLOCK * _BLOCK
    maxima = logits[:whole].reshape(_BLOCK, -1).max(0)  # of columns: NumPy takes whole vectors then
    if np.isnan(maxima).any() or np.isnan(logits[whole:]).any():  # a maximum with NaN is NaN
        raise _damaged()
    if k == 0 or k >= n:
        return np.argsort(-logits, kind="stable")
    candidates = np.arange(n) if len(maxima) <= k else _reaching(logits, maxima, k)
    order = np.argsort(-logits[candidates], kind="stable")[:k]
    return candidates[order]


def _damaged() -> FileError:
    return FileError("the model gave logits that are no numbers", hint="the file is damaged, or overflows")


def _reaching(logits: Floats, maxima: Floats, k: int) -> npt.NDArray[np.intp]:
    """Ids that reach the k-th largest maximum of a column, in order: at least k do, so the top k are among them."""
    bound = np.partition(maxima, len(maxima) - k)[len(maxima) - k]
    columns = np.flatnonzero(maxima >= bound)
    inside = (np.arange(_BLOCK)[:, None] * len(maxima) + columns).reshape(-1)
    candidates: npt.NDArray[np.intp] = np.concatenate((inside, np.arange(len(maxima) * _BLOCK, len(logits))))
    kept: npt.NDArray[np.intp] = candidates[logits[candidates] >= bound]
    return kept
