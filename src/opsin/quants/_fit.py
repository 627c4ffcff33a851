"""The search behind the k-quants: scales, minima and steps for blocks of 256 weights with small squared error.

Each group first tries a few ranges, rounds its weights to steps within each, and keeps the scale (and minimum) that
least squares gives for the best of them. The groups' scales are then rounded to integers under one f16 scale a block;
each looks at the neighbours of its integers, and the f16 scales are solved for once more with all steps held.
All errors are unweighted. Arrays lie as [weights of a group, groups, blocks], so that every sum adds long rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from opsin.arrays import Bytes, Floats
from opsin.errors import ModelError

# How far past the smallest and the largest weight the steps reach, counted in steps; below zero they end before it.
REACHES = (-0.2, 0.15, 0.5)
REACHES_AROUND_ZERO = (-1.2, -0.9, -0.6, -0.3, 0.0, 0.3, 0.6, 0.9)
BLOCKS_AT_ONCE = 256  # the arrays of the search then stay within a core's cache
LEAST_HALF = np.float32(2.0**-24)
LEAST_RANGE = np.float32(1e-30)  # far below what f16 scales can express; its reciprocal is finite


@dataclass(frozen=True)
class Fit:
    """Blocks as integers under f16 scales: w = d * scales * q - dmin * minima. Float arrays of whole numbers."""

    d: Floats  # [n, 1]
    dmin: Floats  # [n, 1]
    scales: Floats  # [n, groups]
    minima: Floats  # [n, groups]
    q: Floats  # [n, 256]


def encode_in_chunks(values: Floats, bytes_each: int, encode: Callable[[Floats], Bytes]) -> Bytes:
    """Encodes [n, 256] a cacheful at a time; ModelError where a weight is no number."""
    if not np.isfinite(values).all():
        raise ModelError("the weights hold a NaN or an infinity", hint="convert again from a sound checkpoint")
    blocks = np.empty((len(values), bytes_each), dtype=np.uint8)
    with np.errstate(over="ignore", invalid="ignore"):  # writing the scales refuses what overflowed
        for start in range(0, len(values), BLOCKS_AT_ONCE):
            chunk = slice(start, start + BLOCKS_AT_ONCE)
            # Always a whole chunk: NumPy adds in another order when arrays are narrow, and a block's bytes would depend
            # on how many came with it.
            whole = np.zeros((BLOCKS_AT_ONCE, values.shape[1]), dtype=np.float32)
            count = len(blocks[chunk])
            whole[:count] = values[chunk]
            blocks[chunk] = encode(whole)[:count]
    return blocks


def fit_with_minima(values: Floats, *, groups: int, top: int, limit: int) -> Fit:
    """Steps of 0 to `top` above a minimum that is at most zero; scales and minima of 0 to `limit`."""
    x = _lay_out(values, groups)
    scale, minimum = _fit_groups(x.reshape(len(x), -1), top)
    scale, minimum = scale.reshape(groups, -1), minimum.reshape(groups, -1)
    d, dmin = _round_half(scale.max(axis=0) / np.float32(limit)), _round_half(minimum.max(axis=0) / np.float32(limit))
    start = _Choice(
        d=d,
        dmin=dmin,
        scales=np.clip(np.rint(scale * _invert(d)), 0, limit),
        minima=np.clip(np.rint(minimum * _invert(dmin)), 0, limit),
    )
    moves = tuple((up, over) for up in (0, -1, 1) for over in (0, -1, 1))
    return _settle(x, start, _Grid(steps=(0, top), scales=(0, limit), moves=moves))


def fit_around_zero(values: Floats, *, groups: int, half: int, limit: int) -> Fit:
    """Steps of -half to half - 1 without minima; signed scales of -limit to limit - 1."""
    x = _lay_out(values, groups)
    scale = _fit_groups_around_zero(x.reshape(len(x), -1), half).reshape(groups, -1)
    # The range of the integers reaches one further below zero, so that is where the largest goes.
    d = _round_half(_find_peak(scale) / np.float32(-limit))
    scales = np.clip(np.rint(scale * _invert(d)), -limit, limit - 1)
    start = _Choice(d=d, dmin=np.zeros_like(d), scales=scales, minima=np.zeros_like(scales))
    moves = ((0, 0), (-1, 0), (1, 0), (-2, 0), (2, 0))
    return _settle(x, start, _Grid(steps=(-half, half - 1), scales=(-limit, limit - 1), moves=moves))


@dataclass(frozen=True)
class _Grid:
    """The integers that a format has, lowest and highest, and the moves that a group tries."""

    steps: tuple[int, int]
    scales: tuple[int, int]
    moves: tuple[tuple[int, int], ...]  # of its scale and its minimum


@dataclass(frozen=True)
class _Choice:
    d: Floats  # [n]
    dmin: Floats  # [n]
    scales: Floats  # [groups, n]
    minima: Floats  # [groups, n]

    def round_steps(self, x: Floats, grid: _Grid) -> Floats:
        """The step nearest to each weight."""
        q = x + self.dmin * self.minima
        q *= _invert(self.d * self.scales)
        np.clip(np.rint(q, out=q), *grid.steps, out=q)
        return q

    def measure(self, x: Floats, grid: _Grid) -> Floats:
        """Squared error of each group [groups, n] once its weights are rounded to steps."""
        y = self.round_steps(x, grid)
        y *= self.d * self.scales
        y -= self.dmin * self.minima
        y -= x
        y *= y
        error: Floats = y.sum(axis=0)
        return error


def _settle(x: Floats, start: _Choice, grid: _Grid) -> Fit:
    first, first_error = _step_aside(x, start, grid)
    second, second_error = _step_aside(x, _solve(x, first, grid), grid)
    better = second_error.sum(axis=0) < first_error.sum(axis=0)
    last = _Choice(
        d=np.where(better, second.d, first.d),
        dmin=np.where(better, second.dmin, first.dmin),
        scales=np.where(better, second.scales, first.scales),
        minima=np.where(better, second.minima, first.minima),
    )
    q = _lay_back(last.round_steps(x, grid))
    return Fit(last.d[:, None], last.dmin[:, None], last.scales.T, last.minima.T, q)


def _step_aside(x: Floats, start: _Choice, grid: _Grid) -> tuple[_Choice, Floats]:
    """Each group's best among its integers and their neighbours, and its error."""
    best, best_error = start, np.full_like(start.scales, np.inf)
    for up, over in grid.moves:
        moved = replace(
            start,
            scales=np.clip(start.scales + up, *grid.scales),
            minima=np.clip(start.minima + over, 0, grid.scales[1]),
        )
        error = moved.measure(x, grid)
        better = error < best_error
        best_error = np.where(better, error, best_error)
        best = replace(
            best,
            scales=np.where(better, moved.scales, best.scales),
            minima=np.where(better, moved.minima, best.minima),
        )
    return best, best_error


