"""Rows of a table as files hold them to float32. Items are rows.

Arguments: source (blocks of rows, one after another), bytes a row of it, blocks a row (values, where they are floats),
out, bytes a row of it, scratch, bytes of scratch a thread.
"""

from __future__ import annotations

from typing import Any

from numba import types

from opsin.ops.cpu.kernels.pack import MINIMA_AT, SCALES_AT, half_reader, typed_pointer
from opsin.ops.cpu.kernels.shared import jit
from opsin.ops.cpu.simd import F32, I8, Simd
from opsin.ops.cpu.tiles import PACK_SCRATCH
from opsin.ops.layout import FLOAT_BYTES

SOURCE, SOURCE_ROW, BLOCKS, OUT, OUT_ROW, SCRATCH, SCRATCH_BYTES = (8 * i for i in range(7))
SPARE_AT = PACK_SCRATCH - 64


def make(simd: Simd, kind: str, format: int = -1) -> Any:
    unpack = _floats(simd, kind) if kind != "planes" else _planes(simd, format)
    at = simd.i64_at

    def stored(args: int, first: int, last: int, thread: int) -> int:
        scratch = at(args + SCRATCH) + thread * at(args + SCRATCH_BYTES)
        for row in range(first, last):
            source, out = at(args + SOURCE) + row * at(args + SOURCE_ROW), at(args + OUT) + row * at(args + OUT_ROW)
            unpack(source, at(args + BLOCKS), out, scratch)
        return 0

    return stored


def _floats(simd: Simd, kind: str) -> Any:
    read = {"f32": simd.f32_at, "f16": simd.f16_at, "bf16": simd.bf16_at}[kind]
    put, size = simd.put_f32, FLOAT_BYTES[kind]

    @jit
    def unpack(source: int, count: int, out: int, scratch: int) -> None:
        for i in range(count):
            put(out + 4 * i, read(source + i * size))

    return unpack


def _planes(simd: Simd, format: int) -> Any:
    """To the bits that `embed` gives of the same table in strips."""
    from opsin.quants import by_id

    kind = by_id(format)
    planes = kind.planes
    assert planes is not None
    unpack_block, half = jit(planes.unpack), half_reader(simd)
    as_bytes, as_floats = typed_pointer(types.uint8, I8), typed_pointer(types.float32, F32)
    size, elements, group, groups = kind.bytes, kind.elements, planes.group, kind.elements // planes.group
    codes, minimum, zero, uneven = planes.codes, planes.minimum, planes.zero, bool(planes.table)
    first_half, second_half = (
        int.from_bytes(bytes((planes.table or (0,) * 16)[i : i + 8]), "little", signed=True) for i in (0, 8)
    )
    put, fma, put_f16, f16_at = simd.put_f32, simd.fma1, simd.put_f16, simd.f16_at

    @jit
    def rounded(value: float, spare: int) -> float:
        """A scale as strips hold it: an f16."""
        put_f16(spare, value)
        number: float = f16_at(spare)
        return number

    @jit
    def unpack(source: int, blocks: int, out: int, scratch: int) -> None:
        q, scale, low = as_bytes(scratch), as_floats(scratch + SCALES_AT), as_floats(scratch + MINIMA_AT)
        for block in range(blocks):
            unpack_block(as_bytes(source + block * size), half, q, scale, low)
            for g in range(groups):
                factor = scale[g] * scale[groups] if codes else rounded(scale[g], scratch + SPARE_AT)
                added = 0.0
                if minimum:
                    added = low[g] * low[groups] if codes else rounded(low[g], scratch + SPARE_AT)
                to = out + 4 * (block * elements + g * group)
                for k in range(group):
                    value = int(q[g * group + k])
                    if uneven:
                        value = ((first_half if value < 8 else second_half) >> (8 * (value & 7))) & 255
                    put(to + 4 * k, fma(factor, float(value - zero), added))

    return unpack
