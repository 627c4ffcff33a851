"""A row's result is the same bits alone and among others, in any chunks, on any pages, with any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from samples import FEW, FLOATS, QUANTISED, Cache, normal, raw

from opsin.ops import CHUNK
from opsin.ops.alibi import Alibi, alibi_slopes

FREQUENCIES = (10000.0 ** (-np.arange(0, 20) / 20)).astype(np.float32)
POSITIONS = np.arange(0, 2600, 100, dtype=np.int32)

# By name: (ops, rows of x [n, 4, 40], numbers of the rows) -> the same rows of a result.
EACH = {
    "add": lambda o, x, at: o.constant(x) + o.constant(x[:, ::-1].copy()),
    "multiply": lambda o, x, at: o.constant(x) * o.constant(x[:, ::-1].copy()),
    "scale": lambda o, x, at: o.constant(x) * 0.3,
    "rms_norm": lambda o, x, at: o.rms_norm(o.constant(x), o.constant(normal(40)), 1e-5),
    "layer_norm": lambda o, x, at: o.layer_norm(o.constant(x), o.constant(normal(40)), None, 1e-5),
    "silu": lambda o, x, at: o.activate(o.constant(x), "silu"),
    "gelu": lambda o, x, at: o.activate(o.constant(x), "gelu"),
    "glu": lambda o, x, at: o.glu(o.constant(x), o.constant(x), "silu"),
    "decay": lambda o, x, at: o.decay(o.constant(x.reshape(len(x), -1)), o.constant(-np.abs(normal(160)))),
    "rope_table": lambda o, x, at: o.rope_table(o.constant(POSITIONS[at]), o.constant(FREQUENCIES)),
    "rope": lambda o, x, at: o.rope(
        o.constant(x), o.rope_table(o.constant(POSITIONS[at]), o.constant(FREQUENCIES)), "neighbours"
    ),
    "rope_table with axes": lambda o, x, at: o.rope_table(
        o.constant(np.stack([POSITIONS[at], at], 1)), o.constant(FREQUENCIES), 1.0, o.constant(np.arange(20) % 2)
    ),
    "rope_table that grows": lambda o, x, at: o.rope_table(
        o.constant(POSITIONS[at]), o.constant(FREQUENCIES), growth=o.constant(np.float32([1, 1.3, 1.4, 1.5])), every=3
    ),
    "mean_rows": lambda o, x, at: o.mean_rows(o.constant(x.reshape(-1, 40)), 4),
    "overlay": lambda o, x, at: _overlaid(o, x),
    "add_rows": lambda o, x, at: _added(o, x),
    "candidates": lambda o, x, at: o.candidates(o.constant(x.reshape(len(x), -1)), 50)[1],
    "sums of candidates": lambda o, x, at: o.candidates(o.constant(x.reshape(len(x), -1)), 50)[2],
    "take": lambda o, x, at: o.take(o.constant(x), o.constant(np.arange(len(x), dtype=np.int32))),
    "put": lambda o, x, at: o.put(
        o.constant(x.reshape(len(x), -1)), o.constant(-x.reshape(len(x), -1)),
        o.constant(np.where(at % 2, np.arange(len(x)), -1).astype(np.int32)),
    ),
}  # fmt: skip


def _overlaid(o, x):
    rows = o.rows(len(x))
    rows.set(0, o.constant(-x.reshape(len(x), -1)), 0, len(x) // 2)
    rows.set(len(x) // 2, o.constant(-x.reshape(len(x), -1)), len(x) // 2, len(x) - len(x) // 2)
    return o.overlay(o.constant(x.reshape(len(x), -1)), rows)


def _added(o, x):
    flat, rows = x.reshape(len(x), -1), o.rows(len(x))
    rows.set(0, o.constant(np.hstack([flat, flat * 0.3])), 0, len(x))
    return o.add_rows(o.constant(flat), rows, flat.shape[1])


@pytest.mark.parametrize("name", EACH)
def test_rows_alone_in_chunks_and_with_other_threads(teams, name):
    x = normal(26, 4, 40)
    run = EACH[name]
    whole = run(teams[2].eager(), x, np.arange(26)).numpy()
    for threads in (1, 3):
        np.testing.assert_array_equal(run(teams[threads].eager(), x, np.arange(26)).numpy(), whole)
    for size in (1, 3, 25):
        for start in range(0, 26, size):
            at = np.arange(start, min(start + size, 26))
            np.testing.assert_array_equal(run(teams[2].eager(), x[at], at).numpy(), whole[at])


@pytest.mark.parametrize(("name", "rounded"), [*((n, False) for n in (*FLOATS, *QUANTISED)), ("F16", True)])
def test_linear_and_embed(teams, name, rounded):
    tensor, x, residual = raw(name, 97, 256), normal(20, 256), normal(20, 97)
    ids = np.array([3, 96, 0, 50], np.int32)

    def run(threads, at):
        ops = teams[threads].eager()
        weight = ops.pack(tensor, rounded=rounded)
        bias = ops.constant(normal(97))
        y = ops.linear(ops.constant(x[at]), weight, bias, ops.constant(residual[at]))
        return y.numpy(), ops.embed(ops.constant(ids), weight).numpy()

    whole, rows = run(2, slice(None))
    for threads in (1, 3):
        for got, wanted in zip(run(threads, slice(None)), (whole, rows), strict=True):
            np.testing.assert_array_equal(got, wanted)
    ops = teams[2].eager()
    weight, bias = ops.pack(tensor, rounded=rounded), ops.constant(normal(97))
    for size in (1, 2, 3, 4, 5, 7, 11, 16):
        for start in range(0, 20, size):
            at = slice(start, start + size)
            y = ops.linear(ops.constant(x[at]), weight, bias, ops.constant(residual[at])).numpy()
            np.testing.assert_array_equal(y, whole[at], f"rows {start} to {start + size}")


@pytest.mark.parametrize("name", ["Q4_K"] if FEW else ["Q4_0", "Q4_K", "Q6_K"])
def test_linear_of_many_inputs(teams, name):
    """More than are read at once for a few rows."""
    ops, x = teams[2].eager(), normal(17, 2560)
    weight = ops.pack(raw(name, 40, 2560))
    whole = ops.linear(ops.constant(x), weight).numpy()
    for size in (1, 2, 3, 4, 5, 8, 12, 16):
        np.testing.assert_array_equal(
            ops.linear(ops.constant(x[-size:]), weight).numpy(), whole[-size:], f"{size} rows"
        )


@pytest.mark.parametrize("kind", ["f32", "q4_0"] if FEW else ["f32", "f16", "q8_0", "q4_0"])
class TestAttention:
    LENGTH = 2 * CHUNK + 200

    def rows(self):
        """The last 40 rows of one sequence, as prefill has them; some with a window."""
        return [(0, max(0, i - 900) if i % 3 == 0 else 0, i) for i in range(self.LENGTH - 39, self.LENGTH + 1)]

    def run(self, team, kind, rows, at, *, scattered=True, company=(), sinks=False, alibi=False):
        ops = team.eager()
        cache = Cache(2, 32, (self.LENGTH, 300), kind, scattered=scattered)
        q, other = 2 * normal(40, 6, 32)[at], normal(len(company), 6, 32, seed=9)
        whole = np.concatenate([q, other]) if len(company) else q
        reads = cache.reads(ops, [*(rows[i] for i in at), *company])
        more = {"sinks": ops.constant(normal(6))} if sinks else {}
        if alibi:
            places = np.int32([*at, *range(len(company))])
            more["alibi"] = Alibi(ops.constant(alibi_slopes(6)), ops.constant(places))
        return ops.attend(ops.constant(whole), cache.fill(ops), 1, reads, scale=0.3, **more).numpy()[: len(at)]

    def test_threads_pages_chunks_and_company(self, teams, kind):
        rows, every = self.rows(), list(range(40))
        whole = self.run(teams[2], kind, rows, every)
        for threads in (1, 3):
            np.testing.assert_array_equal(self.run(teams[threads], kind, rows, every), whole)
        np.testing.assert_array_equal(self.run(teams[2], kind, rows, every, scattered=False), whole)
        company = [(1, 0, 300), (1, 0, 1), (1, 5, 280)]
        np.testing.assert_array_equal(self.run(teams[2], kind, rows, every, company=company), whole)
        for size in (1, 7, 21):
            for start in range(0, 40, size) if size > 1 else (0, 1, 2, 20, 39):
                at = every[start : start + size]
                for threads in (1, 3):
                    np.testing.assert_array_equal(self.run(teams[threads], kind, rows, at), whole[at])

    @pytest.mark.parametrize("more", [{}, {"sinks": True}, {"alibi": True}], ids=["plain", "sinks", "alibi"])
    def test_a_cut_row_equals_an_uncut_one(self, teams, kind, more):
        """Alone, a long row is cut for the threads; beside many sequences it is not."""
        rows = [(0, 0, self.LENGTH)]
        alone = self.run(teams[3], kind, rows, [0], **more)
        company = [(1, 0, 1 + i) if i % 2 else (0, 0, i) for i in range(60)]
        np.testing.assert_array_equal(self.run(teams[1], kind, rows, [0], company=company, **more), alone)
