"""Where in the sound heads look while a text is written: a forward pass of known ids, beside the engine's steps.

Thread: whoever asks; what computes is brought to the engine's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from opsin.api.text_part import Text
from opsin.arrays import Floats
from opsin.models import Remembers
from opsin.nn.batch import MEMORY, Batch, Group, Memory
from opsin.ops import PAGE, Array, Ops, Reads
from opsin.spans import MediaSpan, Prompt

_WEIGHTS = ".cross_attn.weights"


def look(text: Text, window: Prompt, ids: Sequence[int], see: Callable[[Floats], None]) -> Floats:
    """Logits [ids, vocabulary]; `see` gets the weights [ids, heads, rows] of each layer over a window of sound."""
    heard = text.engine.embed([span for span in window.spans if isinstance(span, MediaSpan)])
    return text.engine.call(lambda: _look(text, heard, ids, see))


def _look(text: Text, heard: Floats, ids: Sequence[int], see: Callable[[Floats], None]) -> Floats:
    def tap(name: str, value: Array) -> Array:
        if name.endswith(_WEIGHTS):
            see(np.asarray(value.numpy(), np.float32)[:, :, : len(heard)])
        return value

    batch = _batch(text.runner.device.eager(), text, heard, ids)
    batch = Batch(**{**vars(batch), "tap": tap, "wants_weights": lambda name: name.endswith(_WEIGHTS)})
    return np.asarray(text.runner.decoder.forward(batch).numpy(), np.float32)


def _batch(ops: Ops, text: Text, heard: Floats, ids: Sequence[int]) -> Batch:
    """All ids, each of which sees those before it and remembers all that was heard."""
    decoder, count = text.runner.decoder, len(ids)
    places = np.arange(count, dtype=np.int32)
    positions, nothing = ops.constant(places), ops.constant(np.zeros(count, np.int32))

    def group(name: str, rows: int, last: Array) -> Group:
        shape, number = decoder.groups[name], -(-rows // PAGE)
        tables = ops.constant(np.arange(number, dtype=np.int32)[None])
        pages = ops.pages(layers=shape.layers, heads=shape.heads, width=shape.width, count=number, kind="f32")
        return Group(pages, Reads(tables, nothing, nothing, last), positions if name != MEMORY else None)

    own = group("self", count, ops.constant(places + 1))
    sound = group(MEMORY, len(heard), ops.constant(np.full(count, len(heard), np.int32)))
    slots = ops.constant(np.arange(len(heard), dtype=np.int32))
    cast(Remembers, decoder).remember(ops.constant(heard), sound.pages, slots)
    return Batch(
        ids=ops.constant(np.asarray(ids, np.int32)), positions=positions, groups={"self": own}, outputs=positions,
        memory=Memory(sound.pages, sound.reads, None, rows=positions, places=positions),
    )  # fmt: skip
