"""A forward pass with open windows: values by name, and edits of them. Eager, for looking, not for speed.

Thread: the engine's: `Engine.call` brings it there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np

from opsin.arrays import Floats
from opsin.engine.rows import PromptRows
from opsin.errors import RequestError
from opsin.models import Decoder
from opsin.nn.batch import MEMORY, Batch, Group, GroupShape
from opsin.ops import PAGE, Array, Ops, Reads
from opsin.ops.device import Device
from opsin.ops.recurrence import Runs
from opsin.spans import Prompt

Edits = Mapping[str, Callable[[Floats], Floats]]


def trace(
    device: Device, decoder: Decoder, ids: Sequence[int], taps: Sequence[str], edits: Edits, context: int | None = None
) -> dict[str, Floats]:
    """Values of one sequence at the taps, in the order in which they are computed. Keys and values are float32.

    `context`: see `Batch`.

    Raises RequestError where an edit changes a shape, or a tap or edit names nothing.
    """
    ops = device.eager()
    seen: dict[str, Floats] = {}
    used: set[str] = set()

    def wanted(name: str) -> bool:
        matches = [p for p in (*taps, *edits) if fnmatchcase(name, p)]
        used.update(matches)
        return bool(matches)

    def tap(name: str, value: Array) -> Array:
        if not wanted(name):
            return value
        now = np.asarray(value.numpy(), np.float32)
        for pattern, edit in edits.items():
            if fnmatchcase(name, pattern):
                now = _edited(name, edit, now)
        if any(fnmatchcase(name, p) for p in taps):
            seen[name] = now
        return ops.constant(now) if any(fnmatchcase(name, p) for p in edits) else value

    batch = replace(_batch(ops, decoder, ids, tap, wanted), context=context)
    if decoder.vocabulary:
        tap("logits", decoder.forward(batch))
    else:
        decoder.hidden(batch)
    unused = [p for p in (*taps, *edits) if p not in used]
    if unused:
        raise RequestError(f"nothing in this model is called {unused[0]!r}", hint='taps=["*"] gives all names')
    return seen


def _edited(name: str, edit: Callable[[Floats], Floats], now: Floats) -> Floats:
    new = np.asarray(edit(now.copy()), np.float32)
    if new.shape != now.shape:
        raise RequestError(f"the edit of {name} gave shape {new.shape}, not {now.shape}")
    return new


def _batch(
    ops: Ops, decoder: Decoder, ids: Sequence[int], tap: Callable[[str, Array], Array],
    wanted: Callable[[str], bool],
) -> Batch:  # fmt: skip
    rows, shapes, count = PromptRows(Prompt.of([ids]), decoder.axes), decoder.groups, len(ids)
    places = np.arange(count, dtype=np.int32)
    number = -(-count // PAGE)
    tables = ops.constant(np.arange(number, dtype=np.int32)[None])
    sequence, last = ops.constant(np.zeros(count, np.int32)), ops.constant(rows.last(0, places))
    positions = ops.constant(places)

    def group(shape: GroupShape) -> Group:
        pages = ops.pages(layers=shape.layers, heads=shape.heads, width=shape.width, count=number, kind="f32")
        first = ops.constant(rows.first(places, shape.window))
        end = ops.constant(rows.end(places, shape.window)) if shape.bidirectional else last
        return Group(pages, Reads(tables, sequence, first, end), positions)

    return Batch(
        ids=ops.constant(np.asarray(ids, np.int32)),
        positions=positions,
        groups={name: group(shape) for name, shape in shapes.items() if name != MEMORY},
        outputs=positions,
        axes=ops.constant(places[:, None].repeat(decoder.axes, axis=1)) if decoder.axes > 1 else None,
        segments=ops.constant(np.zeros(count, np.int32)) if decoder.segments else None,
        states={name: ops.states(layers=s.layers, shape=s.shape, count=1) for name, s in decoder.states.items()},
        runs=Runs(*(ops.constant(np.array(a, np.int32)) for a in ([0, count], [-1], [0]))) if decoder.states else None,
        tap=tap,
        wants_weights=wanted,
    )
