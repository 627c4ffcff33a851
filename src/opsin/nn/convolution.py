"""Convolutions that halve planes: a matrix over the nine places around every second one, high and wide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from opsin.arrays import Floats, Ints
from opsin.errors import ModelError
from opsin.nn.module import Reader
from opsin.nn.parts import Linear
from opsin.ops import Activation, Array, most

SIDE = 3  # places that a kernel sees, in both directions


class HalvingConv(Linear):
    """A kernel of 3 x 3 that moves by two, with nothing around a plane; [outputs, channels, 3, 3] in files.

    A row is a place of a plane, row after row of it, and holds its channels.
    """

    @classmethod
    def read(cls, source: Reader, path: str = "") -> Self:
        def by_places(values: Floats) -> Floats:
            if values.shape[1] % SIDE**2:
                raise ModelError(f"{path}.weight has kernels of {values.shape[1]} values", hint="the file is damaged")
            return values.reshape(len(values), -1, SIDE**2).swapaxes(1, 2).reshape(values.shape)

        part = cls.__new__(cls)
        part._path, part.weight = path, source.weight(f"{path}.weight", change=by_places)
        has_bias = source.has(f"{path}.bias")
        part.bias = source.ops.constant(source.values(f"{path}.bias").reshape(-1)) if has_bias else None
        return part

    def check_channels(self, channels: int) -> int:
        """How many it makes of so many. Raises ModelError where it takes others."""
        self.check(SIDE**2 * channels, self.outputs)
        return self.outputs

    def halve(self, x: Array, size: tuple[int, int], activation: Activation | None = None) -> Array:
        """x [planes * high * wide, channels] of planes of a size -> [planes * `half` of it, outputs]."""
        ops, nothing = x.ops, x.ops.constant(np.zeros((1, x.width), np.float32))
        places, beyond = _around(most(x.shape[0]) // (size[0] * size[1]), size)
        nine = ops.put(ops.take(x, ops.constant(places)), nothing, ops.constant(beyond))
        return self(ops.fold(nine, SIDE**2), activation=activation)


def half(size: Sequence[int]) -> tuple[int, int]:
    """Of a plane: high and wide, rounded up."""
    high, wide = size
    return -(-high // 2), -(-wide // 2)


def _around(planes: int, size: tuple[int, int]) -> tuple[Ints, Ints]:
    """The places that each result sees, nine by nine, and where one of them is none: 0, else -1.

    The one at (i, j) sees rows 2i - 1 to 2i + 1 and columns 2j - 1 to 2j + 1.
    """
    seen = [np.arange(0, length, 2)[:, None] + np.arange(-1, 2) for length in size]
    down, across = (np.clip(places, 0, length - 1) for places, length in zip(seen, size, strict=True))
    inside = [places == clipped for places, clipped in zip(seen, (down, across), strict=True)]
    place = down[:, None, :, None] * size[1] + across[None, :, None, :]  # [half high, half wide, 3, 3]
    is_there = (inside[0][:, None, :, None] & inside[1][None, :, None, :]).reshape(-1)
    places = (np.arange(planes)[:, None] * (size[0] * size[1]) + place.reshape(-1)).reshape(-1)
    return places.astype(np.int32), np.tile(np.where(is_there, -1, 0).astype(np.int32), planes)
