"""What may be written of a window of sound: moments in pairs that never go back, and no symbols that nobody says.

The rules of Radford et al. 2022 (arXiv 2212.04356, section 4.5 and its published code).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from opsin.api.speech.speech_ids import STEP, SpeechIds
from opsin.arrays import Floats

_LATEST_START = 1.0  # seconds after which nothing begins a window


@dataclass
class Listening:
    """Looks at one row of logits: how likely each language is, and that nobody speaks. A processor of `Sampling`."""

    ids: SpeechIds
    languages: dict[str, float] = field(default_factory=dict)
    silence: float = 0.0

    def __call__(self, ids: npt.NDArray[np.int32], logits: Floats) -> Floats | None:
        shares = np.exp(logits - logits.max(), dtype=np.float64)
        self.silence = float(shares[self.ids.silent] / shares.sum())
        found = {code: float(shares[id]) for code, id in self.ids.languages.items()}
        whole = sum(found.values()) or 1.0
        self.languages = {code: share / whole for code, share in found.items()}
        return None


class MomentRules:
    """A processor of `Sampling` for one window: what may come next, and how likely what came was.

    Args:
        asked: ids of the prompt.
        timed: whether moments are written.
        never, never_first: ids that are not written, and not as the first.
    """

    def __init__(
        self, ids: SpeechIds, asked: int, *, timed: bool, never: Sequence[int], never_first: Sequence[int]
    ) -> None:
        self.ids, self._asked, self._timed = ids, asked, timed
        others = [id for id in range(ids.end + 1, ids.first_moment) if id not in never]
        self._never = np.array([*never, *others], np.int64)
        self._never_first = np.array(list(never_first), np.int64)
        self.logprob, self.count = 0.0, 0  # of what was written, with its end
        self._row: tuple[Floats, float] | None = None  # logits that were last seen, and the logarithm of their sum

    def __call__(self, ids: npt.NDArray[np.int32], logits: Floats) -> Floats:
        written = ids[self._asked :]
        if len(written):
            self.count_in(int(written[-1]))
        logits[self._never[self._never < len(logits)]] = -np.inf
        if not len(written):
            logits[self._never_first[self._never_first < len(logits)]] = -np.inf
        if self._timed:
            self._time(written, logits)
        else:
            logits[self.ids.first_moment :] = -np.inf
        self._row = logits, _log_sum(logits)  # nobody changes them: a sampler goes on with a copy
        return logits

    def count_in(self, id: int) -> None:
        """An id came after the row that was last seen."""
        if self._row is not None:
            logits, whole = self._row
            self.logprob, self.count = self.logprob + float(logits[id]) - whole, self.count + 1
            self._row = None

    @property
    def average(self) -> float:
        """Logarithm of how likely an id of it was."""
        return self.logprob / max(1, self.count)

    def _time(self, written: npt.NDArray[np.int32], logits: Floats) -> None:
        first, end = self.ids.first_moment, self.ids.end
        moments = written[written >= first]
        if not len(written):
            logits[:first] = -np.inf
            logits[first + round(_LATEST_START / STEP) + 1 :] = -np.inf
        elif written[-1] >= first and (len(written) < 2 or written[-2] >= first):
            logits[first:] = -np.inf  # a pair is complete: text follows, or the end
        elif written[-1] >= first:
            logits[:end] = -np.inf  # one stands alone: another follows, or the end
            logits[first : moments[-1]] = -np.inf
        elif len(moments):
            logits[first : moments[-1] + 1] = -np.inf
        if _log_sum(logits[first:]) > logits[:first].max(initial=-np.inf):
            logits[:first] = -np.inf


def _log_sum(values: npt.NDArray[np.floating]) -> float:
    most = float(values.max(initial=-np.inf))
    if not math.isfinite(most):
        return most
    shares = values - values.dtype.type(most)
    return most + math.log(float(np.exp(shares, out=shares).sum(dtype=np.float64)))
