"""Sums of byte products over a group of weights, per instruction set: the inside of `Dots`.

All byte sums are exact integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir

from opsin.ops.cpu.simd import I8, I16, I32, I64, call, constant, load, splat
from opsin.ops.cpu.tiles import REPEATED_BYTES, REPEATED_GROUPS
from opsin.ops.layout import STRIP

if TYPE_CHECKING:
    from opsin.ops.cpu.dots import Dots


class GroupDots:
    """Writes the code of one group: unpack planes step by step, multiply with the tokens' bytes, add up."""

    def __init__(
        self, tile: Dots, b: Any, w: Any, x: tuple[Any, Any, Any] | None = None, sums: tuple[Any, Any] | None = None
    ) -> None:
        self.tile, self.b, self.w = tile, b, w
        self.isa, self.lanes = tile.simd.isa, tile.lanes
        self.words = ir.VectorType(I32, self.lanes)
        self.bytes = ir.VectorType(I8, 4 * self.lanes)
        self.rows = x[0] if x is not None else None
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
        if self.isa.dot == "maddubs" and fits(tile, last - first):
            acc = [constant(self.words, 0)] * tile.size
            pending: list[Any] = [self._biased(t, first) for t in range(tile.tokens) for _ in range(tile.vectors)]
            batch = last - first
        else:
            acc = [self._start(t) for t in range(tile.tokens) for _ in range(tile.vectors)]
            pending, batch = [None] * tile.size, self.batch
        for step in range(first, last):
            x = [self._bytes_of(t, step) for t in range(tile.tokens)]
            for v in range(tile.vectors):
                w = self.values(v, step)
                for t in range(tile.tokens):
                    i = t * tile.vectors + v
                    self._product(acc, pending, i, w, x[t])
            if (step - first + 1) % batch == 0 or step == last - 1:
                self._widen(acc, pending)
        result = ir.Constant(tile.I.ir, ir.Undefined)
        for i, value in enumerate(acc):
            result = b.insert_value(result, value, i)
        return result

    def _bytes_of(self, t: int, step: int) -> Any:
        """Bytes 4*step..4*step+3 of a token, in every lane."""
        b = self.b
        if self.tile.repeated:
            return load(b, b.add(self.rows, I64(REPEATED_BYTES * t + 32 * step)), self.words)
        return splat(b, load(b, b.add(self.tokens[t], I64(4 * step)), I32), self.lanes)

    def _biased(self, t: int, first: int) -> Any:
        """16-bit sums that begin with -zero * the sums of the bytes that will meet them."""
        if self.tile.zero == 0:
            return None
        pairs = ir.VectorType(I16, 2 * self.lanes)
        if self.tile.repeated:
            return load(
                self.b, self.b.add(self.rows, I64(REPEATED_BYTES * t + REPEATED_GROUPS + 32 * (first // 4))), pairs
            )
        return biased(self.b, load(self.b, self.sums[t], I32), self.tile.zero, self.lanes)

    def _start(self, t: int) -> Any:
        """The sum's first value: -zero * sum(x), as `quantise` writes it, undoes the bias of stored weights."""
        zero = self.tile.zero
        if zero == 0 or (zero == 128 and self.isa.dot in ("maddubs", "sdot")):
            return constant(self.words, 0)
        assert self.isa.dot != "maddubs", "sums of bytes are pairs there"
        return splat(self.b, load(self.b, self.sums[t], I32), self.lanes)

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


def fits(tile: Dots, steps: int) -> bool:
    """Whether 16 bits hold the sums of so many steps without the weights' bias; on the way they may wrap around."""
    largest = max(tile.zero, (1 << tile.bits) - 1 - tile.zero)
    return not tile.table and tile.bits < 8 and 2 * steps * largest * 127 < 1 << 15


def biased(b: Any, sums: Any, zero: int, lanes: int) -> Any:
    """-zero * a group's two 16-bit sums of bytes (see `quantise`), in all lanes."""
    pairs = ir.VectorType(I16, 2 * lanes)
    return b.mul(b.bitcast(splat(b, sums, lanes), pairs), constant(pairs, -zero))
