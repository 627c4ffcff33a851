"""Tensors as files hold them to strips (see `ops/layout.py`), at load. Items are strips.

Arguments: source (blocks of rows, one after another), bytes a row of it, rows there are, inputs, destination,
bytes a strip, scratch, bytes of scratch a thread.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from opsin.ops.cpu.kernels.quantise_int16 import rounding
from opsin.ops.cpu.kernels.shared import jit
from opsin.ops.cpu.simd import F16, F32, I8, I16, Simd, operation, pointer
from opsin.ops.layout import BLOCK, FLOAT_BYTES, PAIR_BYTES, PLANES, RECORD, STRIP, Layout

SOURCE, SOURCE_ROW, ROWS, INPUTS, TO, STRIP_BYTES, SCRATCH, SCRATCH_BYTES = (8 * i for i in range(8))
SCALES_AT, MINIMA_AT = 512, 1024  # in scratch (PACK_SCRATCH)
_INTEGERS_AT = 4 * BLOCK  # of 16 bits: scratch is a block of floats, then its integers


def make(simd: Simd, kind: str, format: int = -1, source: str = "") -> Any:
    if kind == "int16":
        strip = _integers(simd, source)
    else:
        strip = _floats(simd, kind) if kind != "planes" else _planes(simd, format)
    at = simd.i64_at

    def pack(args: int, first: int, last: int, thread: int) -> int:
        scratch = at(args + SCRATCH) + thread * at(args + SCRATCH_BYTES)
        for item in range(first, last):
            rows = min(STRIP, at(args + ROWS) - item * STRIP)
            source = at(args + SOURCE) + item * STRIP * at(args + SOURCE_ROW)
            strip(args, source, rows, at(args + TO) + item * at(args + STRIP_BYTES), scratch)
        return 0

    return pack


def _floats(simd: Simd, kind: str) -> Any:
    at, size = simd.i64_at, FLOAT_BYTES[kind]
    i32, put32 = simd.i32_at, simd.put_i32
    u16 = operation(types.int64, (types.int64,), lambda b, p: b.zext(_load(b, p, I16), ir.IntType(64)))
    put16 = operation(types.void, (types.int64,) * 2, lambda b, p, v: _store(b, b.trunc(v, I16), p))
    read, put = (i32, put32) if size == 4 else (u16, put16)

    @jit
    def strip(args: int, source: int, rows: int, to: int, scratch: int) -> None:
        inputs, stride = at(args + INPUTS), at(args + SOURCE_ROW)
        for r in range(STRIP):
            for i in range(inputs):
                put(to + (i * STRIP + r) * size, read(source + r * stride + i * size) if r < rows else 0)

    return strip


def _integers(simd: Simd, source: str) -> Any:
    """Floats of 16 bits to integers of 16 bits."""
    at, i32, put_i32, put_f32, round_block = simd.i64_at, simd.i32_at, simd.put_i32, simd.put_f32, rounding(simd)
    one, many = (simd.f16_at, simd.load_f16) if source == "f16" else (simd.bf16_at, simd.load_bf16)
    store, lanes = simd.store, simd.lanes

    @jit
    def widen(x: int, count: int, to: int) -> None:
        whole = count // lanes * lanes
        for i in range(0, whole, lanes):
            store(to + 4 * i, many(x + 2 * i))
        for i in range(whole, count):
            put_f32(to + 4 * i, one(x + 2 * i))

    @jit
    def strip(args: int, source: int, rows: int, to: int, scratch: int) -> None:
        inputs, stride = at(args + INPUTS), at(args + SOURCE_ROW)
        for r in range(STRIP):
            place = to + 4 * r
            for k in range(0, inputs, BLOCK):
                count = min(BLOCK, inputs - k) if r < rows else 0
                widen(source + r * stride + 2 * k, count, scratch)
                put_f32(place, round_block(scratch, count, scratch + _INTEGERS_AT))
                for pair in range((min(BLOCK, inputs - k) + 1) // 2):
                    place += PAIR_BYTES
                    put_i32(place, i32(scratch + _INTEGERS_AT + 4 * pair))
                place += PAIR_BYTES

    return strip


def _planes(simd: Simd, format: int) -> Any:
    from opsin.quants import by_id

    kind = by_id(format)
    planes = kind.planes
    assert planes is not None
    layout = Layout("planes", planes.bits, planes.group, planes.zero, planes.minimum, planes.codes, planes.paired)
    unpack, half = jit(planes.unpack), half_reader(simd)
    as_bytes, as_floats = typed_pointer(types.uint8, I8), typed_pointer(types.float32, F32)
    at = simd.i64_at
    size, elements, groups = kind.bytes, kind.elements, kind.elements // planes.group
    records, scales_a_record = elements // RECORD, RECORD // planes.group
    place = _place(simd, layout)
    codes, minimum, factors = planes.codes, planes.minimum, layout.factor_bytes
    block_bytes = layout.strip_bytes(elements)
    put_f16 = simd.put_f16

    @jit
    def strip(args: int, source: int, rows: int, to: int, scratch: int) -> None:
        q = as_bytes(scratch)
        scale = as_floats(scratch + SCALES_AT)
        low = as_floats(scratch + MINIMA_AT)
        stride, blocks = at(args + SOURCE_ROW), at(args + INPUTS) // elements
        for r in range(STRIP):
            if r >= rows:
                for i in range(elements):
                    q[i] = 0
                for i in range(groups + 1):
                    scale[i] = 0.0
                    low[i] = 0.0
            for block in range(blocks):
                if r < rows:
                    unpack(as_bytes(source + r * stride + block * size), half, q, scale, low)
                start = to + block * block_bytes
                if codes:
                    put_f16(start + 2 * r, scale[groups])
                    if minimum:
                        put_f16(start + 2 * (STRIP + r), low[groups])
                for k in range(records):
                    place(scratch, k, scales_a_record, start + factors, r)

    return strip


def _place(simd: Simd, layout: Layout) -> Any:
    """One record of one row from scratch to its places in the strip."""
    f32_at, i32, put_i32 = simd.f32_at, simd.i32_at, simd.put_i32
    put, size = (_put_code(simd), 1) if layout.codes else (simd.put_f16, 2)
    planes = PLANES[layout.bits]
    first, second = planes[0], planes[1] if len(planes) > 1 else 0
    record, head, minima, minimum = layout.record_bytes, layout.head_bytes, layout.minima_at, layout.minimum
    paired, put_i8 = layout.paired, simd.put_i8

    @jit
    def fill(q: int, plane: int, width: int, shift: int, r: int) -> None:
        steps = 8 // width
        mask = ((1 << width) - 1) * 0x01010101
        for word in range(width):
            value = 0
            for i in range(steps):
                value |= ((i32(q + (word * steps + i) * 4) >> shift) & mask) << (i * width)
            put_i32(plane + (word * STRIP + r) * 4, value)

    @jit
    def place(scratch: int, k: int, scales: int, to: int, r: int) -> None:
        base = to + k * record
        for j in range(scales):
            scale = f32_at(scratch + SCALES_AT + (k * scales + j) * 4)
            low = f32_at(scratch + MINIMA_AT + (k * scales + j) * 4) if minimum else 0.0
            if paired:
                put_i8(base + j * STRIP + r, int(scale) | (int(low) << 4))
                continue
            put(base + (j * STRIP + r) * size, scale)
            if minimum:
                put(base + minima + (j * STRIP + r) * size, low)
        q, plane = scratch + k * RECORD, base + head
        fill(q, plane, first, 0, r)
        if second != 0:
            fill(q, plane + first * 4 * STRIP, second, first, r)

    return place


def _put_code(simd: Simd) -> Any:
    put_i8 = simd.put_i8
    return jit(lambda address, value: put_i8(address, int(value)))


def half_reader(simd: Simd) -> Any:
    """What `unpack` reads f16 with: half(block, offset)."""

    def convert(b: Any, bits: Any) -> Any:
        return b.fpext(b.bitcast(b.trunc(bits, I16), F16), F32)

    bits_to_float = operation(types.float32, (types.int64,), convert)

    @jit
    def half(block: Any, offset: int) -> float:
        value: float = bits_to_float(block[offset] | (block[offset + 1] << 8))
        return value

    return half


def typed_pointer(kind: Any, element: ir.Type) -> Any:
    return operation(types.CPointer(kind), (types.int64,), lambda b, p: pointer(b, p, element))


def _load(b: Any, p: Any, kind: ir.Type) -> Any:
    value = b.load(pointer(b, p, kind))
    value.align = 1
    return value


def _store(b: Any, value: Any, p: Any) -> None:
    b.store(value, pointer(b, p, value.type)).align = 1
