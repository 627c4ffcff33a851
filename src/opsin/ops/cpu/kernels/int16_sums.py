"""Sums of products of 16-bit integers: what linear layers of few rows and of many share, to the bit.

`vpdpwssd` adds two products to a 32-bit sum, in the time that a CPU needs for one of floats. A block's sums are exact
(see `quantise_int16`); a result is a float32 sum over blocks in order, so that a row's result does not depend on its
company.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from opsin.ops.cpu.dots import Dots
from opsin.ops.cpu.kernels.shared import inlined, nothing
from opsin.ops.cpu.simd import I32, I64, Simd, call, constant, fma, load, operation, splat
from opsin.ops.layout import BLOCK, PAIR_BYTES, STRIP


def sums_of(simd: Simd, tile: Dots, fetch: Callable[..., None] | None = None) -> Any:
    """acc + x * w over `pairs` pairs of inputs from the beginning of a block on.

    The tile's vectors beyond a strip are those of the strip `more` bytes behind it. `fetch` is told of each line of
    weights that is read while `ahead`.
    """
    zero, step, scale = _zeros(tile), _step(simd, tile), _scale(simd, tile)
    fetching, fetch = fetch is not None, fetch or nothing

    @inlined
    def sums(
        acc: Any, w: int, more: int, x: int, x_row: int, s: int, s_row: int, left: int, pairs: int, ahead: bool
    ) -> Any:  # fmt: skip
        for begin in range(0, pairs, BLOCK // 2):
            scales, dots = w, zero()
            for _ in range(min(BLOCK // 2, pairs - begin)):
                w += PAIR_BYTES
                if fetching and ahead:
                    fetch(w, PAIR_BYTES)
                dots = step(dots, w, more, x, x_row, left)
                x += 4
            acc = scale(acc, dots, scales, more, s, s_row, left)
            w += PAIR_BYTES
            s += 4
        return acc

    return sums


def _zeros(tile: Dots) -> Any:
    kind = tile.I.ir
    return operation(tile.I, (), lambda b: ir.Constant(kind, [constant(kind.element, 0)] * tile.size))


def _vectors(b: Any, tile: Dots, line: Any, more: Any, kind: Any) -> list[Any]:
    """The vectors of a tile's outputs on a line of a strip, and of the strip that lies `more` bytes behind it."""
    places = [divmod(v * tile.lanes, STRIP) for v in range(tile.vectors)]
    starts = [line, b.add(line, more)]
    return [load(b, b.add(starts[strip], I64(4 * place)), kind) for strip, place in places]


def _step(simd: Simd, tile: Dots) -> Any:
    """dots + the products of one pair of inputs."""
    kind, i64 = simd.I.ir, types.int64
    name = f"llvm.x86.avx512.vpdpwssd.{32 * simd.lanes}"

    def emit(b: Any, dots: Any, w: Any, more: Any, x: Any, stride: Any, left: Any) -> Any:
        weights = _vectors(b, tile, w, more, kind)
        for t in range(tile.tokens):
            pair = splat(b, load(b, tile.place(b, x, stride, left, t), I32), simd.lanes)
            for v, weight in enumerate(weights):
                i = t * tile.vectors + v
                dots = b.insert_value(dots, call(b, name, kind, (b.extract_value(dots, i), weight, pair)), i)
        return dots

    return operation(tile.I, (tile.I, *[i64] * 5), emit)


def _scale(simd: Simd, tile: Dots) -> Any:
    """acc + dots * (scales of outputs at w) * (scales of rows at s)."""
    kind, i64 = simd.F.ir, types.int64

    def emit(b: Any, acc: Any, dots: Any, w: Any, more: Any, s: Any, stride: Any, left: Any) -> Any:
        scales = _vectors(b, tile, w, more, kind)
        for t in range(tile.tokens):
            token = tile.token(b, s, stride, left, t)
            for v, scale in enumerate(scales):
                i = t * tile.vectors + v
                value = b.sitofp(b.extract_value(dots, i), kind)
                acc = b.insert_value(acc, fma(b, value, b.fmul(scale, token), b.extract_value(acc, i)), i)
        return acc

    return operation(tile.F, (tile.F, tile.I, *[i64] * 5), emit)
