"""Attention of encoders by products of integers: its roundings in plain NumPy, and how near the definition it is."""

from __future__ import annotations

import numpy as np
import pytest
from samples import close, normal, raw

from opsin.ops import PAGE
from opsin.ops.reference import Reference

LIKE = ("Q8_0", "F16")


@pytest.fixture(scope="module")
def here(cpu):
    """The device, where it takes integers."""
    if cpu.eager().tape.code.isa.dot != "vpdpbusd":
        pytest.skip("this set of instructions keeps products of floats")
    return cpu


def rounded(x, axis=-1, largest=127):
    """x as integers with a scale of its largest magnitude / `largest` along an axis."""
    scale = np.abs(x).max(axis, keepdims=True) / largest
    return np.rint(np.divide(x, scale, out=np.zeros_like(x), where=scale > 0)) * scale


def fitted(x):
    """Vectors as integers up to 32767, and as long as 46320."""
    scale = np.maximum(np.abs(x).max(-1, keepdims=True) / 32767, np.linalg.norm(x, axis=-1, keepdims=True) / 46320)
    return np.rint(np.divide(x, scale, out=np.zeros_like(x), where=scale > 0)) * scale


def of_a_head(q, k, v, scale, like):
    """What the kernel rounds; queries and keys [rows, width] of a window, in float64."""
    vectors, weight_range, value_range = (rounded, 255, 127) if like == "Q8_0" else (fitted, 8191, 4095)
    scores = vectors(q * scale) @ vectors(k - k.mean(0)).T
    blocks = range(0, len(k), PAGE)
    total, weight = np.zeros((len(q), v.shape[1])), np.zeros((len(q), 1))
    for some in (slice(start, start + PAGE) for start in blocks):
        top = scores[:, some].max(1, keepdims=True)
        weights = np.rint(weight_range * np.exp(scores[:, some] - top))
        share = np.exp(top - scores.max(1, keepdims=True))
        total += share * (weights @ rounded(v[some], 0, value_range))
        weight += share * weights.sum(1, keepdims=True)
    return total / weight


def by_hand(q, k, v, lengths, scale, like):
    out, start = np.zeros(q.shape), 0
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    for n in lengths:
        rows = slice(start, start + n)
        for head in range(q.shape[1]):
            kv = head * k.shape[1] // q.shape[1]
            out[rows, head] = of_a_head(q[rows, head], k[rows, kv], v[rows, kv], scale, like)
        start += n
    return out


def ends(*lengths):
    """first and last of rows that see their own window."""
    last = np.repeat(np.cumsum(lengths), lengths).astype(np.int32)
    return last - np.repeat(lengths, lengths).astype(np.int32), last


def coarse(o, q, k, v, first, last, scale=0.2, parts=1, like="Q8_0"):
    given = (o.constant(a) for a in (q, k, v, first, last))
    weight = o.pack(raw(like, 32, 32), rounded=True)
    return o.attend_dense(*given, scale=scale, parts=parts, like=weight).numpy()


def exactly(q, k, v, first, last, scale, parts=1):
    o = Reference(wide=True)
    return o.attend_dense(*(o.constant(a) for a in (q, k, v, first, last)), scale=scale, parts=parts).numpy()


def inputs(rows, heads, kv, width):
    return 3 * normal(rows, heads, width), 1 + normal(rows, kv, width, seed=1), normal(rows, kv, width, seed=2)


def cosines(x, y):
    x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
    return (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)


@pytest.mark.parametrize(
    ("lengths", "heads", "kv", "width"),
    [((1,), 1, 1, 8), ((67,), 2, 1, 30), ((64, 1, 130, 48), 2, 2, 72), ((600,), 1, 1, 80), ((1100,), 2, 2, 64)],
)
@pytest.mark.parametrize("like", LIKE)
def test_its_roundings(here, lengths, heads, kv, width, like):
    q, k, v = inputs(sum(lengths), heads, kv, width)
    got, wanted = coarse(here.eager(), q, k, v, *ends(*lengths), like=like), by_hand(q, k, v, lengths, 0.2, like)
    # In float32 a number here and there is rounded to the other side, and one of 127 or of 255 steps off.
    steps = 1 if like == "Q8_0" else 32
    assert np.abs(got - wanted).mean() < 5e-5 / steps * np.abs(wanted).max()
    close(got, wanted, 1e-2 / steps)


