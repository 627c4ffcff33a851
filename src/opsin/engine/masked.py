"""Rows that nothing steers but a mask, as most are that are held to a form.

A form mostly lets a handful of ids follow, or nearly all: the first are read by themselves, of the others the
candidates do.

Thread: the engine's; what is few is found on the masks' thread.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from opsin.arrays import Floats
from opsin.engine.constraint import Bits
from opsin.engine.cuts import Ranked
from opsin.errors import RequestError

_FEW = 256  # bytes of a mask with a bit in them


def few_ids(mask: Bits) -> npt.NDArray[np.int64] | None:
    """The ids that a mask lets through, in order, where it has few."""
    places = np.flatnonzero(mask)
    if len(places) > _FEW:
        return None
    rows, bits = np.nonzero(np.unpackbits(mask[places, None], axis=1, bitorder="little"))
    return places[rows] * 8 + bits


def lets(mask: Bits, ids: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Which of these ids a mask lets through."""
    bits: npt.NDArray[np.bool_] = (mask[ids >> 3] >> (ids & 7).astype(np.uint8) & 1).astype(np.bool_)
    return bits


def of_few(logits: Floats, few: npt.NDArray[np.int64], top_k: int) -> Ranked:
    """The top k of a row's few ids. Raises RequestError where there is none with a finite logit."""
    some = logits[few[: np.searchsorted(few, len(logits))]]
    order = np.argsort(-some, kind="stable")[:top_k]
    kept = some[order]
    if not len(kept) or not np.isfinite(kept[0]):
        raise nothing()
    if kept[-1] == -np.inf:
        order = order[kept > -np.inf]
    return Ranked(few[order], some[order].astype(np.float64))


def of_candidates(ids: npt.NDArray[np.integer], logits: Floats, mask: Bits, top_k: int) -> Ranked | None:
    """The top k of a row, where its candidates prove it."""
    order = np.flatnonzero(lets(mask, ids))[:top_k]
    if len(order) < top_k or logits[order[-1]] == -np.inf:
        return None
    return Ranked(ids[order].astype(np.int64), logits[order].astype(np.float64))


def nothing() -> RequestError:
    """Of a row in which no id may come."""
    return RequestError("no token can follow", hint="what steers this answer leaves none with a finite logit")
