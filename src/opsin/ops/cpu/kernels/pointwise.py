"""Operations on values one by one, and norms over a row. Items are rows; the last dimension lies together.

Arguments: x, bytes a row of x, y or 0, bytes a row of y, out, bytes a row of out, width, second operand or 0,
number (f32 bits), parts a row (heads of `width` values each), second number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opsin.ops.cpu.kernels.shared import jit
from opsin.ops.cpu.simd import Simd

X, X_ROW, Y, Y_ROW, OUT, OUT_ROW, WIDTH, BIAS, NUMBER, PARTS, SECOND = (8 * i for i in range(11))


def make(simd: Simd, name: str) -> Any:
    body = {"rms_norm": _rms_norm, "layer_norm": _layer_norm}.get(name)
    row_kernel = body(simd) if body else _each(simd, name)
    at = simd.i64_at

    def pointwise(args: int, first: int, last: int, thread: int) -> int:
        width, parts = at(args + WIDTH), at(args + PARTS)
        for row in range(first, last):
            x, out = at(args + X) + row * at(args + X_ROW), at(args + OUT) + row * at(args + OUT_ROW)
            y = at(args + Y) + row * at(args + Y_ROW)
            for _ in range(parts):
                row_kernel(args, x, y, out, width)
                x += 4 * width
                out += 4 * width
        return 0

    return pointwise


def _each(simd: Simd, name: str) -> Callable[..., Any]:
    """out = f(x, y) value by value. "glu_silu" is silu(x) * y."""
    load, store, lanes = simd.load_part, simd.store_part, simd.lanes
    f = _glu(simd, name[4:]) if name.startswith("glu_") else function(simd, name)
    zero, binary = simd.zero, name in ("add", "multiply", "decay") or name.startswith("glu_")

    @jit
    def each(args: int, x: int, y: int, out: int, width: int) -> None:
        for i in range(0, width, lanes):
            n = width - i
            other = load(y + 4 * i, n) if binary else zero()
            store(out + 4 * i, f(args, load(x + 4 * i, n), other), n)

    return each


def _glu(simd: Simd, kind: str) -> Callable[..., Any]:
    if kind == "swiglu_oai":
        return _swiglu_oai(simd)
    f, mul = function(simd, kind), simd.mul
    return jit(lambda args, x, y: mul(f(args, x, y), y))


def _swiglu_oai(simd: Simd) -> Callable[..., Any]:
    silu, add, mul, splat, maximum, minimum = (
        function(simd, "gelu_quick"), simd.add, simd.mul, simd.splat, simd.maximum, simd.minimum,
    )  # fmt: skip

    def swiglu_oai(args: int, x: Any, y: Any) -> Any:
        up = maximum(minimum(y, splat(7.0)), splat(-7.0))
        return mul(silu(args, minimum(x, splat(7.0)), y), add(up, splat(1.0)))

    return jit(swiglu_oai)


def function(simd: Simd, name: str) -> Callable[..., Any]:
    add, mul, splat_at, maximum, zero = simd.add, simd.mul, simd.splat_at, simd.maximum, simd.zero
    simple: dict[str, Callable[..., Any]] = {
        "add": lambda args, x, y: add(x, y),
        "multiply": lambda args, x, y: mul(x, y),
        "scale": lambda args, x, y: mul(x, splat_at(args + NUMBER)),
        "copy": lambda args, x, y: x,
        "relu": lambda args, x, y: maximum(x, zero()),
    }
    if name in ("softcap", "clamp"):
        return _softcap(simd) if name == "softcap" else _clamp(simd)
    return jit(simple[name]) if name in simple else _activation(simd, name)


def _clamp(simd: Simd) -> Callable[..., Any]:
    splat_at, maximum, sub, zero = simd.splat_at, simd.maximum, simd.sub, simd.zero

    def clamp(args: int, x: Any, y: Any) -> Any:
        """The least of two is the largest of both with other signs; neither loses a NaN."""
        above = maximum(x, splat_at(args + NUMBER))
        return sub(zero(), maximum(sub(zero(), above), sub(zero(), splat_at(args + SECOND))))

    return jit(clamp)


def _softcap(simd: Simd) -> Callable[..., Any]:
    splat, splat_at, exp, add, sub, mul, div = (
        simd.splat, simd.splat_at, simd.exp, simd.add, simd.sub, simd.mul, simd.div,
    )  # fmt: skip

    def softcap(args: int, x: Any, y: Any) -> Any:
        """c tanh(x / c) = c (1 - 2 / (e**(2x / c) + 1))."""
        cap = splat_at(args + NUMBER)
        e = exp(div(add(x, x), cap))
        return mul(cap, sub(splat(1.0), div(splat(2.0), add(e, splat(1.0)))))

    return jit(softcap)


def _activation(simd: Simd, name: str) -> Callable[..., Any]:
    splat, exp, add, sub, mul, div, fma = simd.splat, simd.exp, simd.add, simd.sub, simd.mul, simd.div, simd.fma
    slope = {"silu": -1.0, "gelu_quick": -1.702}.get(name)

    if slope is not None:

        def logistic(args: int, x: Any, y: Any) -> Any:
            """x / (1 + e**(slope * x))."""
            return div(x, add(splat(1.0), exp(mul(x, splat(slope)))))

        return jit(logistic)
    if name == "sigmoid":
        return jit(lambda args, x, y: div(splat(1.0), add(splat(1.0), exp(mul(x, splat(-1.0))))))
    if name == "decay":
        return _decay(simd)
    if name == "gelu":

        def gelu(args: int, x: Any, y: Any) -> Any:
            """0.5 x (1 + tanh(u)) = x / (1 + e**(-2u)), u = sqrt(2 / pi) (x + 0.044715 x**3)."""
            u = mul(x, fma(mul(x, x), splat(0.044715 * 0.7978845608028654), splat(0.7978845608028654)))
            return div(x, add(splat(1.0), exp(mul(u, splat(-2.0)))))

        return jit(gelu)
    absolute, keep_sign = simd.abs, simd.copysign

    def gelu_erf(args: int, x: Any, y: Any) -> Any:
        """0.5 x (1 + erf(x / sqrt 2)); erf to 1.5e-7 (Abramowitz and Stegun 1964, 7.1.26)."""
        z = mul(absolute(x), splat(0.7071067811865476))
        t = div(splat(1.0), fma(z, splat(0.3275911), splat(1.0)))
        p = fma(t, splat(1.061405429), splat(-1.453152027))
        p = fma(p, t, splat(1.421413741))
        p = fma(p, t, splat(-0.284496736))
        p = mul(fma(p, t, splat(0.254829592)), t)
        erf = keep_sign(sub(splat(1.0), mul(p, exp(mul(mul(z, z), splat(-1.0))))), x)
        return mul(mul(x, splat(0.5)), add(splat(1.0), erf))

    return jit(gelu_erf)


def _decay(simd: Simd) -> Callable[..., Any]:
    splat, exp, add, mul, div, fma = simd.splat, simd.exp, simd.add, simd.mul, simd.div, simd.fma
    absolute, maximum, zero = simd.abs, simd.maximum, simd.zero

    def decay(args: int, x: Any, y: Any) -> Any:
        """e**(y ln(1 + e**x)), where ln(1 + u) = 2 artanh(z), z = u / (2 + u) <= 1/3: its series to z**15."""
        u = exp(mul(absolute(x), splat(-1.0)))
        z = div(u, add(u, splat(2.0)))
        zz, p = mul(z, z), splat(2.0 / 15)
        p = fma(p, zz, splat(2.0 / 13))
        p = fma(p, zz, splat(2.0 / 11))
        p = fma(p, zz, splat(2.0 / 9))
        p = fma(p, zz, splat(2.0 / 7))
        p = fma(p, zz, splat(2.0 / 5))
        p = fma(p, zz, splat(2.0 / 3))
        p = fma(p, zz, splat(2.0))
        return exp(mul(y, fma(p, z, maximum(x, zero()))))

    return jit(decay)


def _rms_norm(simd: Simd) -> Callable[..., Any]:
    load, store, lanes, fma, mul = simd.load_part, simd.store_part, simd.lanes, simd.fma, simd.mul
    zero, total, splat, f32_at, sqrt, at = simd.zero, simd.sum, simd.splat, simd.f32_at, simd.sqrt1, simd.i64_at

    @jit
    def rms_norm(args: int, x: int, y: int, out: int, width: int) -> None:
        acc = zero()
        for i in range(0, width, lanes):
            v = load(x + 4 * i, width - i)
            acc = fma(v, v, acc)
        factor = splat(1.0 / sqrt(total(acc) / width + f32_at(args + NUMBER)))
        w = at(args + BIAS)
        for i in range(0, width, lanes):
            v = mul(load(x + 4 * i, width - i), factor)
            store(out + 4 * i, mul(v, load(w + 4 * i, width - i)) if w != 0 else v, width - i)

    return rms_norm


def _layer_norm(simd: Simd) -> Callable[..., Any]:
    load, store, lanes, fma, mul = simd.load_part, simd.store_part, simd.lanes, simd.fma, simd.mul
    add, sub, keep, zero, total, splat = simd.add, simd.sub, simd.keep_below, simd.zero, simd.sum, simd.splat
    f32_at, sqrt, at = simd.f32_at, simd.sqrt1, simd.i64_at

    @jit
    def layer_norm(args: int, x: int, y: int, out: int, width: int) -> None:
        """The weight is y's row, the bias `BIAS`."""
        acc = zero()
        for i in range(0, width, lanes):
            acc = add(acc, load(x + 4 * i, width - i))
        mean = splat(total(acc) / width)
        acc = zero()
        for i in range(0, width, lanes):
            v = keep(sub(load(x + 4 * i, width - i), mean), zero(), width - i)
            acc = fma(v, v, acc)
        factor = splat(1.0 / sqrt(total(acc) / width + f32_at(args + NUMBER)))
        w, b = at(args + Y), at(args + BIAS)
        for i in range(0, width, lanes):
            n = width - i
            v = mul(mul(sub(load(x + 4 * i, n), mean), factor), load(w + 4 * i, n))
            store(out + 4 * i, add(v, load(b + 4 * i, n)) if b != 0 else v, n)

    return layer_norm
