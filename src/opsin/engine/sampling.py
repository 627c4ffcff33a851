"""How the next id is chosen: one request's sampling options, its random numbers, and the likeliest ids of a row.

Thread: `Sampling` is anybody's and never changes; a `Sampler` is the engine's.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import numpy.typing as npt

from opsin.arrays import Floats
from opsin.errors import FileError, RequestError

_BLOCK = 64  # for finding the top k: maxima of so many logits bound the k-th largest value from below


@dataclass(frozen=True)
class Sampling:
    """Sampling options of one request. temperature 0 takes the likeliest id.

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
        wanted = f"a whole number, {low} to {high}" if whole else f"{low:g} to {high:g}"
        raise RequestError(f"{name}={value!r:.80}", hint=f"give {wanted}")


class Sampler:
    """How ids are drawn for one request; its random numbers are its own, so company changes nothing.

    Attributes:
        parameters: temperature, min_p, and top_p or infinity where that keeps all.
        top_k: 1 for greedy, 0 for all.
    """

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        top_p = float(sampling.top_p)
        self.parameters = float(sampling.temperature), float(sampling.min_p), top_p if top_p < 1.0 else np.inf
        self.top_k = 1 if sampling.greedy else int(sampling.top_k)
        self._random = np.random.default_rng(sampling.seed)

    def roll(self) -> float:
        """The next of its random numbers, from 0 up to 1."""
        return self._random.random()


def top_ids(logits: Floats, k: int) -> npt.NDArray[np.intp]:
    """The k likeliest ids, likeliest first; equal logits in the order of ids. k = 0 takes all.

    Raises FileError where a logit is no number.
    """
    n = len(logits)
    whole = n // _BLOCK * _BLOCK
    maxima = logits[:whole].reshape(_BLOCK, -1).max(0)  # of columns: NumPy takes whole vectors then
    if np.isnan(maxima).any() or np.isnan(logits[whole:]).any():  # a maximum with NaN is NaN
        raise damaged()
    if k == 0 or k >= n:
        return np.argsort(-logits, kind="stable")
    candidates = np.arange(n) if len(maxima) <= k else _reaching(logits, maxima, k)
    order = np.argsort(-logits[candidates], kind="stable")[:k]
    return candidates[order]


def damaged() -> FileError:
    """Of logits from which nothing can be chosen."""
    return FileError("the model gave logits that are no numbers", hint="the file is damaged, or overflows")


def _reaching(logits: Floats, maxima: Floats, k: int) -> npt.NDArray[np.intp]:
    """Ids that reach the k-th largest maximum of a column, in order: at least k do, so the top k are among them."""
    bound = np.partition(maxima, len(maxima) - k)[len(maxima) - k]
    columns = np.flatnonzero(maxima >= bound)
    inside = (np.arange(_BLOCK)[:, None] * len(maxima) + columns).reshape(-1)
    candidates: npt.NDArray[np.intp] = np.concatenate((inside, np.arange(len(maxima) * _BLOCK, len(logits))))
    kept: npt.NDArray[np.intp] = candidates[logits[candidates] >= bound]
    return kept
