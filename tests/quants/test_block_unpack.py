"""Taking a block apart for kernels gives what decoding it gives, as Python and compiled."""

from __future__ import annotations

import math

import numba
import numpy as np
import pytest
from hard_blocks import make_blocks

from opsin.arrays import Bytes, Floats
from opsin.quants import TYPES, Planes, QuantType

KINDS = [kind for kind in TYPES.values() if kind.planes is not None]
UNTOUCHED = np.float32(-77)


def read_half(block: Bytes, at: int) -> np.float32:
    bits = np.int64(block[at]) | (np.int64(block[at + 1]) << 8)
    exponent, fraction = (bits >> 10) & 31, bits & 1023
    if exponent == 31:
        size = math.nan if fraction else math.inf
    elif exponent == 0:
        size = math.ldexp(float(fraction), -24)
    else:
        size = math.ldexp(float(fraction + 1024), int(exponent) - 25)
    return np.float32(-size if bits & 0x8000 else size)


compiled_half = numba.njit(read_half)


def make_outputs(kind: QuantType, planes: Planes, count: int) -> tuple[Bytes, Floats, Floats]:
    groups = kind.elements // planes.group + planes.codes
    q = np.full((count, kind.elements), 0xAA, dtype=np.uint8)
    return q, np.full((count, groups), UNTOUCHED), np.full((count, groups), UNTOUCHED)


def join(planes: Planes, q: Bytes, scale: Floats, minimum: Floats) -> Floats:
    q = np.array(planes.table, np.uint8)[q] if planes.table else q
    steps = q.astype(np.float32) - np.float32(planes.zero)
    with np.errstate(all="ignore"):
        if planes.codes:
            assert np.array_equal(scale[:, :-1], np.clip(np.rint(scale[:, :-1]), -128, 127))
            scale, minimum = scale[:, :-1] * scale[:, -1:], minimum[:, :-1] * minimum[:, -1:]
        values = np.repeat(scale, planes.group, axis=1) * steps
        return values + np.repeat(minimum, planes.group, axis=1) if planes.minimum else values


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_unpack_as_python_gives_what_decode_gives(kind: QuantType) -> None:
    planes = kind.planes
    assert planes is not None
    blocks = make_blocks(kind)
    blocks = blocks[:: len(blocks) // 24]
    q, scale, minimum = make_outputs(kind, planes, len(blocks))
    with np.errstate(all="ignore"):
        for i, block in enumerate(blocks):
            planes.unpack(block, read_half, q[i], scale[i], minimum[i])
    assert q.max() < 1 << planes.bits
    assert np.array_equal(join(planes, q, scale, minimum), kind.decode(blocks), equal_nan=True)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_unpack_compiled_gives_what_decode_gives(kind: QuantType) -> None:
    planes = kind.planes
    assert planes is not None
    unpack = numba.njit(error_model="numpy")(planes.unpack)
    blocks = make_blocks(kind)
    q, scale, minimum = make_outputs(kind, planes, len(blocks))
    for i, block in enumerate(blocks):
        unpack(block, compiled_half, q[i], scale[i], minimum[i])
    assert q.max() < 1 << planes.bits
    assert np.array_equal(join(planes, q, scale, minimum), kind.decode(blocks), equal_nan=True)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_format_without_minimum_leaves_the_minimum_alone(kind: QuantType) -> None:
    planes = kind.planes
    assert planes is not None
    block = np.full(kind.bytes, 0x35, dtype=np.uint8)
    q, scale, minimum = make_outputs(kind, planes, 1)
    planes.unpack(block, read_half, q[0], scale[0], minimum[0])
    assert (scale != UNTOUCHED).all()
    assert (minimum != UNTOUCHED).all() == planes.minimum
