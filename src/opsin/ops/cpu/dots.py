"""Tiles: blocks of accumulators, and what fills them.

A tile holds `vectors` x `tokens` results: vector v is `lanes` outputs of a weight strip, token t a row of x.
Weights are packed in strips of STRIP outputs (see `ops/layout.py`). All byte sums are exact integers.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from opsin.ops.cpu.block_dots import BlockDots
from opsin.ops.cpu.group_dots import GroupDots
from opsin.ops.cpu.simd import (
    F32,
    I8,
    I16,
    I32,
    I64,
    Simd,
    Tile,
    call,
    constant,
    fma,
    load,
    load_i4,
    operation,
    splat,
    store,
    whole_or_part,
)
from opsin.ops.cpu.tiles import REPEATED_BYTES
from opsin.ops.layout import SHARED


class Dots:
    """Operations on tiles of `vectors` x `tokens`, for weights of `bits` a value, biased by `zero`.

    `repeated`: the tokens' numbers lie as `Repeated` writes them.
    """

    def __init__(
        self, simd: Simd, *, vectors: int, tokens: int, bits: int = 0, zero: int = 0, table: tuple[int, ...] = (),
        repeated: bool = False,
    ) -> None:  # fmt: skip
        self.simd, self.vectors, self.tokens, self.bits, self.zero = simd, vectors, tokens, bits, zero
        self.table, self.repeated = table, repeated
        self.lanes = simd.lanes
        self.size = vectors * tokens
        self.F, self.I = Tile(simd.F, self.size), Tile(simd.I, self.size)
        i64 = types.int64
        self.zeros = operation(self.F, (), self._zeros)
        self.dots = operation(self.I, (i64, i64, i64, i64, i64, i64), self._dots)
        self.factors = operation(Tile(simd.F, vectors), (i64,), self._factors)
        self.ones = operation(Tile(simd.F, vectors), (), self._ones)
        whole = Tile(simd.F, vectors)
        self.scale = {n: operation(self.F, (self.F, self.I, whole, *[i64] * 4), self._scale(n)) for n in _NUMBERS}
        self.lift = {n: operation(self.F, (self.F, whole, *[i64] * 4), self._lift(n)) for n in _NUMBERS}
        self.step = {k: operation(self.F, (self.F, i64, i64, i64, i64), self._float_step(k)) for k in LOADS}
        self.keys_step = operation(self.F, (self.F, i64, i64, i64, i64, i64), self._keys_step)
        self.values_step = operation(self.F, (self.F, i64, i64, i64, i64, i64), self._values_step)
        self.keys_step4 = operation(self.F, (self.F, i64, i64, i64, i64, i64, i64), self._keys_step4)
        self.values_step4 = operation(self.F, (self.F, i64, i64, i64, i64, i64, i64), self._values_step4)
        self.load = operation(self.F, (i64, i64, i64, i64), self._load)
        self.store = operation(types.void, (self.F, i64, i64, i64, i64), self._store)
        self.add_bias = operation(self.F, (self.F, i64), self._bias)
        self.add_rows = operation(self.F, (self.F, i64, i64, i64, i64), self._rows)

    def _zeros(self, b: Any) -> Any:
        return ir.Constant(self.F.ir, [constant(self.simd.F.ir, 0.0)] * self.size)

    def place(self, b: Any, base: Any, stride: Any, left: Any, t: int) -> Any:
        """Address of token t; tokens past the last one repeat it and are not stored."""
        if t == 0:
            return base
        last = b.sub(left, I64(1))
        index = b.select(b.icmp_signed("<", I64(t), last), I64(t), last)
        return b.add(base, b.mul(index, stride))

    def token(self, b: Any, x: Any, stride: Any, left: Any, t: int) -> Any:
        """Token t's number in all lanes: x is that of token 0."""
        if self.repeated:
            return load(b, b.add(x, I64(REPEATED_BYTES * t)), self.simd.F.ir)
        return splat(b, load(b, self.place(b, x, stride, left, t), F32), self.lanes)

    def _dots(self, b: Any, w: Any, x: Any, stride: Any, left: Any, sums: Any, sum_stride: Any) -> Any:
        """Sum of (q - zero) * x over a group of the weights at `w`; steps are those of the whole 32."""
        return self._group(b, w, (x, stride, left), (sums, sum_stride)).emit(0, 8)

    def part(self, first: int, last: int) -> Any:
        """`dots` over steps first..last of 4 weights only: formats whose scales hold 16 weights."""
        i64 = types.int64

        def emit(b: Any, w: Any, x: Any, stride: Any, left: Any, sums: Any, sum_stride: Any) -> Any:
            return self._group(b, w, (x, stride, left), (sums, sum_stride)).emit(first, last)

        return operation(self.I, (i64, i64, i64, i64, i64, i64), emit)

    def _group(self, *arguments: Any) -> GroupDots:
        in_blocks = self.simd.isa.block != "" and self.tokens % 2 == 0
        return BlockDots(self, *arguments) if in_blocks else GroupDots(self, *arguments)

    def _factors(self, b: Any, w: Any) -> Any:
        """A vector a vector of outputs, from f16 at w."""
        result = ir.Constant(ir.ArrayType(self.simd.F.ir, self.vectors), ir.Undefined)
        for v in range(self.vectors):
            result = b.insert_value(result, _load_f16(b, b.add(w, I64(2 * self.lanes * v)), self.lanes), v)
        return result

    def _ones(self, b: Any) -> Any:
        return ir.Constant(ir.ArrayType(self.simd.F.ir, self.vectors), [constant(self.simd.F.ir, 1.0)] * self.vectors)

    def numbers(self, b: Any, w: Any, factors: Any, held: str) -> list[Any]:
        """Scales or minima of the outputs: f16 or f32 at w, or int8 or nibbles at w times `factors`."""
        read, size = _NUMBERS[held]
        whole = [read(b, b.add(w, I64(size * self.lanes * v)), self.lanes) for v in range(self.vectors)]
        if held in ("f16", "f32"):
            return whole
        return [b.fmul(x, b.extract_value(factors, v)) for v, x in enumerate(whole)]

    def _scale(self, held: str) -> Any:
        def emit(b: Any, acc: Any, dots: Any, factors: Any, w: Any, x: Any, stride: Any, left: Any) -> Any:
            """acc + dots * (weight scale at w) * (token scale at x, f32)."""
            scales = self.numbers(b, w, factors, held)
            for t in range(self.tokens):
                token = self.token(b, x, stride, left, t)
                for v in range(self.vectors):
                    i = t * self.vectors + v
                    value = b.sitofp(b.extract_value(dots, i), self.simd.F.ir)
                    acc = b.insert_value(acc, fma(b, value, b.fmul(scales[v], token), b.extract_value(acc, i)), i)
            return acc

        return emit

    def _lift(self, held: str) -> Any:
        def emit(b: Any, acc: Any, factors: Any, w: Any, x: Any, stride: Any, left: Any) -> Any:
            """acc + (weight minimum at w) * (sum of the token's values at x, f32)."""
            return self.add_products(b, acc, self.numbers(b, w, factors, held), x, stride, left)

        return emit

    def _keys_step(self, b: Any, acc: Any, w: Any, scales: Any, x: Any, stride: Any, left: Any) -> Any:
        """acc + (bytes at w * f16 scales, one each) * x: 8-bit keys of one k, outputs are places of a page."""
        n = self.lanes
        weights = [
            b.fmul(_load_i8(b, b.add(w, I64(n * v)), n), _load_f16(b, b.add(scales, I64(2 * n * v)), n))
            for v in range(self.vectors)
        ]
        return self.add_products(b, acc, weights, x, stride, left)

    def _values_step(self, b: Any, acc: Any, w: Any, scales: Any, x: Any, stride: Any, left: Any) -> Any:
        """acc + (bytes at w * f16 scales, one for SHARED) * x: 8-bit values of one row of a page."""
        n, weights = self.lanes, []
        for v in range(self.vectors):
            scale = b.fpext(load(b, b.add(scales, I64(2 * (n * v // SHARED))), ir.HalfType()), F32)
            weights.append(b.fmul(_load_i8(b, b.add(w, I64(n * v)), n), splat(b, scale, n)))
        return self.add_products(b, acc, weights, x, stride, left)

    def _keys_step4(self, b: Any, acc: Any, w: Any, shift: Any, scales: Any, x: Any, stride: Any, left: Any) -> Any:
        """As `_keys_step`, of the 4 bits `shift` bits up in the bytes at w."""
        n = self.lanes
        weights = [
            b.fmul(load_i4(b, b.add(w, I64(n * v)), shift, n), _load_f16(b, b.add(scales, I64(2 * n * v)), n))
            for v in range(self.vectors)
        ]
        return self.add_products(b, acc, weights, x, stride, left)

    def _values_step4(self, b: Any, acc: Any, w: Any, part: Any, scales: Any, x: Any, stride: Any, left: Any) -> Any:
        """As `_values_step`, of a row of 4 bits at w (see `attend`) from its value `part` on; scales are the row's."""
        n, weights = self.lanes, []
        for v in range(self.vectors):
            i = b.add(part, I64(n * v))
            group = b.lshr(i, I64(4))
            place = b.add(b.shl(b.lshr(group, I64(1)), I64(4)), b.and_(i, I64(15)))
            shift = b.shl(b.and_(group, I64(1)), I64(2))
            scale = b.fpext(load(b, b.add(scales, b.shl(group, I64(1))), ir.HalfType()), F32)
            weights.append(b.fmul(load_i4(b, b.add(w, place), shift, n), splat(b, scale, n)))
        return self.add_products(b, acc, weights, x, stride, left)

    def add_products(self, b: Any, acc: Any, weights: list[Any], x: Any, stride: Any, left: Any) -> Any:
        """Code for acc + x * weights: a vector of outputs each, a number a token at x."""
        for t in range(self.tokens):
            token = self.token(b, x, stride, left, t)
            for v in range(self.vectors):
                i = t * self.vectors + v
                acc = b.insert_value(acc, fma(b, weights[v], token, b.extract_value(acc, i)), i)
        return acc

    def _load(self, b: Any, y: Any, stride: Any, left: Any, columns: Any) -> Any:
        """The tile that `store` wrote."""
        return self._read(b, y, stride, left, columns)

    def _read(self, b: Any, rows: Any, stride: Any, left: Any, columns: Any) -> Any:
        """A tile of rows, where `columns` values of each exist."""
        starts = [self.place(b, rows, stride, left, t) for t in range(self.tokens)]
        places = [(b.add(start, I64(4 * self.lanes * v)), v) for start in starts for v in range(self.vectors)]

        def read(part: bool) -> Any:
            tile = ir.Constant(self.F.ir, ir.Undefined)
            for i, (place, v) in enumerate(places):
                value = _load_part(b, place, self.lanes, columns, v) if part else load(b, place, self.simd.F.ir)
                tile = b.insert_value(tile, value, i)
            return tile

        return whole_or_part(b, self.lanes, self._whole(b, columns), lambda: read(False), lambda: read(True))

    def _whole(self, b: Any, columns: Any) -> Any:
        return b.icmp_signed(">=", columns, I64(self.vectors * self.lanes))

    def _float_step(self, kind: str) -> Any:
        """acc + w[k] * x[k] for float weights of one k."""
        read, size = LOADS[kind]

        def emit(b: Any, acc: Any, w: Any, x: Any, stride: Any, left: Any) -> Any:
            weights = [read(b, b.add(w, I64(size * self.lanes * v)), self.lanes) for v in range(self.vectors)]
            return self.add_products(b, acc, weights, x, stride, left)

        return emit

    def _bias(self, b: Any, acc: Any, bias: Any) -> Any:
        kind = self.simd.F.ir
        for v in range(self.vectors):
            value = load(b, b.add(bias, I64(4 * self.lanes * v)), kind)
            for t in range(self.tokens):
                i = t * self.vectors + v
                acc = b.insert_value(acc, b.fadd(b.extract_value(acc, i), value), i)
        return acc

    def _rows(self, b: Any, acc: Any, rows: Any, stride: Any, left: Any, columns: Any) -> Any:
        """acc + rows, where `columns` values of each row exist."""
        added = self._read(b, rows, stride, left, columns)
        for i in range(self.size):
            acc = b.insert_value(acc, b.fadd(b.extract_value(acc, i), b.extract_value(added, i)), i)
        return acc

    def _store(self, b: Any, acc: Any, y: Any, stride: Any, left: Any, columns: Any) -> None:
        """Write the first `left` tokens and the first `columns` values of each."""

        def write(part: bool) -> None:
            for t in range(self.tokens):
                with b.if_then(b.icmp_signed("<", I64(t), left)):
                    base = b.add(y, b.mul(I64(t), stride))
                    for v in range(self.vectors):
                        place, value = b.add(base, I64(4 * self.lanes * v)), b.extract_value(acc, t * self.vectors + v)
                        if part:
                            _store_part(b, place, value, self.lanes, columns, v)
                        else:
                            store(b, value, place)

        whole_or_part(b, self.lanes, self._whole(b, columns), lambda: write(False), lambda: write(True))


def _load_f32(b: Any, address: Any, n: int) -> Any:
    return load(b, address, ir.VectorType(F32, n))


def _load_f16(b: Any, address: Any, n: int) -> Any:
    return b.fpext(load(b, address, ir.VectorType(ir.HalfType(), n)), ir.VectorType(F32, n))


def _load_bf16(b: Any, address: Any, n: int) -> Any:
    wide = ir.VectorType(I32, n)
    bits = b.shl(b.zext(load(b, address, ir.VectorType(I16, n)), wide), constant(wide, 16))
    return b.bitcast(bits, ir.VectorType(F32, n))


def _load_i8(b: Any, address: Any, n: int) -> Any:
    return b.sitofp(load(b, address, ir.VectorType(I8, n)), ir.VectorType(F32, n))


def _load_low(b: Any, address: Any, n: int) -> Any:
    """The low nibbles of n bytes."""
    whole = load(b, address, ir.VectorType(I8, n))
    return b.uitofp(b.and_(whole, constant(whole.type, 15)), ir.VectorType(F32, n))


def _load_high(b: Any, address: Any, n: int) -> Any:
    """The high nibbles of n bytes."""
    whole = load(b, address, ir.VectorType(I8, n))
    return b.uitofp(b.lshr(whole, constant(whole.type, 4)), ir.VectorType(F32, n))


# How scales and minima are read, and the bytes of one.
_NUMBERS = {"f32": (_load_f32, 4), "f16": (_load_f16, 2), "i8": (_load_i8, 1)}
_NUMBERS |= {"low": (_load_low, 1), "high": (_load_high, 1)}
LOADS = {"f32": (_load_f32, 4), "f16": (_load_f16, 2), "bf16": (_load_bf16, 2)}


def _mask(b: Any, lanes: int, columns: Any, v: int) -> Any:
    index = ir.Constant(ir.VectorType(I32, lanes), [v * lanes + i for i in range(lanes)])
    return b.icmp_signed("<", index, splat(b, b.trunc(columns, I32), lanes))


def _load_part(b: Any, address: Any, lanes: int, columns: Any, v: int) -> Any:
    kind = ir.VectorType(F32, lanes)
    arguments = (b.inttoptr(address, kind.as_pointer()), I32(4), _mask(b, lanes, columns, v), constant(kind, 0.0))
    return call(b, f"llvm.masked.load.v{lanes}f32.p0", kind, arguments)


def _store_part(b: Any, address: Any, value: Any, lanes: int, columns: Any, v: int) -> None:
    arguments = (value, b.inttoptr(address, value.type.as_pointer()), I32(4), _mask(b, lanes, columns, v))
    call(b, f"llvm.masked.store.v{lanes}f32.p0", ir.VoidType(), arguments)
