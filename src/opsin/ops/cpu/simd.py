"""A SIMD vocabulary for kernels: vector types and operations as Numba intrinsics, for one instruction set.

Addresses are int64. Loads and stores need no alignment. Nothing here carries fast-math flags and every
fused multiply-add is explicit, so a lane's result is the same in whatever kernel it is computed.
It does not know what a kernel computes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from opsin.ops.cpu.isa import Isa

I1, I8, I16, I32, I64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))
F16, F32, F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()
_ELEMENTS = {"i8": I8, "i16": I16, "i32": I32, "f16": F16, "f32": F32}

Emit = Callable[..., Any]


class Vec(types.Type):
    """`n` elements in one register, or in as many as the CPU needs."""

    def __init__(self, element: str, n: int) -> None:
        self.element, self.n = element, n
        self.ir = ir.VectorType(_ELEMENTS[element], n)
        super().__init__(name=f"Vec({element}x{n})")


class Tile(types.Type):
    """`n` vectors by value: the accumulators of a block of results."""

    def __init__(self, vec: Vec, n: int) -> None:
        self.vec, self.n = vec, n
        self.ir = ir.ArrayType(vec.ir, n)
        super().__init__(name=f"Tile({vec.name}x{n})")


@register_model(Vec)
@register_model(Tile)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, kind.ir)


def operation(result: types.Type, params: Sequence[types.Type], emit: Emit) -> Any:
    """An intrinsic of fixed types; `emit(builder, *values)` writes its LLVM code."""

    def typing(context: Any, *arguments: Any) -> Any:
        def codegen(target: Any, builder: Any, signature: Any, values: Any) -> Any:
            value = emit(builder, *values)
            return target.get_dummy_value() if result is types.void else value

        return result(*params), codegen

    # Numba binds call arguments by this signature.
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = ["context", *(f"x{i}" for i in range(len(params)))]
    typing.__signature__ = inspect.Signature([inspect.Parameter(n, kind) for n in names])  # type: ignore[attr-defined]
    return intrinsic(typing)


def pointer(b: Any, address: Any, kind: ir.Type) -> Any:
    return b.inttoptr(address, kind.as_pointer())


def load(b: Any, address: Any, kind: ir.Type, align: int = 1) -> Any:
    value = b.load(pointer(b, address, kind))
    value.align = align
    return value


def store(b: Any, value: Any, address: Any, align: int = 1) -> None:
    b.store(value, pointer(b, address, value.type)).align = align


def splat(b: Any, value: Any, n: int) -> Any:
    vector = ir.VectorType(value.type, n)
    undefined = ir.Constant(vector, ir.Undefined)
    first = b.insert_element(undefined, value, I32(0))
    return b.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, n), [0] * n))


def constant(kind: ir.VectorType, value: float) -> Any:
    return ir.Constant(kind, [value] * kind.count)


def call(b: Any, name: str, result: ir.Type, arguments: Sequence[Any]) -> Any:
    """Call an LLVM intrinsic by its full name."""
    signature = ir.FunctionType(result, [a.type for a in arguments])
    return b.call(b.module.declare_intrinsic(name, (), signature), list(arguments))


def fma(b: Any, x: Any, y: Any, z: Any) -> Any:
    suffix = f"v{x.type.count}f32" if isinstance(x.type, ir.VectorType) else "f32"
    return call(b, f"llvm.fma.{suffix}", x.type, (x, y, z))


def exp(b: Any, x: Any) -> Any:
    """e**x to 1.1 ulp or so: 2**n by exponent bits, times a polynomial on [-ln2/2, ln2/2] (Cody and Waite 1980).

    Below -87.3 the result is exactly 0, above 88.7 infinity; NaN stays NaN.
    """
    kind = x.type
    ints = ir.VectorType(I32, kind.count)
    magic = constant(kind, 12582912.0)  # 1.5 * 2**23: adding it rounds to an integer kept in the low bits
    top = b.select(b.fcmp_unordered(">", x, constant(kind, 89.0)), constant(kind, 89.0), x)
    top = b.select(b.fcmp_ordered("uno", x, x), x, top)
    low = b.fcmp_ordered("<", top, constant(kind, -87.33))
    y = b.select(low, constant(kind, -87.33), top)
    shifted = fma(b, y, constant(kind, 1.4426950408889634), magic)
    n = b.fsub(shifted, magic)
    r = fma(b, n, constant(kind, -0.693145751953125), y)
    r = fma(b, n, constant(kind, -1.428606765330187e-06), r)
    p = constant(kind, 1.0 / 5040)
    for c in (1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0):
        p = fma(b, p, r, constant(kind, c))
    # 2**n in two factors, because n = 128 has no exponent of its own.
    bits = b.sub(b.bitcast(shifted, ints), ir.Constant(ints, [0x4B400000] * kind.count))
    half = b.ashr(bits, ir.Constant(ints, [1] * kind.count))
    rest = b.sub(bits, half)
    for part in (half, rest):
        power = b.shl(b.add(part, ir.Constant(ints, [127] * kind.count)), ir.Constant(ints, [23] * kind.count))
        p = b.fmul(p, b.bitcast(power, kind))
    return b.select(low, constant(kind, 0.0), p)


def exp2(b: Any, x: Any, scalef: bool) -> Any:
    """2**x to 1.6e-7 for softmax, x at most 1 or so: 2**n times a polynomial on [-1/2, 1/2] (minimax, 1 at 0).

    Below -126 the result is 0, or nearly; NaN stays NaN. `scalef`: the CPU multiplies by 2**n in one instruction.
    """
    kind = x.type
    lowest = constant(kind, -200.0 if scalef else -126.0)
    y = b.select(b.fcmp_ordered("<", x, lowest), lowest, x)
    if scalef:
        n = call(b, f"llvm.roundeven.v{kind.count}f32", kind, (y,))
    else:
        magic = constant(kind, 12582912.0)  # 1.5 * 2**23: adding it rounds to an integer kept in the low bits
        shifted = b.fadd(y, magic)
        n = b.fsub(shifted, magic)
    r = b.fsub(y, n)
    p = constant(kind, 0.001326472731307149)
    for c in (0.009671512991189957, 0.05550733581185341, 0.24022242426872253, 0.6931470036506653, 1.0):
        p = fma(b, p, r, constant(kind, c))
    if scalef:
        mask, rounding = ir.Constant(ir.IntType(kind.count), -1), I32(4)
        return call(b, "llvm.x86.avx512.mask.scalef.ps.512", kind, (p, n, p, mask, rounding))
    ints = ir.VectorType(I32, kind.count)
    power = b.shl(b.bitcast(shifted, ints), ir.Constant(ints, [23] * kind.count))
    return b.bitcast(b.add(b.bitcast(p, ints), power), kind)


def load_i4(b: Any, address: Any, shift: Any, n: int) -> Any:
    """n numbers of 4 bits, biased by 8, as float32: those `shift` (int64) bits up in the bytes at `address`."""
    wide = ir.VectorType(I32, n)
    whole = b.zext(load(b, address, ir.VectorType(I8, n)), wide)
    four = b.and_(b.lshr(whole, splat(b, b.trunc(shift, I32), n)), constant(wide, 15))
    return b.sitofp(b.sub(four, constant(wide, 8)), ir.VectorType(F32, n))


def count_mask(b: Any, n: Any, lanes: int) -> Any:
    """Lanes below `n` (int64)."""
    index = ir.Constant(ir.VectorType(I32, lanes), list(range(lanes)))
    return b.icmp_signed("<", index, splat(b, b.trunc(n, I32), lanes))


def whole_or_part(b: Any, lanes: int, whole: Any, plain: Callable[[], Any], masked: Callable[[], Any]) -> Any:
    """Code of `plain` where `whole`, else of `masked`; the value of either, or None.

    Only long vectors have masks that cost nothing: AVX2's masked store takes some forty steps on AMD's processors, and
    what has no masks at all takes a branch a lane.
    """
    if lanes >= 16:
        return masked()
    with b.if_else(whole, likely=True) as (then, otherwise):
        with then:
            first, from_first = plain(), b.block
        with otherwise:
            second, from_second = masked(), b.block
    if first is None:
        return None
    value = b.phi(first.type)
    value.add_incoming(first, from_first)
    value.add_incoming(second, from_second)
    return value


def load_part(b: Any, lanes: int, address: Any, count: Any) -> Any:
    """A vector of which only the first `count` lanes exist; zeros for the others."""
    kind = ir.VectorType(F32, lanes)

    def masked() -> Any:
        arguments = (pointer(b, address, kind), I32(4), count_mask(b, count, lanes), constant(kind, 0.0))
        return call(b, f"llvm.masked.load.v{lanes}f32.p0", kind, arguments)

    whole = b.icmp_signed(">=", count, I64(lanes))
    return whole_or_part(b, lanes, whole, lambda: load(b, address, kind), masked)


def store_part(b: Any, lanes: int, address: Any, value: Any, count: Any) -> None:
    """Write the first `count` lanes."""

    def masked() -> None:
        mask = count_mask(b, count, lanes)
        arguments = (value, pointer(b, address, value.type), I32(4), mask)
        call(b, f"llvm.masked.store.v{lanes}f32.p0", ir.VoidType(), arguments)

    whole = b.icmp_signed(">=", count, I64(lanes))
    whole_or_part(b, lanes, whole, lambda: store(b, value, address), masked)


def _halved(b: Any, v: Any, join: Emit) -> Any:
    """A vector's lanes joined as a tree of halves: one order, on every call."""
    n = v.type.count
    while n > 1:
        n //= 2
        undefined = ir.Constant(v.type, ir.Undefined)
        low = ir.Constant(ir.VectorType(I32, n), list(range(n)))
        high = ir.Constant(ir.VectorType(I32, n), list(range(n, 2 * n)))
        v = join(b, b.shuffle_vector(v, undefined, low), b.shuffle_vector(v, undefined, high))
    return b.extract_element(v, I32(0))


