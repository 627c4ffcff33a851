"""One id for each row of a step, all rows in one call: from its candidates, or from all logits where these do not do.

Row by row it would be the same, to the bit: a row's sums are taken over its own values, in their order.

Thread: the engine's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from opsin.engine.candidates import Candidates
from opsin.engine.cuts import Ranked, Wide
from opsin.engine.masks import Mask, Masks
from opsin.engine.ranking import damaged
from opsin.engine.sampler import Sampler
from opsin.engine.steering import Draw, steer


class _Rolled(NamedTuple):
    """A row whose random number is known. Without `ranked` it draws from the first top_k of its candidates."""

    row: int
    sampler: Sampler
    dice: float
    ranked: Ranked | None


def chosen_ids(samplers: Sequence[Sampler], candidates: Candidates, masks: Masks) -> list[int | Exception]:
    """The next id of each row of a step, or what went wrong with it or with its mask."""
    draws = [
        Draw(sampler, *mask) if isinstance(mask, Mask) else Draw(sampler)
        for sampler, mask in zip(samplers, masks, strict=True)
    ]
    drawn = zip(masks, sample(candidates, draws), strict=True)
    return [mask if isinstance(mask, Exception) else id for mask, id in drawn]


def sample(candidates: Candidates, draws: Sequence[Draw]) -> list[int | Exception]:
    """An id for each row of a step, or the error that kept this one row from it. Raises nothing for one row.

    FileError stands where the logits are no numbers, RequestError where what steers a row leaves it no id.
    """
    chosen: list[int | Exception] = candidates.ids[:, 0].tolist()
    ranked: dict[int, Ranked | None] = {}  # of rows that are no foregone choice; None for the first of the candidates
    steered: list[int] = []
    width = candidates.ids.shape[1]
    for row, is_number in enumerate(np.isfinite(candidates.sums).tolist()):
        sampler = draws[row].sampler
        if not is_number:
            chosen[row] = damaged()
        elif draws[row].mask is not None or not sampler.is_free or not 0 < sampler.top_k <= width:
            steered.append(row)
        elif not sampler.is_plain:
            wide = candidates.logits[row, : sampler.top_k].astype(np.float64)
            ranked[row] = Ranked(candidates.ids[row, : sampler.top_k], wide)
        elif sampler.top_k != 1:
            ranked[row] = None
    found_all = steer(candidates, steered, [draws[row] for row in steered]) if steered else ()
    for row, found in zip(steered, found_all, strict=True):
        if isinstance(found, Exception):
            chosen[row] = found
        elif draws[row].sampler.is_plain and draws[row].sampler.top_k == 1:
            chosen[row] = int(found.ids[0])
        else:
            ranked[row] = found
    if ranked:
        _choose(candidates, draws, ranked, chosen)
    return chosen


def _choose(
    candidates: Candidates, draws: Sequence[Draw], ranked: dict[int, Ranked | None], chosen: list[int | Exception]
) -> None:
    """Ids of rows that are no foregone choice, into `chosen`."""
    rolled: list[_Rolled] = []
    for row, found in ranked.items():
        sampler = draws[row].sampler
        try:
            if sampler.is_plain:
                rolled.append(_Rolled(row, sampler, sampler.roll(), found))
            elif found is not None:
                chosen[row] = sampler.draw(found)
        except Exception as error:  # noqa: BLE001 - this row's own
            chosen[row] = error
    _draw_plain(candidates, rolled, chosen)


def _draw_plain(candidates: Candidates, rolled: Sequence[_Rolled], chosen: list[int | Exception]) -> None:
    """Ids of all rows whose lists are short together, of others one by one, into `chosen`."""
    width = candidates.ids.shape[1]
    together = [one for one in rolled if one.ranked is None or len(one.ranked.ids) <= width]
    alone = [[one] for one in rolled if one.ranked is not None and len(one.ranked.ids) > width]
    for group in [together, *alone] if together else alone:
        for one, id in zip(group, _draw(candidates, group), strict=True):
            chosen[one.row] = id


def _draw(candidates: Candidates, rolled: Sequence[_Rolled]) -> list[int | Exception]:
    """Ids of some rows; where they cannot be drawn together, one by one."""
    try:
        return [*_drawn(candidates, rolled)]
    except Exception as error:  # noqa: BLE001 - whose it is comes out below
        if len(rolled) == 1:
            return [error]
        return [id for one in rolled for id in _draw(candidates, [one])]


def _drawn(candidates: Candidates, rolled: Sequence[_Rolled]) -> list[int]:
    """Top-p and min-p of the model's own probabilities, then the temperature, as llama-server has it."""
    ids, logits, count = _lists(candidates, rolled)
    rows = np.array([(*one.sampler.parameters, one.dice) for one in rolled])
    temperature, min_p, top_p, dice = rows[:, 0:1], rows[:, 1:2], rows[:, 2], rows[:, 3]
    wide = logits - logits[:, :1]
    shares = np.exp(wide)  # of the likeliest one's probability
    reached, each = shares.cumsum(axis=1), np.arange(len(ids))
    few = np.add.reduce(reached < (top_p * reached[each, count - 1])[:, None], axis=1, dtype=np.intp) + 1
    many = np.add.reduce(shares >= min_p, axis=1, dtype=np.intp)
    last = np.minimum(np.minimum(few, many), count) - 1  # likeliest come first: what stays is a beginning
    with np.errstate(over="ignore"):  # a temperature near 0 sends all but the best to minus infinity
        wide /= temperature
    drawn = np.exp(wide).cumsum(axis=1)
    place = np.add.reduce(drawn <= (dice * drawn[each, last])[:, None], axis=1, dtype=np.intp)
    chosen: list[int] = ids[each, np.minimum(place, last)].tolist()
    return chosen


def _lists(
    candidates: Candidates, rolled: Sequence[_Rolled]
) -> tuple[npt.NDArray[np.integer], Wide, npt.NDArray[np.intp]]:
    """Ids and logits [rows, k] that rows draw from, and how many of the first ones each row has."""
    first = rolled[0].ranked
    if len(rolled) == 1 and first is not None:
        return first.ids[None], first.logits[None], np.array([len(first.ids)])
    rows = [one.row for one in rolled]
    ids, logits = candidates.ids[rows], candidates.logits[rows].astype(np.float64)
    count = [one.sampler.top_k if one.ranked is None else len(one.ranked.ids) for one in rolled]
    for i, one in enumerate(rolled):
        if one.ranked is not None:
            ids[i, : count[i]], logits[i, : count[i]] = one.ranked
            logits[i, count[i] :] = -np.inf
    return ids, logits, np.array(count)
