"""Frequencies of rotary embeddings, with the scalings that GGUF files carry. float64 until the end."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from opsin.errors import ModelError
from opsin.gguf import File
from opsin.nn.keys import LEAST_FLOAT, MOST_FLOAT, number, positive_float, positive_int
from opsin.ops import Array, Ops

FASTEST = 1e6  # radians a position; published ropes turn by at most 1
MOST_STEPS = 1 << 12  # of a temperature; published models have at most 64


@dataclass(frozen=True, eq=False)
class Rope:
    """`frequencies` [pairs] float32, radians a position; `scale` multiplies cosines and sines."""

    frequencies: npt.NDArray[np.float32]
    scale: float = 1.0


@dataclass(frozen=True, eq=False)
class LongRope:
    """LongRoPE (Ding et al. 2024): a rope for texts of at most `original` positions, and one for longer ones."""

    short: Rope
    long: Rope
    original: int


@dataclass(frozen=True, eq=False)
class Temperature:
    """Queries of position p are multiplied by `growth`[p // every], so that attention to long texts stays peaked."""

    growth: Array  # [steps]
    every: int


def rope_of(
    file: File, prefix: str, width: int, factors: npt.NDArray[np.float32] | None = None, *, base: float = 10000.0,
    whole: bool = True,
) -> Rope:  # fmt: skip
    """The rope of a file: base, width, and `{prefix}.rope.scaling.*` (none, linear, yarn).

    `factors` [pairs] divide the frequencies (the tensor rope_freqs.weight). `base` counts where the file has none.
    `whole`: yarn's ramp begins and ends at whole numbers.
    """
    turned = _turned(file, prefix, width)
    base = positive_float(file, f"{prefix}.rope.freq_base", base)
    plain = frequencies(turned, base)
    if factors is not None:
        plain = _divided(plain, factors, "rope_freqs.weight")
    kind = file.get_str(f"{prefix}.rope.scaling.type", "linear")
    old = number(file, f"{prefix}.rope.scale_linear", 0.0, least=0.0, most=MOST_FLOAT)
    factor = number(file, f"{prefix}.rope.scaling.factor", old, least=0.0, most=MOST_FLOAT)
    if 0 < factor < LEAST_FLOAT:
        raise ModelError(f"{file.path}: {prefix}.rope.scaling.factor is {factor}", hint="the file is damaged")
    if kind == "none" or factor in (0.0, 1.0):
        return Rope(as_frequencies(file, plain))
    if kind == "linear":
        return Rope(as_frequencies(file, plain / factor))
    if kind == "yarn":
        return _yarn(file, prefix, plain, factor, base, whole=whole)
    raise ModelError(f"{prefix}.rope.scaling.type is {kind!r}", hint="none, linear and yarn are supported")


def long_rope_of(
    file: File, prefix: str, width: int, short: npt.NDArray[np.float32], long: npt.NDArray[np.float32]
) -> LongRope:
    """Of the tensors rope_factors_short.weight and rope_factors_long.weight, [pairs] each."""
    plain = frequencies(_turned(file, prefix, width), positive_float(file, f"{prefix}.rope.freq_base", 10000.0))
    scale = number(file, f"{prefix}.rope.scaling.attn_factor", 1.0, least=0.0, most=1e4)
    original = positive_int(
        file, f"{prefix}.rope.scaling.original_context_length", positive_int(file, f"{prefix}.context_length")
    )
    near, far = (
        Rope(as_frequencies(file, _divided(plain, factors, f"rope_factors_{name}.weight")), scale)
        for name, factors in (("short", short), ("long", long))
    )
    return LongRope(near, far, original)


def _turned(file: File, prefix: str, width: int) -> int:
    """Values of a head that turn."""
    turned = file.get_int(f"{prefix}.rope.dimension_count", width)
    if turned % 2 or not 0 < turned <= width:
        raise ModelError(f"{prefix}.rope.dimension_count is {turned}; heads are {width} wide")
    return turned


def _divided(plain: npt.NDArray[np.float64], factors: npt.NDArray[np.float32], name: str) -> npt.NDArray[np.float64]:
    if factors.size != len(plain):
        raise ModelError(f"{name} has {factors.size} values, where {len(plain)} are needed")
    with np.errstate(all="ignore"):  # `as_frequencies` looks
        return plain / factors.astype(np.float64).reshape(-1)


def temperature_of(file: File, prefix: str, ops: Ops) -> Temperature | None:
    """1 + scale ln(1 + steps), where each step is as long as the context before the rope was stretched.

    As transformers' Ministral3Attention has it. None where the file says no `{prefix}.attention.temperature_scale`.
    """
    scale = number(file, f"{prefix}.attention.temperature_scale", 0.0, least=0.0, most=1e3)
    if not scale:
        return None
    context = positive_int(file, f"{prefix}.context_length")
    key = f"{prefix}.rope.scaling.original_context_length"
    every = positive_int(file, key, context)
    steps = -(-context // every)
    if steps > MOST_STEPS:
        raise ModelError(f"{file.path}: {key} is {every}, of a context of {context}", hint="the file is damaged")
    return Temperature(ops.constant((1 + scale * np.log1p(np.arange(steps))).astype(np.float32)), every)


def frequencies(width: int, base: float) -> npt.NDArray[np.float64]:
    """Without any scaling: [width / 2] radians a position (Su et al. 2021)."""
    return base ** (-np.arange(0, width, 2, dtype=np.float64) / width)


def as_frequencies(file: File, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Raises ModelError for frequencies that no position can be turned by."""
    if not (np.abs(values) <= FASTEST).all():
        raise ModelError(f"{file.path}: its rope turns too fast", hint="its freq_base, factor or factors are damaged")
    return values.astype(np.float32)


def axis_of(file: File, prefix: str, pairs: int) -> npt.NDArray[np.int32]:
    """Which position turns each pair: 0 time, 1 row, 2 column (M-RoPE, Wang et al. 2024).

    `{prefix}.rope.dimension_sections` counts the pairs of each, one section after the other, and begins again where
    there are more pairs.
    """
    counts = _sections(file, prefix)
    return np.resize(np.repeat(np.arange(counts.size), counts), pairs).astype(np.int32)


def interleaved_axis_of(file: File, prefix: str, pairs: int) -> npt.NDArray[np.int32]:
    """The same where sections are interleaved: time, row, column, time, ... as long as an axis has pairs left.

    Its pairs that are used up, and all that follow, turn by time.
    """
    counts, pair = _sections(file, prefix), np.arange(pairs)
    turn, number = pair % 3, pair // 3
    return np.where(number < counts[turn], turn, 0).astype(np.int32)


def _sections(file: File, prefix: str) -> npt.NDArray[np.int64]:
    """How many pairs turn by time, rows and columns. Raises ModelError for others."""
    key = f"{prefix}.rope.dimension_sections"
    counts = file.get_ints(key)
    if not 3 <= counts.size <= 4 or counts.min() < 0 or counts.sum() < 1 or counts[3:].any():
        raise ModelError(f"{key} is {counts[:8].tolist()}", hint="sections of time, rows and columns are supported")
    return counts


def plane_table(
    ops: Ops, places: npt.NDArray[np.int32], by_row: npt.NDArray[np.float64], by_column: npt.NDArray[np.float64]
) -> Array:
    """A table of `Ops.rope_table` for places in a plane: the first pairs of a head turn by row, the others by column.

    Args:
        places: [rows, 2] the row and the column of each.
        by_row, by_column: frequencies, radians a position; together as many as a head has pairs.
    """
    axis = np.repeat(np.arange(2, dtype=np.int32), [len(by_row), len(by_column)])
    numbers = np.concatenate([by_row, by_column]).astype(np.float32)
    return ops.rope_table(ops.constant(places), ops.constant(numbers), axis=ops.constant(axis))


def _yarn(file: File, prefix: str, plain: npt.NDArray[np.float64], factor: float, base: float, *, whole: bool) -> Rope:
    """Peng et al. 2023: low frequencies are stretched, high ones kept, with a ramp between."""
    trained = file.get_int(f"{prefix}.context_length", 0)
    prefix = f"{prefix}.rope.scaling"
    context = positive_int(file, f"{prefix}.original_context_length", trained)
    turned = 2 * len(plain)

    def dimension(turns: float) -> float:
        return turned * math.log(context / (2 * math.pi * turns)) / (2 * math.log(base))

    if base <= 1 + 1e-6:
        raise ModelError(f"{file.path}: a yarn rope of base {base}", hint="the file is damaged; download it again")
    fast, slow = (
        number(file, f"{prefix}.yarn_beta_{name}", beta, least=1e-6, most=1e6)
        for name, beta in (("fast", 32.0), ("slow", 1.0))
    )
    low, high = dimension(fast), dimension(slow)
    if whole:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(0, low), min(turned - 1, high)
    ramp = np.clip((np.arange(len(plain)) - low) / max(0.001, high - low), 0, 1)
    mixed = plain / factor * ramp + plain * (1 - ramp)
    scale = number(file, f"{prefix}.attn_factor", 1.0, least=0.0, most=1e4) * _growth(factor, 1.0)
    scale /= _growth(factor, number(file, f"{prefix}.yarn_log_multiplier", 0.0, least=0.0, most=1e4))
    return Rope(as_frequencies(file, mixed), scale)


def _growth(factor: float, share: float) -> float:
    """Of cosines and sines: what transformers calls the mscale of a factor. None where positions are not stretched."""
    return 0.1 * share * math.log(max(factor, 1.0)) + 1
