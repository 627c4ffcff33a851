"""What steers the logits of a row before its likeliest ids are taken: masks, biases, penalties, DRY, processors.

All rows of a step at once. Of most rows no more is read than the candidates and the logits of those ids that change:
whatever is neither lies behind the last candidate. Where too few ids are left before that, all logits are read.

Thread: the engine's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from opsin.arrays import Floats
from opsin.engine.candidates import Candidates
from opsin.engine.constraint import Bits
from opsin.engine.cuts import Ranked
from opsin.engine.masked import lets, nothing, of_candidates, of_few
from opsin.engine.ranking import NOTHING, Keys, keys_of, read_keys, top_ids
from opsin.engine.repetition import penalised
from opsin.engine.sampler import Sampler

Ids = npt.NDArray[np.int64]
_ID = (1 << 32) - 1
_LARGEST = 3e38  # a logit of float32 is no larger


class Draw(NamedTuple):
    """What one row is drawn with: its sampler, and what may come at all, whatever the sampler does.

    Attributes:
        mask: bit i % 8 of byte i // 8 says whether id i may be drawn, for the whole vocabulary; None lets all.
        few: the ids that the mask lets through, in order, where it is known that they are few.
    """

    sampler: Sampler
    mask: Bits | None = None
    few: Ids | None = None

    @property
    def allowed(self) -> Bits | None:
        """The mask, within what the request allows."""
        own, mask = self.sampler.allowed, self.mask
        return mask if own is None else own if mask is None else mask[: len(own)] & own


class _Changes(NamedTuple):
    """Ids whose logits are others than the model's, in the order of rows and ids: [n] row << 32 | id, [n] logits."""

    places: Ids
    logits: Floats

    def of(self, row: int) -> tuple[Ids, Floats]:
        """Ids and logits of one row."""
        first, end = np.searchsorted(self.places, (row << 32, row + 1 << 32))
        return self.places[first:end] & _ID, self.logits[first:end]


def steer(candidates: Candidates, rows: Sequence[int], draws: Sequence[Draw]) -> list[Ranked | Exception]:
    """The top k of these rows as they are steered, all of a row where it has no top k; or what keeps a row from it."""
    if not rows:
        return []
    found: dict[int, Ranked | Exception] = {}
    for i, (row, draw) in enumerate(zip(rows, draws, strict=True)):
        ranked = _masked(candidates, row, draw)
        if ranked is not None:
            found[i] = ranked
    rest = [i for i in range(len(rows)) if i not in found]
    if rest:
        found |= zip(rest, _together(candidates, [rows[i] for i in rest], [draws[i] for i in rest]), strict=True)
    return [found[i] for i in range(len(rows))]


def _masked(candidates: Candidates, row: int, draw: Draw) -> Ranked | Exception | None:
    """Of a row that nothing steers but a mask; None for another, and where all its logits are to be read."""
    if draw.mask is None or not draw.sampler.is_free or not draw.sampler.top_k:
        return None
    try:
        if draw.few is not None:
            return of_few(candidates.whole()[row], draw.few, draw.sampler.top_k)
        return of_candidates(candidates.ids[row], candidates.logits[row], draw.mask, draw.sampler.top_k)
    except Exception as error:  # noqa: BLE001 - this row's own
        return error


def _together(candidates: Candidates, rows: Sequence[int], draws: Sequence[Draw]) -> list[Ranked | Exception]:
    """Of rows in one go; row by row where that fails."""
    try:
        return _steered(candidates, rows, draws)
    except Exception as error:  # noqa: BLE001 - whose it is comes out below
        if len(rows) == 1:
            return [error]
        return [one for row, draw in zip(rows, draws, strict=True) for one in _together(candidates, [row], [draw])]


def _steered(candidates: Candidates, rows: Sequence[int], draws: Sequence[Draw]) -> list[Ranked | Exception]:
    if len(rows) == 1 and draws[0].sampler.sampling.processors:
        logits = draws[0].sampler.process(candidates.whole()[rows[0]])
        return [_from_all(logits, _changes(lambda: logits[None], [0], draws).of(0), draws[0])]
    if any(draw.sampler.sampling.processors for draw in draws):
        return [one for row, draw in zip(rows, draws, strict=True) for one in _together(candidates, [row], [draw])]
    changes = _changes(candidates.whole, rows, draws)
    found: list[Ranked | Exception] = []
    for i, ranked in enumerate(_from_candidates(candidates, rows, draws, changes)):
        try:
            found.append(ranked or _from_all(candidates.whole()[rows[i]], changes.of(i), draws[i]))
        except Exception as error:  # noqa: BLE001 - this row's own
            found.append(error)
    return found


