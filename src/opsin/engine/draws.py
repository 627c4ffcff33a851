"""One id for each row of a step, all rows in one call: from its candidates, or from all logits where these do not do.

Row by row it would be the same, to the bit: a row's sums are taken over its own values, in their order.

Thread: the engine's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from opsin.arrays import Floats, Ints
from opsin.engine.candidates import Candidates
from opsin.engine.constraint import Bits
from opsin.engine.sampling import Sampler, damaged, top_ids
from opsin.errors import RequestError

Wide = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class Draw(NamedTuple):
    """What one row is drawn with: its sampler, and what steers the logits before the top k are taken.

    Attributes:
        mask: bit i % 8 of byte i // 8 says whether id i may be drawn, for the whole vocabulary; None lets all.
        biases: ids [n], each once, and what is added to their logits [n].
    """

    sampler: Sampler
    mask: Bits | None = None
    biases: tuple[Ints, Floats] | None = None

    @property
    def is_free(self) -> bool:
        """Whether nothing steers it."""
        return self.mask is None and self.biases is None


class _Ranked(NamedTuple):
    """Ids that a row draws from, likeliest first, and their logits."""

    ids: npt.NDArray[np.integer]
    logits: Floats


class _Rolled(NamedTuple):
    """A row whose random number is known. Without `ranked` it draws from the first top_k of its candidates."""

    row: int
    sampler: Sampler
    dice: float
    ranked: _Ranked | None


def sample(candidates: Candidates, draws: Sequence[Draw]) -> list[int | Exception]:
    """An id for each row of a step, or the error that kept this one row from it. Raises nothing for one row.

    FileError stands where the logits are no numbers, RequestError where mask and biases leave no id.
    """
    chosen: list[int | Exception] = candidates.ids[:, 0].tolist()
    rolled: list[_Rolled] = []
    width = candidates.ids.shape[1]
    for row, is_number in enumerate(np.isfinite(candidates.sums).tolist()):
        draw = draws[row]
        top_k = draw.sampler.top_k
        try:
            if not is_number:
                raise damaged()
            ranked = None if draw.is_free and 0 < top_k <= width else _rank(candidates, row, draw)
            if top_k != 1:
                rolled.append(_Rolled(row, draw.sampler, draw.sampler.roll(), ranked))
            elif ranked is not None:
                chosen[row] = int(ranked.ids[0])
        except Exception as error:  # noqa: BLE001 - this row's own
            chosen[row] = error
    together = [one for one in rolled if one.ranked is None or len(one.ranked.ids) <= width]
    alone = [[one] for one in rolled if one.ranked is not None and len(one.ranked.ids) > width]
    for group in [together, *alone] if together else alone:
        for one, id in zip(group, _draw(candidates, group), strict=True):
            chosen[one.row] = id
    return chosen


def _rank(candidates: Candidates, row: int, draw: Draw) -> _Ranked:
    """The top k of one row after its mask and biases: of the candidates where these prove it, else of all logits."""
    top_k, mask = draw.sampler.top_k, draw.mask
    if mask is not None and draw.biases is None:
        ids = candidates.ids[row]
        allowed = (mask[ids >> 3] >> (ids & 7) & 1).astype(bool)
        if 0 < top_k <= allowed.sum():
            return _Ranked(ids[allowed][:top_k], candidates.logits[row][allowed][:top_k])
    logits = candidates.whole()[row]
    if draw.is_free:
        every = top_ids(logits, top_k)
        return _Ranked(every, logits[every])
    logits = logits.copy()
    if draw.biases is not None:
        logits[draw.biases[0]] += draw.biases[1]
    if mask is not None:
        logits[np.unpackbits(mask, count=len(logits), bitorder="little") == 0] = -np.inf
    if not np.isfinite(logits.max()):
        raise RequestError("no token can follow", hint="what steers this answer leaves none with a finite logit")
    every = top_ids(logits, top_k)
    every = every[logits[every] > -np.inf]
    return _Ranked(every, logits[every])


def _draw(candidates: Candidates, rolled: Sequence[_Rolled]) -> list[int | Exception]:
    """Ids of some rows; where they cannot be drawn together, one by one."""
    try:
        return [*_drawn(candidates, rolled)]
    except Exception as error:  # noqa: BLE001 - whose it is comes out below
        if len(rolled) == 1:
            return [error]
        return [id for one in rolled for id in _draw(candidates, [one])]


def _drawn(candidates: Candidates, rolled: Sequence[_Rolled]) -> list[int]:
    ids, logits, has = _lists(candidates, rolled)
    rows = np.array([(*one.sampler.parameters, one.dice) for one in rolled])
    temperature, min_p, top_p, dice = rows[:, 0:1], rows[:, 1:2], rows[:, 2:3], rows[:, 3:4]
    wide = logits.astype(np.float64)
    with np.errstate(over="ignore"):  # a temperature near 0 sends all but the best to minus infinity
        p = np.exp((wide - wide[:, :1]) / temperature)
    p /= _sums(p, has)
    reached = p.cumsum(axis=1)
    keep = p >= min_p * p[:, :1]
    keep[:, 1:] &= reached[:, :-1] < top_p
    keep &= has  # the first of each row still: likeliest come first
    reaching = keep & (reached <= dice * _sums(p, keep))
    place = np.minimum(np.add.reduce(reaching, axis=1, dtype=np.intp), np.add.reduce(keep, axis=1, dtype=np.intp) - 1)
    chosen: list[int] = ids[np.arange(len(ids)), place].tolist()
    return chosen


def _lists(candidates: Candidates, rolled: Sequence[_Rolled]) -> tuple[npt.NDArray[np.integer], Floats, Mask]:
    """Ids and logits [rows, k] that rows draw from, and which of them each row has: so many first ones."""
    first = rolled[0].ranked
    if len(rolled) == 1 and first is not None:
        return first.ids[None], first.logits[None], np.ones((1, len(first.ids)), np.bool_)
    rows = [one.row for one in rolled]
    ids, logits = candidates.ids[rows], candidates.logits[rows]
    count = [one.sampler.top_k if one.ranked is None else len(one.ranked.ids) for one in rolled]
    for i, one in enumerate(rolled):
        if one.ranked is not None:
            ids[i, : count[i]], logits[i, : count[i]] = one.ranked
    return ids, logits, np.arange(ids.shape[1]) < np.array(count)[:, None]


def _sums(p: Wide, has: Mask) -> Wide:
    """The sum [rows, 1] of the first values of each row. Zeros after them would change its bits: sums go by pairs."""
    sums: Wide = np.add.reduce(p, axis=1, where=has, keepdims=True)
    return sums
