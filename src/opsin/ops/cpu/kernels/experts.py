"""Experts: choosing them, putting rows in their order, their products, and back to the order of rows.

Arguments of route: logits, bytes a row of them, experts, used, groups, used groups, scale (f32 bits), bias or 0, gains
or 0, scores (f32 [rows, experts]), merits (the same: by what is chosen), experts out (int32 [rows, used]), shares out.
Items are rows.

Of plan: experts of rows, address of the row count, used, experts, pairs out, places out, touched out (int32: experts
that somebody chose), starts out (int32: their first places, and the end), counts (int32 [experts]), address of the
number of items of products. One item.

Of spread: x, bytes a row of x, pairs, shares or 0, used, width, out. Of join: x, places, shares or 0, used, width,
residual or 0, bytes a row of it, out. Items are rows.

Of gated: x, bytes a row of x, width, by, bytes a row of it, w, inputs, residual or 0, bytes a row of it, out. Items are
rows.

Of products: the arguments of `linear` for the first expert and all places, but those that are told here: the address of
the linear kernel, touched, starts, bytes of an expert's weights, bytes of a place of sums, bytes of an expert's bias.
An item is one of PARTS parts of an expert's strips, times all of the expert's rows, done by `linear` itself.
"""

from __future__ import annotations

from typing import Any

from numba import types

from opsin.ops.cpu.kernels.linear_sums import (
    ARGUMENT_BYTES,
    BIAS,
    LIFTS,
    OUTPUTS,
    ROWS,
    SCALES,
    SCALES_ROW,
    SCRATCH,
    SCRATCH_BYTES,
    SUMS,
    X_ROW,
    Y_ROW,
    W,
    X,
    Y,
)
from opsin.ops.cpu.kernels.shared import emit_call, jit
from opsin.ops.cpu.simd import Simd, operation
from opsin.ops.cpu.tiles import EXPERT_CALL
from opsin.ops.layout import STRIP

PARTS = 16  # of an expert's strips: enough for many threads where few experts are used
LINEAR, TOUCHED, STARTS, EXPERT_BYTES, SUMS_ROW, BIAS_BYTES = (ARGUMENT_BYTES + 8 * i for i in range(6))
COUNT = ARGUMENT_BYTES  # where a call's row count stands, behind its arguments

(LOGITS, LOGITS_ROW, EXPERTS, USED, GROUPS, USED_GROUPS, SCALE, MERIT_BIAS, GAINS, SCORES, MERITS, CHOSEN,
 SHARES) = (8 * i for i in range(13))  # fmt: skip
P_EXPERTS, P_ROWS, P_USED, P_ALL, P_PAIRS, P_PLACES, P_TOUCHED, P_STARTS, P_COUNTS, P_ITEMS = (8 * i for i in range(10))
S_X, S_ROW, S_PAIRS, S_SHARES, S_USED, S_WIDTH, S_OUT = (8 * i for i in range(7))
G_X, G_ROW, G_WIDTH, G_BY, G_BY_ROW, G_W, G_INPUTS, G_RESIDUAL, G_RESIDUAL_ROW, G_OUT = (8 * i for i in range(10))
J_X, J_PLACES, J_SHARES, J_USED, J_WIDTH, J_RESIDUAL, J_RESIDUAL_ROW, J_OUT = (8 * i for i in range(8))


def make(simd: Simd, part: str, gating: str = "", normalised: bool = False) -> Any:
    if part == "route":
        return _route(simd, gating, normalised)
    return {"plan": _plan, "spread": _spread, "join": _join, "gated": _gated, "products": _products}[part](simd)