def _changes(whole: Callable[[], Floats], rows: Sequence[int], draws: Sequence[Draw]) -> _Changes:
    """Biases come first, then penalties, then DRY; what may not come has minus infinity."""
    windows: list[Ids] = []
    biases: list[tuple[Ids, npt.NDArray[np.float64]]] = []
    repeats: list[tuple[Ids, npt.NDArray[np.float64]]] = []
    forbidden: list[Ids] = []
    for i, draw in enumerate(draws):
        sampler, base = draw.sampler, i << 32
        if sampler.is_free:
            continue
        if len(sampler.biases[0]):
            biases.append((sampler.biases[0] + base, sampler.biases[1]))
        if sampler.penalties is not None:
            windows.append(sampler.window.astype(np.int64) + base)
        repeated, taken = sampler.repeats()
        if repeated:
            repeats.append((np.array(repeated, np.int64) + base, taken))
        never = sampler.forbidden()
        if never:
            forbidden.append(np.array(never, np.int64) + base)
    others = [*(ids for ids, _ in biases), *(ids for ids, _ in repeats), *forbidden]
    if not windows and not others:
        return _Changes(np.empty(0, np.int64), np.empty(0, np.float32))
    seen, counts = np.unique(np.concatenate(windows or [np.empty(0, np.int64)]), return_counts=True)
    places = np.unique(np.concatenate([seen, *others])) if others else seen
    changed = whole()[np.array(rows)[places >> 32], places & _ID].astype(np.float64)
    for ids, values in biases:
        changed[np.searchsorted(places, ids)] += values
    if len(seen):
        here, (repeat, each, once) = np.searchsorted(places, seen), _penalties(draws)[:, seen >> 32]
        changed[here] = penalised(changed[here], counts, repeat=repeat, each=each, once=once)
    for ids, values in repeats:
        changed[np.searchsorted(places, ids)] -= values
    np.clip(changed, -_LARGEST, _LARGEST, out=changed, where=changed > -np.inf)
    for ids in forbidden:
        changed[np.searchsorted(places, ids)] = -np.inf
    return _Changes(places, changed.astype(np.float32))


def _penalties(draws: Sequence[Draw]) -> npt.NDArray[np.float64]:
    """Of each row: [3, rows]."""
    return np.array([draw.sampler.penalties or (1.0, 0.0, 0.0) for draw in draws]).T


def _from_candidates(
    candidates: Candidates, rows: Sequence[int], draws: Sequence[Draw], changes: _Changes
) -> list[Ranked | None]:
    """The top k of rows of which the candidates and the changed logits prove it."""
    ids, logits = candidates.ids[rows].astype(np.int64), candidates.logits[rows]
    places = (np.arange(len(rows)) << 32)[:, None] + ids
    keys = np.where(_is_in(places, changes.places) | (logits == -np.inf), NOTHING, keys_of(logits, ids))
    last = keys_of(logits[:, -1], ids[:, -1])  # all ids that are no candidates come behind it
    own = changes.places >> 32
    changed = keys_of(changes.logits, changes.places & _ID)
    known = (changed <= last[own]) & (changes.logits > -np.inf)
    for i, draw in enumerate(draws):
        allowed = draw.allowed
        if allowed is not None:
            keys[i, ~lets(allowed, ids[i])] = NOTHING
            mine = slice(*np.searchsorted(own, (i, i + 1)))
            known[mine] &= lets(allowed, changes.places[mine] & _ID)
    counts, merged = _merged(keys, own[known], changed[known])
    sorted_logits, sorted_ids = read_keys(merged)
    wide = sorted_logits.astype(np.float64)
    top = [draw.sampler.top_k for draw in draws]
    return [Ranked(sorted_ids[i, :k], wide[i, :k]) if 0 < k <= counts[i] else None for i, k in enumerate(top)]


def _merged(keys: Keys, rows: Ids, more: Keys) -> tuple[Ids, Keys]:
    """Keys [rows, k] with more of them, sorted; and how many of each row are any."""
    each = np.bincount(rows, minlength=len(keys))
    merged = np.full((len(keys), keys.shape[1] + int(each.max(initial=0))), NOTHING)
    merged[:, : keys.shape[1]] = keys
    starts = np.cumsum(each) - each
    merged[rows, keys.shape[1] + np.arange(len(rows)) - starts[rows]] = more
    merged.sort(axis=1)
    return np.count_nonzero(merged != NOTHING, axis=1), merged


def _from_all(logits: Floats, changes: tuple[Ids, Floats], draw: Draw) -> Ranked:
    """The top k of a row, or all of it."""
    sampler, (ids, changed), allowed = draw.sampler, changes, draw.allowed
    if len(ids) or allowed is not None:
        logits = logits.copy()
        logits[ids] = changed
    if allowed is not None:
        logits[np.unpackbits(allowed, count=len(logits), bitorder="little") == 0] = -np.inf
    if not np.isfinite(logits.max()):
        raise nothing()
    floor = sampler.floor(logits) if not sampler.top_k else -np.inf
    if floor > -np.inf:
        some = np.flatnonzero(logits >= np.float64(floor))
        every = some[np.argsort(-logits[some], kind="stable")]
    else:
        every = top_ids(logits, sampler.top_k)
        every = every[logits[every] > -np.inf]
    return Ranked(every, logits[every].astype(np.float64))


def _is_in(places: Ids, known: Ids) -> npt.NDArray[np.bool_]:
    """Which of these stand among some in ascending order."""
    if not len(known):
        return np.zeros(places.shape, np.bool_)
    found: npt.NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, places), len(known) - 1)] == places
    return found