def _solve(x: Floats, choice: _Choice, grid: _Grid) -> _Choice:
    """The same integers and steps under the f16 scales that suit each block best, by least squares."""
    y = choice.round_steps(x, grid)
    y *= choice.scales
    m = choice.minima
    yy, mm = (y * y).sum(axis=(0, 1)), (m * m).sum(axis=0) * np.float32(len(x))
    ym = (y.sum(axis=0) * m).sum(axis=0)
    yx, mx = (y * x).sum(axis=(0, 1)), (x.sum(axis=0) * m).sum(axis=0)
    det = yy * mm - ym * ym
    both = det > np.float32(1e-5) * yy * mm  # else the two cannot be told apart, or there are no minima
    inverse = _invert(np.where(both, det, np.float32(0)))
    d = np.where(both, (yx * mm - mx * ym) * inverse, yx * _invert(yy))
    dmin = np.where(both, (yx * ym - mx * yy) * inverse, choice.dmin)
    return replace(choice, d=_round_half(d), dmin=_round_half(dmin))


def _lay_out(values: Floats, groups: int) -> Floats:
    return np.ascontiguousarray(values.reshape(len(values), groups, -1).transpose(2, 1, 0))


def _lay_back(x: Floats) -> Floats:
    values: Floats = x.transpose(2, 1, 0).reshape(-1, x.shape[0] * x.shape[1])
    return values


