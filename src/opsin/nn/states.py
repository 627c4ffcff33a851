"""What stands after a tower's layers: the states that a projector gets, and maps of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.nn.vit import Vit, attention_spans
from opsin.ops import Array


def feature_layers(file: File, stored: int) -> tuple[int, ...]:
    """After how many layers the states are taken that a projector gets: after all, where nothing is told.

    Told are numbers of states, 0 being the first layer's input. Raises ModelError for others than there are.
    """
    key = "clip.vision.feature_layer"
    told = [int(number) for number in file.get_ints(key, [stored])]
    layers = tuple(number if number >= 0 else stored + 1 + number for number in told)
    if not 0 < len(layers) <= stored or not all(0 < layer <= stored for layer in layers):
        raise ModelError(f"{file.path}: {key} is {str(told):.60}, of {stored} layers", hint="the file is damaged")
    return layers


def select(tower: Vit, features: Floats, layers: Sequence[int]) -> Array:
    """What stands after so many layers each, side by side: [pictures * patches, width * len(layers)].

    All patches of a picture see each other; the class row is left out, and there is no norm at the end.
    """
    spans = [attention_spans(tower.ops, [0, tower.rows(features)], len(features))] * max(layers)
    states = enumerate(tower.states(tower.embed(features), spans), 1)
    found = {done: tower.without_class(x, features) for done, x in states if done in layers}
    if len(layers) == 1:
        return found[layers[0]]
    return tower.ops.constant(np.concatenate([found[layer].numpy() for layer in layers], axis=1))


def shrunk(maps: Floats, rows: int, columns: int) -> Floats:
    """Maps [pictures, rows, columns, width] of another size: linear between the nearest, the middles of cells in place.

    (torch's interpolate without align_corners.)
    """
    for axis, size in ((1, rows), (2, columns)):
        count = maps.shape[axis]
        if size != count:
            places = np.clip((np.arange(size) + 0.5) * (count / size) - 0.5, 0, count - 1)
            before = places.astype(np.int64)
            after = np.minimum(before + 1, count - 1)
            share = np.expand_dims((places - before).astype(np.float32), tuple(i for i in range(4) if i != axis))
            maps = maps.take(before, axis) * (1 - share) + maps.take(after, axis) * share
    return maps
