"""Tiles: blocks of accumulators, and the sums of byte products that fill them, per instruction set.

A tile holds `vectors` x `tokens` results: vector v is `lanes` outputs of a weight strip, token t a row of x.
Weights are packed in strips of STRIP outputs (see `ops/layout.py`). All byte sums are exact integers.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from opsin.ops.cpu.simd import (
    F32, I8, I16, I32, I64, Simd, Tile, call, constant, fma, load, operation, splat, store, whole_or_part,
)  # fmt: skip
from opsin.ops.layout import SHARED, STRIP


class Dots:
    """Operations on tiles of `vectors` x `tokens`, for weights of `bits` a value, biased by `zero`."""

    def __init__(
        self, simd: Simd, *, vectors: int, tokens: int, bits: int = 0, zero: int = 0, table: tuple[int, ...] = ()
    ) -> None:
        self.simd, self.vectors, self.tokens, self.bits, self.zero = simd, vectors, tokens, bits, zero
        self.table = table
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

    def _dots(self, b: Any, w: Any, x: Any, stride: Any, left: Any, sums: Any, sum_stride: Any) -> Any:
        """Sum of (q - zero) * x over a group of the weights at `w`; steps are those of the whole 32."""
        return GroupDots(self, b, w, (x, stride, left), (sums, sum_stride)).emit(0, 8)

    def part(self, first: int, last: int) -> Any:
        """`dots` over steps first..last of 4 weights only: formats whose scales hold 16 weights."""
        i64 = types.int64

        def emit(b: Any, w: Any, x: Any, stride: Any, left: Any, sums: Any, sum_stride: Any) -> Any:
            return GroupDots(self, b, w, (x, stride, left), (sums, sum_stride)).emit(first, last)

        return operation(self.I, (i64, i64, i64, i64, i64, i64), emit)

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
                token = splat(b, load(b, self.place(b, x, stride, left, t), F32), self.lanes)
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

    def add_products(self, b: Any, acc: Any, weights: list[Any], x: Any, stride: Any, left: Any) -> Any:
        """Code for acc + x * weights: a vector of outputs each, a number a token at x."""
        for t in range(self.tokens):
            token = splat(b, load(b, self.place(b, x, stride, left, t), F32), self.lanes)
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


class GroupDots:
    """Writes the code of one group: unpack planes step by step, multiply with the tokens' bytes, add up."""

    def __init__(
        self, tile: Dots, b: Any, w: Any, x: tuple[Any, Any, Any] | None = None, sums: tuple[Any, Any] | None = None
    ) -> None:
        self.tile, self.b, self.w = tile, b, w
        self.isa, self.lanes = tile.simd.isa, tile.lanes
        self.words = ir.VectorType(I32, self.lanes)
        self.bytes = ir.VectorType(I8, 4 * self.lanes)
        if x is not None and sums is not None:
            self.tokens = [tile.place(b, *x, t) for t in range(tile.tokens)]
            self.sums = [tile.place(b, sums[0], sums[1], x[2], t) for t in range(tile.tokens)]
        self.planes: dict[int, Any] = {}
        self.batch = self.batch_of(tile)

    @staticmethod
    def batch_of(tile: Dots) -> int:
        """How often pmaddubsw's 16-bit sums can be added before they may overflow: (2**bits - 1) * 127 * 2 each."""
        return {2: 32, 3: 16, 4: 8, 5: 4, 6: 2, 7: 1, 8: 1}[8 if tile.table else tile.bits]

    def emit(self, first: int, last: int) -> Any:
        tile, b = self.tile, self.b
        acc = [self._start(t) for t in range(tile.tokens) for _ in range(tile.vectors)]
        pending: list[Any] = [None] * tile.size
        for step in range(first, last):
            x = [splat(b, load(b, b.add(a, I64(4 * step)), I32), self.lanes) for a in self.tokens]
            for v in range(tile.vectors):
                w = self.values(v, step)
                for t in range(tile.tokens):
                    i = t * tile.vectors + v
                    self._product(acc, pending, i, w, x[t])
            if (step - first + 1) % self.batch == 0 or step == last - 1:
                self._widen(acc, pending)
        result = ir.Constant(tile.I.ir, ir.Undefined)
        for i, value in enumerate(acc):
            result = b.insert_value(result, value, i)
        return result

    def _start(self, t: int) -> Any:
        """The sum's first value: -zero * sum(x) undoes the bias of stored weights."""
        zero = self.tile.zero
        if zero == 0 or (zero == 128 and self.isa.dot in ("maddubs", "sdot")):
            return constant(self.words, 0)
        value = splat(self.b, load(self.b, self.sums[t], I32), self.lanes)
        return self.b.mul(value, constant(self.words, -zero))

    def _plane(self, v: int, offset: int) -> Any:
        """A vector of a plane, loaded once a group."""
        address = offset + 4 * self.lanes * v
        if address not in self.planes:
            self.planes[address] = load(self.b, self.b.add(self.w, I64(address)), self.words)
        return self.planes[address]

    def values(self, v: int, step: int) -> Any:
        """The unsigned weights 4*step..4*step+3 of vector v's outputs, a byte each."""
        bits, low = self.tile.bits, 0
        row = 4 * STRIP
        if bits == 8:
            return self._plane(v, step * row)
        if self.tile.table:
            return self._look_up(self._field(self._plane(v, (step // 2) * row), 4, step % 2, 0))
        value, offset = None, 0
        if bits >= 4:
            value, low, offset = self._field(self._plane(v, (step // 2) * row), 4, step % 2, 0), 4, 4 * row
        if bits in (2, 3, 6):
            high = self._field(self._plane(v, offset + (step // 4) * row), 2, step % 4, low)
            value, low, offset = (high if value is None else self.b.or_(value, high)), low + 2, offset + 2 * row
        if bits in (3, 5):
            value = self.b.or_(value, self._field(self._plane(v, offset), 1, step, low))
        return value

    def _look_up(self, words: Any) -> Any:
        """Each byte, 0 to 15, replaced by its byte of the table."""
        b, count = self.b, 4 * self.lanes
        choice = b.bitcast(words, self.bytes)
        table = ir.Constant(self.bytes, [I8(byte) for byte in self.tile.table * (count // 16)])
        name = {64: "llvm.x86.avx512.pshuf.b.512", 32: "llvm.x86.avx2.pshuf.b"}.get(count)
        if self.isa.dot == "sdot":
            name = "llvm.aarch64.neon.tbl1.v16i8"
        if name is not None:
            return b.bitcast(call(b, name, self.bytes, (table, choice)), self.words)
        value = constant(self.bytes, self.tile.table[0])
        for i, byte in enumerate(self.tile.table[1:], 1):
            value = b.select(b.icmp_unsigned("==", choice, constant(self.bytes, i)), constant(self.bytes, byte), value)
        return b.bitcast(value, self.words)

    def _field(self, plane: Any, width: int, index: int, to: int) -> Any:
        """Bits index*width.. of every byte, moved to bit `to`. Bits of neighbours are masked off."""
        b, shift = self.b, index * width - to
        if shift > 0:
            plane = b.lshr(plane, constant(self.words, shift))
        elif shift < 0:
            plane = b.shl(plane, constant(self.words, -shift))
        mask = (((1 << width) - 1) << to) * 0x01010101
        return b.and_(plane, constant(self.words, mask - (1 << 32) if mask >> 31 else mask))

    def _product(self, acc: list[Any], pending: list[Any], i: int, w: Any, x: Any) -> None:
        b, dot = self.b, self.isa.dot
        if dot == "vpdpbusd":
            name = f"llvm.x86.avx512.vpdpbusd.{32 * self.lanes}"
            acc[i] = call(b, name, self.words, (acc[i], b.bitcast(w, self.bytes), b.bitcast(x, self.bytes)))
        elif dot == "maddubs":
            product = self.maddubs(self.signed(w), x)
            pending[i] = product if pending[i] is None else b.add(pending[i], product)
        elif dot == "sdot":
            w, x = b.bitcast(self.signed(w), self.bytes), b.bitcast(x, self.bytes)
            acc[i] = call(b, "llvm.aarch64.neon.sdot.v4i32.v16i8", self.words, (acc[i], w, x))
        else:
            acc[i] = b.add(acc[i], self._plain(w, x))

    def signed(self, w: Any) -> Any:
        """Biased bytes as signed ones, for instructions that take signed weights."""
        if self.tile.zero != 128:
            return w
        return self.b.xor(w, constant(self.words, -0x7F7F7F80))

    def maddubs(self, w: Any, x: Any) -> Any:
        b = self.b
        pairs = ir.VectorType(I16, 2 * self.lanes)
        w, x = b.bitcast(w, self.bytes), b.bitcast(x, self.bytes)
        if self.tile.zero == 128:  # signed weights: |w| * (x with w's sign)
            x = call(b, "llvm.x86.avx2.psign.b", self.bytes, (x, w))
            w = call(b, f"llvm.abs.v{4 * self.lanes}i8", self.bytes, (w, ir.Constant(ir.IntType(1), 0)))
        return call(b, "llvm.x86.avx2.pmadd.ub.sw", pairs, (w, x))

    def _plain(self, w: Any, x: Any) -> Any:
        """Byte by byte in 32-bit lanes: any CPU can."""
        b, total = self.b, None
        for j in range(4):
            u = b.and_(b.lshr(w, constant(self.words, 8 * j)), constant(self.words, 255))
            s = b.ashr(b.shl(x, constant(self.words, 24 - 8 * j)), constant(self.words, 24))
            product = b.mul(u, s)
            total = product if total is None else b.add(total, product)
        return total

    def _widen(self, acc: list[Any], pending: list[Any]) -> None:
        """Fold 16-bit pair sums into the 32-bit accumulators."""
        b = self.b
        for i, value in enumerate(pending):
            if value is None:
                continue
            ones = constant(ir.VectorType(I16, 2 * self.lanes), 1)
            acc[i] = b.add(acc[i], call(b, "llvm.x86.avx2.pmadd.wd", self.words, (value, ones)))
            pending[i] = None


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
_NUMBERS = {"f32": (_load_f32, 4), "f16": (_load_f16, 2), "i8": (_load_i8, 1), "low": (_load_low, 1), "high": (_load_high, 1)}
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