@pytest.mark.parametrize(("like", "least"), [("Q8_0", 0.999), ("F16", 0.999999)])
def test_it_is_near_the_definition(here, like, least):
    q, k, v = inputs(300, 2, 2, 64)
    k[:, :, 5] += 40.0  # a channel that all keys share says nothing, and would take most of the 8 bits
    exact = exactly(q, k, v, *ends(300), scale=0.08)
    assert cosines(coarse(here.eager(), q, k, v, *ends(300), scale=0.08, like=like), exact).min() > least


def test_sums_of_16_bits_do_not_overflow(here):
    """Like values are where sums are largest: queries and keys as long as may be, weights and values the largest."""
    q, k, v = (np.full((70, 1, 160), x, np.float32) for x in (3.0, 1.0, 5.0))
    k[::2], v[::2] = -1.0, -5.0
    for scale in (0.01, 0.0):
        got, exact = coarse(here.eager(), q, k, v, *ends(70), scale=scale, like="F16"), np.full_like(q, 5.0)
        exact *= np.tanh(160 * 3 * scale)
        close(got + 5, exact + 5, 3e-4)
    close(coarse(here.eager(), q, k, np.abs(v), *ends(70), scale=0.0, like="F16"), np.abs(v), 3e-4)


def test_a_broad_tail_beside_a_peak_is_not_lost(ops):
    """One key of weight 1, a thousand of 1/600 each: less than half a step of 1/255."""
    keys = np.zeros((1000, 1, 8), np.float32)
    keys[123, 0, 0], values = np.log(600), np.ones((1000, 1, 8), np.float32)
    values[123] = -1.0
    query = np.zeros((1, 1, 8), np.float32)
    query[0, 0, 0] = 1.0
    got = coarse(ops, query, keys, values, np.zeros(1, np.int32), np.full(1, 1000, np.int32), scale=1.0)
    tail = 999 / 600
    np.testing.assert_allclose(got, (tail - 1) / (tail + 1), atol=0.05)


@pytest.mark.parametrize("like", LIKE)
def test_rows_have_the_same_bits_in_any_company(teams, like):
    q, k, v = inputs(1170, 2, 2, 72)
    lengths = (1100, 70)
    whole = coarse(teams[2].eager(), q, k, v, *ends(*lengths), like=like)
    first, last = ends(*lengths)
    for part in (slice(0, 1), slice(333, 430), slice(1099, 1100)):
        got = coarse(teams[3].eager(), q[part], k, v, first[part].copy(), last[part].copy(), like=like)
        np.testing.assert_array_equal(got, whole[part])
    alone = slice(1100, 1170)
    got = coarse(teams[1].eager(), q[alone], k[alone], v[alone], *ends(70), like=like)
    np.testing.assert_array_equal(got, whole[alone])


@pytest.mark.parametrize("like", LIKE)
def test_parts_and_rows_that_see_nothing(ops, like):
    q, k, v = inputs(75, 2, 1, 40)
    first, last = (np.int32(list(a) * 3) for a in ([0] * 24 + [7], [25] * 20 + [11] * 4 + [7]))
    whole = coarse(ops, q, k, v, first, last, 0.05, parts=3, like=like)
    assert not whole[24::25].any()
    close(whole, exactly(q, k, v, first, last, 0.05, parts=3), 3e-2)
    for part in (slice(i * 25, (i + 1) * 25) for i in range(3)):
        alone = coarse(ops, q[part], k[part], v[part], first[:25], last[:25], 0.05, like=like)
        np.testing.assert_array_equal(alone, whole[part])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", range(3))
@pytest.mark.parametrize("like", LIKE)
def test_what_is_no_number_stays_in_its_window(ops, where, bad, like):
    given = inputs(70, 2, 1, 40)
    given[where][33, 0, 3] = bad
    got = coarse(ops, *given, *ends(30, 10, 30), like=like)
    assert np.isfinite(got[:30]).all()
    assert np.isfinite(got[40:]).all()
    seen = np.isfinite(got[30:40]).all((1, 2)) if where else np.isfinite(got[33:34, 0]).all(1)
    assert not seen.any()


def test_float_weights_keep_products_of_floats(here):
    ops, given = here.eager(), inputs(70, 2, 1, 40)
    plain = ops.attend_dense(*(ops.constant(a) for a in (*given, *ends(70))), scale=0.2).numpy()
    np.testing.assert_array_equal(coarse(ops, *given, *ends(70), like="F32"), plain)
    assert (coarse(ops, *given, *ends(70)) != plain).any()