def _route(simd: Simd, gating: str, normalised: bool) -> Any:
    at, f32, put, put_i32 = simd.i64_at, simd.f32_at, simd.put_f32, simd.put_i32
    score, choose, drop = _softmax(simd) if gating == "softmax" else _sigmoid(simd), _choose(simd), _drop_groups(simd)

    @jit
    def judge(args: int, logits: int, scores: int, merits: int) -> None:
        """By what experts are chosen. NaN means that an expert is gone already."""
        bias, plain = at(args + MERIT_BIAS), at(args + MERIT_BIAS) == 0 and at(args + GROUPS) == 1
        for e in range(0, 4 * at(args + EXPERTS), 4):
            merit = f32(logits + e) if plain else f32(scores + e)
            if bias != 0:
                merit += f32(bias + e)
            put(merits + e, merit if merit == merit else -float("inf"))

    @jit
    def share(args: int, scores: int, chosen: int, shares: int) -> None:
        total, used, gains = 0.0, at(args + USED), at(args + GAINS)
        if normalised:
            for s in range(used):
                total += f32(scores + 4 * simd_i32(chosen + 4 * s))
            total += 1e-20
        for s in range(used):
            expert = simd_i32(chosen + 4 * s)
            value = f32(scores + 4 * expert)
            if normalised:
                value /= total
            value *= f32(args + SCALE)
            put(shares + 4 * s, value * f32(gains + 4 * expert) if gains != 0 else value)

    simd_i32 = simd.i32_at

    def route(args: int, first: int, last: int, thread: int) -> int:
        count, used = at(args + EXPERTS), at(args + USED)
        for row in range(first, last):
            logits = at(args + LOGITS) + row * at(args + LOGITS_ROW)
            scores, merits = at(args + SCORES) + row * count * 4, at(args + MERITS) + row * count * 4
            chosen, shares = at(args + CHOSEN) + row * used * 4, at(args + SHARES) + row * used * 4
            score(logits, scores, count)
            judge(args, logits, scores, merits)
            if at(args + GROUPS) > 1:
                drop(args, merits)
            for s in range(used):
                best = choose(merits, count)
                put_i32(chosen + 4 * s, best)
                put(merits + 4 * best, float("nan"))
            share(args, scores, chosen, shares)
        return 0

    return route


def _softmax(simd: Simd) -> Any:
    load, store, lanes, f32 = simd.load_part, simd.store_part, simd.lanes, simd.f32_at
    exp, sub, div, splat = simd.exp, simd.sub, simd.div, simd.splat

    @jit
    def softmax(x: int, to: int, count: int) -> None:
        top, total = f32(x), 0.0
        for i in range(1, count):
            top = max(top, f32(x + 4 * i))
        for i in range(0, count, lanes):
            store(to + 4 * i, exp(sub(load(x + 4 * i, count - i), splat(top))), count - i)
        for i in range(count):
            total += f32(to + 4 * i)
        for i in range(0, count, lanes):
            store(to + 4 * i, div(load(to + 4 * i, count - i), splat(total)), count - i)

    return softmax


def _sigmoid(simd: Simd) -> Any:
    load, store, lanes = simd.load_part, simd.store_part, simd.lanes
    exp, mul, add, div, splat = simd.exp, simd.mul, simd.add, simd.div, simd.splat

    @jit
    def sigmoid(x: int, to: int, count: int) -> None:
        for i in range(0, count, lanes):
            value = exp(mul(load(x + 4 * i, count - i), splat(-1.0)))
            store(to + 4 * i, div(splat(1.0), add(splat(1.0), value)), count - i)

    return sigmoid


def _choose(simd: Simd) -> Any:
    f32 = simd.f32_at

    @jit
    def choose(merits: int, count: int) -> int:
        """The best that is not gone, and of equal ones the first."""
        best, merit = -1, 0.0
        for e in range(count):
            value = f32(merits + 4 * e)
            if value == value and (best < 0 or value > merit):
                best, merit = e, value
        return best

    return choose