def _round_half(values: Floats) -> Floats:
    """To the nearest f16, but no further down than its smallest: a block of tiny weights keeps its scale."""
    rounded = values.astype(np.float16).astype(np.float32)
    return np.where((rounded == 0) & (values != 0), np.copysign(LEAST_HALF, values), rounded)


def _invert(values: Floats) -> Floats:
    """1 / value, and 0 for 0."""
    return np.divide(np.float32(1), values, out=np.zeros_like(values), where=values != 0)


def _find_peak(x: Floats) -> Floats:
    """The value of largest magnitude along the first axis, with its sign."""
    high, low = x.max(axis=0), x.min(axis=0)
    peak: Floats = np.where(high > -low, high, low)
    return peak


def _fit_groups(x: Floats, top: int) -> tuple[Floats, Floats]:
    """Scale and (subtracted) minimum of each column of x [k, m]."""
    k = np.float32(len(x))
    low = np.minimum(x.min(axis=0), np.float32(0))
    extent = x.max(axis=0) - low
    inverse = _invert(np.where(extent > LEAST_RANGE, extent, np.float32(0)))
    sum_x = x.sum(axis=0)
    # To begin with: all weights of the group are their mean, if that is below zero.
    scale, offset = np.zeros_like(sum_x), np.minimum(sum_x / k, np.float32(0))
    best = offset * sum_x
    from_low = x - low
    q, product = np.empty_like(x), np.empty_like(x)
    for below in REACHES:
        for above in REACHES:
            np.multiply(from_low, np.float32(top - below - above) * inverse, out=q)
            q += np.float32(below)
            np.clip(np.rint(q, out=q), 0, top, out=q)
            sum_q = q.sum(axis=0)
            sum_qq = np.multiply(q, q, out=product).sum(axis=0)
            sum_qx = np.multiply(q, x, out=product).sum(axis=0)
            spread = k * sum_qq - sum_q * sum_q
            unspread = _invert(np.maximum(spread, np.float32(0)))
            a = (k * sum_qx - sum_x * sum_q) * unspread
            b = (sum_qq * sum_x - sum_q * sum_qx) * unspread
            alone = (b > 0) | (spread <= 0)  # the minimum cannot be above zero: then it is zero
            a = np.where(alone, sum_qx * _invert(sum_qq), a)
            b = np.where(alone, np.float32(0), b)
            gain = a * sum_qx + b * sum_x  # by how much the squared error falls below that of all zeros
            better = gain > best
            best = np.where(better, gain, best)
            scale, offset = np.where(better, a, scale), np.where(better, b, offset)
    return scale, -offset


def _fit_groups_around_zero(x: Floats, half: int) -> Floats:
    """Scale of each column of x [k, m]."""
    peak = _find_peak(x)
    inverse = _invert(np.where(np.abs(peak) > LEAST_RANGE, peak, np.float32(0)))
    scale, best = np.zeros_like(peak), np.zeros_like(peak)
    q, product = np.empty_like(x), np.empty_like(x)
    for end in (-half, half - 1):
        for reach in REACHES_AROUND_ZERO:
            np.multiply(x, np.float32(end * (1 - reach / half)) * inverse, out=q)
            np.clip(np.rint(q, out=q), -half, half - 1, out=q)
            sum_qx = np.multiply(q, x, out=product).sum(axis=0)
            a = sum_qx * _invert(np.multiply(q, q, out=product).sum(axis=0))
            gain = a * sum_qx
            better = gain > best
            best, scale = np.where(better, gain, best), np.where(better, a, scale)
    return scale