def _maximum(b: Any, x: Any, y: Any) -> Any:
    """The larger lanes; a NaN in either wins."""
    return b.select(b.or_(b.fcmp_ordered(">", x, y), b.fcmp_unordered("uno", x, x)), x, y)


def _minimum(b: Any, x: Any, y: Any) -> Any:
    """The smaller lanes; a NaN in either wins."""
    return b.select(b.or_(b.fcmp_ordered("<", x, y), b.fcmp_unordered("uno", x, x)), x, y)


def _quick_maximum(b: Any, x: Any, y: Any) -> Any:
    """The larger lanes in one instruction; y where one is NaN."""
    return b.select(b.fcmp_ordered(">", x, y), x, y)


def _magnitude(b: Any, x: Any) -> Any:
    """|x| as an integer: magnitudes keep their order, and a NaN is above them all."""
    ints = ir.VectorType(I32, x.type.count)
    return b.and_(b.bitcast(x, ints), ir.Constant(ints, [0x7FFFFFFF] * x.type.count))


def _larger(b: Any, x: Any, y: Any) -> Any:
    return b.select(b.icmp_unsigned(">", x, y), x, y)


class Simd:
    """The vocabulary at `isa.lanes` float32 lanes. Attributes are operations that kernels call."""

    def __init__(self, isa: Isa) -> None:
        self.isa = isa
        self.lanes = n = isa.lanes
        self.F, self.I = Vec("f32", n), Vec("i32", n)
        self._scalars()
        self._memory()
        self._arithmetic()

    def _scalars(self) -> None:
        i64, f32 = types.int64, types.float32
        self.i64_at = operation(i64, (i64,), lambda b, p: load(b, p, I64, 8))
        self.word_at = operation(i64, (i64,), lambda b, p: load(b, p, I64))
        self.i32_at = operation(i64, (i64,), lambda b, p: b.sext(load(b, p, I32), I64))
        self.i16_at = operation(i64, (i64,), lambda b, p: b.sext(load(b, p, I16), I64))
        self.u8_at = operation(i64, (i64,), lambda b, p: b.zext(load(b, p, I8), I64))
        self.i8_at = operation(i64, (i64,), lambda b, p: b.sext(load(b, p, I8), I64))
        self.f32_at = operation(f32, (i64,), lambda b, p: load(b, p, F32))
        self.f16_at = operation(f32, (i64,), lambda b, p: b.fpext(load(b, p, F16), F32))
        self.bf16_at = operation(f32, (i64,), lambda b, p: b.bitcast(b.shl(b.zext(load(b, p, I16), I32), I32(16)), F32))
        self.put_i64 = operation(types.void, (i64, i64), lambda b, p, v: store(b, v, p, 8))
        self.put_i32 = operation(types.void, (i64, i64), lambda b, p, v: store(b, b.trunc(v, I32), p))
        self.put_i8 = operation(types.void, (i64, i64), lambda b, p, v: store(b, b.trunc(v, I8), p))
        self.put_f32 = operation(types.void, (i64, f32), lambda b, p, v: store(b, v, p))
        self.put_f16 = operation(types.void, (i64, f32), lambda b, p, v: store(b, b.fptrunc(v, F16), p))
        self.put_word = operation(types.void, (i64, i64), lambda b, p, v: store(b, v, p))
        self.shift_right = operation(i64, (i64, i64), lambda b, x, n: b.lshr(x, n))  # bits, not numbers
        self.fma1 = operation(f32, (f32, f32, f32), fma)
        self.sqrt1 = operation(f32, (f32,), lambda b, x: call(b, "llvm.sqrt.f32", F32, (x,)))
        self.rint1 = operation(f32, (f32,), lambda b, x: call(b, "llvm.rint.f32", F32, (x,)))
        self.prefetch = operation(types.void, (i64,), lambda b, p: _prefetch(b, p, 3))
        self.prefetch_far = operation(types.void, (i64,), lambda b, p: _prefetch(b, p, 2))  # not into the first cache

    def _memory(self) -> None:
        i64, n = types.int64, self.lanes
        F, f = self.F, self.F.ir
        halves, bytes_, words = ir.VectorType(F16, n), ir.VectorType(I8, n), ir.VectorType(I16, n)
        wide = ir.VectorType(I32, n)

        def bf16(b: Any, p: Any) -> Any:
            bits = b.shl(b.zext(load(b, p, words), wide), ir.Constant(wide, [16] * n))
            return b.bitcast(bits, f)

        self.load = operation(F, (i64,), lambda b, p: load(b, p, f))
        self.load_f16 = operation(F, (i64,), lambda b, p: b.fpext(load(b, p, halves), f))
        self.load_bf16 = operation(F, (i64,), bf16)
        self.load_i8 = operation(F, (i64,), lambda b, p: b.sitofp(load(b, p, bytes_), f))
        self.load_i4 = operation(F, (i64, i64), lambda b, p, shift: load_i4(b, p, shift, n))
        self.load_part = operation(F, (i64, i64), lambda b, p, count: load_part(b, n, p, count))
        self.store = operation(types.void, (i64, F), lambda b, p, v: store(b, v, p))
        self.store_f16 = operation(types.void, (i64, F), lambda b, p, v: store(b, b.fptrunc(v, halves), p))
        self.store_part = operation(types.void, (i64, F, i64), lambda b, p, v, c: store_part(b, n, p, v, c))
        self.store_i8 = operation(types.void, (i64, F), lambda b, p, v: store(b, b.trunc(b.fptosi(v, wide), bytes_), p))
        self.store_i16 = operation(types.void, (i64, F), lambda b, p, v: store(b, b.trunc(b.fptosi(v, wide), words), p))
        self.splat_at = operation(F, (i64,), lambda b, p: splat(b, load(b, p, F32), n))

    def _arithmetic(self) -> None:
        f32, F, f, n = types.float32, self.F, self.F.ir, self.lanes
        swap = ir.Constant(ir.VectorType(I32, n), [i ^ 1 for i in range(n)])
        undefined = ir.Constant(f, ir.Undefined)
        self.zero = operation(F, (), lambda b: constant(f, 0.0))
        self.splat = operation(F, (f32,), lambda b, x: splat(b, x, n))
        ramp = ir.Constant(f, [float(i) for i in range(n)])
        self.counted = operation(F, (f32,), lambda b, x: b.fadd(splat(b, x, n), ramp))  # x, x + 1, ...
        self.add = operation(F, (F, F), lambda b, x, y: b.fadd(x, y))
        self.sub = operation(F, (F, F), lambda b, x, y: b.fsub(x, y))
        self.mul = operation(F, (F, F), lambda b, x, y: b.fmul(x, y))
        self.div = operation(F, (F, F), lambda b, x, y: b.fdiv(x, y))
        self.fma = operation(F, (F, F, F), fma)
        self.maximum = operation(F, (F, F), _maximum)
        self.minimum = operation(F, (F, F), _minimum)
        self.copysign = operation(F, (F, F), lambda b, x, y: call(b, f"llvm.copysign.v{n}f32", f, (x, y)))
        self.abs = operation(F, (F,), lambda b, x: call(b, f"llvm.fabs.v{n}f32", f, (x,)))
        self.rint = operation(F, (F,), lambda b, x: call(b, f"llvm.rint.v{n}f32", f, (x,)))
        self.exp = operation(F, (F,), exp)
        scalef = n == 16 and "x86" in self.isa.triple
        self.exp2 = operation(F, (F,), lambda b, x: exp2(b, x, scalef))
        self.sum = operation(f32, (F,), lambda b, x: _halved(b, x, lambda b, x, y: b.fadd(x, y)))
        self.quick_maximum = operation(F, (F, F), _quick_maximum)
        self.quick_peak = operation(f32, (F,), lambda b, x: _halved(b, x, _quick_maximum))
        self.first = operation(f32, (F,), lambda b, x: b.extract_element(x, I32(0)))
        self.magnitude = operation(self.I, (F,), _magnitude)
        self.larger = operation(self.I, (self.I, self.I), _larger)
        self.largest = operation(f32, (self.I,), lambda b, x: b.bitcast(_halved(b, x, _larger), F32))
        self.peak = operation(f32, (F,), lambda b, x: call(b, f"llvm.vector.reduce.fmaximum.v{n}f32", F32, (x,)))
        self.swap_pairs = operation(F, (F,), lambda b, x: b.shuffle_vector(x, undefined, swap))
        half = ir.VectorType(F32, n // 2)
        twice = ir.Constant(ir.VectorType(I32, n), [i // 2 for i in range(n)])
        signs = ir.Constant(f, [-1.0 if i % 2 == 0 else 1.0 for i in range(n)])

        def load_twice(b: Any, p: Any) -> Any:
            return b.shuffle_vector(load(b, p, half), ir.Constant(half, ir.Undefined), twice)

        self.load_twice = operation(F, (types.int64,), load_twice)
        self.load_twice_signed = operation(F, (types.int64,), lambda b, p: b.fmul(load_twice(b, p), signs))
        self.keep_between = operation(F, (F, F, types.int64, types.int64), self._keep_between)
        self.keep_below = operation(F, (F, F, types.int64), self._keep_below)

    def _keep_between(self, b: Any, x: Any, other: Any, low: Any, high: Any) -> Any:
        """Lanes low <= i < high from x, the others from `other`."""
        inside = b.and_(count_mask(b, high, self.lanes), b.not_(count_mask(b, low, self.lanes)))
        return b.select(inside, x, other)

    def _keep_below(self, b: Any, x: Any, other: Any, count: Any) -> Any:
        """Lanes below `count` from x, the others from `other`."""
        return b.select(count_mask(b, count, self.lanes), x, other)


def _prefetch(b: Any, p: Any, locality: int) -> None:
    address = pointer(b, p, I8)
    call(b, "llvm.prefetch.p0", ir.VoidType(), (address, I32(0), I32(locality), I32(1)))