def _drop_groups(simd: Simd) -> Any:
    at, f32, put = simd.i64_at, simd.f32_at, simd.put_f32

    @jit
    def worth(merits: int, size: int) -> float:
        """The sum of a group's two best, or its one."""
        one, two = -float("inf"), -float("inf")
        for e in range(size):
            value = f32(merits + 4 * e)
            if value > one:
                one, two = value, one
            elif value > two:
                two = value
        return one + two if size > 1 else one

    @jit
    def drop(args: int, merits: int) -> None:
        """Let experts of all groups but the best be chosen last."""
        groups = at(args + GROUPS)
        size, kept = at(args + EXPERTS) // groups, 0
        for _ in range(at(args + USED_GROUPS)):
            best, most = -1, 0.0
            for g in range(groups):
                if kept >> g & 1 == 0:
                    value = worth(merits + 4 * g * size, size)
                    if best < 0 or value > most:
                        best, most = g, value
            kept |= 1 << best
        for e in range(groups * size):
            if kept >> (e // size) & 1 == 0:
                put(merits + 4 * e, -float("inf"))

    return drop


def _plan(simd: Simd) -> Any:
    at, i32, put, put64 = simd.i64_at, simd.i32_at, simd.put_i32, simd.put_i64

    def plan(args: int, first: int, last: int, thread: int) -> int:
        count, counts, touched = at(at(args + P_ROWS)) * at(args + P_USED), at(args + P_COUNTS), 0
        for e in range(at(args + P_ALL)):
            put(counts + 4 * e, 0)
        for pair in range(count):
            at_expert = counts + 4 * i32(at(args + P_EXPERTS) + 4 * pair)
            put(at_expert, i32(at_expert) + 1)
        start = 0
        for e in range(at(args + P_ALL)):
            rows = i32(counts + 4 * e)
            if rows > 0:
                put(at(args + P_TOUCHED) + 4 * touched, e)
                put(at(args + P_STARTS) + 4 * touched, start)
                put(counts + 4 * e, start)
                start += rows
                touched += 1
        put(at(args + P_STARTS) + 4 * touched, start)
        for pair in range(count):
            at_expert = counts + 4 * i32(at(args + P_EXPERTS) + 4 * pair)
            place = i32(at_expert)
            put(at(args + P_PAIRS) + 4 * place, pair)
            put(at(args + P_PLACES) + 4 * pair, place)
            put(at_expert, place + 1)
        put64(at(args + P_ITEMS), touched * PARTS)
        return 0

    return plan


def _spread(simd: Simd) -> Any:
    at, i32, load, store, lanes = simd.i64_at, simd.i32_at, simd.load_part, simd.store_part, simd.lanes
    mul, splat, f32 = simd.mul, simd.splat, simd.f32_at

    def spread(args: int, first: int, last: int, thread: int) -> int:
        width, used, shares = at(args + S_WIDTH), at(args + S_USED), at(args + S_SHARES)
        for place in range(first * used, last * used):
            pair = i32(at(args + S_PAIRS) + 4 * place)
            x, out = at(args + S_X) + pair // used * at(args + S_ROW), at(args + S_OUT) + place * width * 4
            if shares == 0:
                for i in range(0, width, lanes):
                    store(out + 4 * i, load(x + 4 * i, width - i), width - i)
            else:
                share = splat(f32(shares + 4 * pair))
                for i in range(0, width, lanes):
                    store(out + 4 * i, mul(load(x + 4 * i, width - i), share), width - i)
        return 0

    return spread


def _join(simd: Simd) -> Any:
    at, i32, load, store, lanes = simd.i64_at, simd.i32_at, simd.load_part, simd.store_part, simd.lanes
    add, fma, splat, zero, splat_at = simd.add, simd.fma, simd.splat, simd.zero, simd.splat_at

    def join(args: int, first: int, last: int, thread: int) -> int:
        width, used, shares, residual = (
            at(args + J_WIDTH),
            at(args + J_USED),
            at(args + J_SHARES),
            at(args + J_RESIDUAL),
        )
        for row in range(first, last):
            out, places = at(args + J_OUT) + row * width * 4, at(args + J_PLACES) + 4 * row * used
            for i in range(0, width, lanes):
                total = zero()
                for s in range(used):
                    value = load(at(args + J_X) + i32(places + 4 * s) * width * 4 + 4 * i, width - i)
                    share = splat_at(shares + 4 * (row * used + s)) if shares != 0 else splat(1.0)
                    total = fma(value, share, total)
                if residual != 0:
                    total = add(total, load(residual + row * at(args + J_RESIDUAL_ROW) + 4 * i, width - i))
                store(out + 4 * i, total, width - i)
        return 0

    return join


def _gated(simd: Simd) -> Any:
    at, load, store, lanes, add, mul, div = (
        simd.i64_at, simd.load_part, simd.store_part, simd.lanes, simd.add, simd.mul, simd.div,
    )  # fmt: skip
    fma, splat, zero, exp, total = simd.fma, simd.splat, simd.zero, simd.exp, simd.sum

    def gated(args: int, first: int, last: int, thread: int) -> int:
        width, inputs, residual = at(args + G_WIDTH), at(args + G_INPUTS), at(args + G_RESIDUAL)
        for row in range(first, last):
            x, out = at(args + G_X) + row * at(args + G_ROW), at(args + G_OUT) + row * width * 4
            by, acc = at(args + G_BY) + row * at(args + G_BY_ROW), zero()
            for i in range(0, inputs, lanes):
                acc = fma(load(by + 4 * i, inputs - i), load(at(args + G_W) + 4 * i, inputs - i), acc)
            gate = div(splat(1.0), add(splat(1.0), exp(mul(splat(total(acc)), splat(-1.0)))))
            for i in range(0, width, lanes):
                value = mul(load(x + 4 * i, width - i), gate)
                if residual != 0:
                    value = add(value, load(residual + row * at(args + G_RESIDUAL_ROW) + 4 * i, width - i))
                store(out + 4 * i, value, width - i)
        return 0

    return gated


def _products(simd: Simd) -> Any:
    at, i32, put, i64 = simd.i64_at, simd.i32_at, simd.put_i64, types.int64
    call = operation(i64, (i64,) * 5, emit_call)

    @jit
    def prepare(args: int, mine: int, number: int, thread: int) -> None:
        """The arguments of `linear` for one of the touched experts."""
        expert, start = i32(at(args + TOUCHED) + 4 * number), i32(at(args + STARTS) + 4 * number)
        for word in range(0, ARGUMENT_BYTES, 8):
            put(mine + word, at(args + word))
        put(mine + W, at(args + W) + expert * at(args + EXPERT_BYTES))
        put(mine + X, at(args + X) + start * at(args + X_ROW))
        put(mine + SCALES, at(args + SCALES) + start * at(args + SCALES_ROW))
        put(mine + SUMS, at(args + SUMS) + start * at(args + SUMS_ROW))
        put(mine + LIFTS, at(args + LIFTS) + start * at(args + SUMS_ROW))
        put(mine + Y, at(args + Y) + start * at(args + Y_ROW))
        put(mine + COUNT, i32(at(args + STARTS) + 4 * (number + 1)) - start)
        put(mine + ROWS, mine + COUNT)
        put(mine + SCRATCH, at(args + SCRATCH) + EXPERT_CALL)
        if at(args + BIAS) != 0:
            put(mine + BIAS, at(args + BIAS) + expert * at(args + BIAS_BYTES))

    def products(args: int, first: int, last: int, thread: int) -> int:
        mine = at(args + SCRATCH) + thread * at(args + SCRATCH_BYTES)
        strips, item = (at(args + OUTPUTS) + STRIP - 1) // STRIP, first
        while item < last:
            number, part = item // PARTS, item % PARTS
            end = min(PARTS, part + last - item)
            prepare(args, mine, number, thread)
            error = call(at(args + LINEAR), mine, part * strips // PARTS, end * strips // PARTS, thread)
            if error != 0:
                return error
            item += end - part
        return 0

    return products
