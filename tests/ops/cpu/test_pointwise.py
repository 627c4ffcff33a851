"""Values one by one, norms, positions and rows: the CPU against the definition, on sizes that fill no vector."""

from __future__ import annotations

import numpy as np
import pytest
from samples import FEW, agree, normal

from opsin.errors import ModelError

WIDTHS = (1, 7, 24, 40, 72, 96, 129)
ROWS = (1, 3, 65)
ACTIVATIONS = ("silu", "gelu", "gelu_erf", "gelu_quick", "relu", "sigmoid")
FREQUENCIES = (10000.0 ** (-np.arange(0, 16) / 16)).astype(np.float32)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("rows", ROWS)
class TestOddSizes:
    def test_add_multiply_and_scale(self, ops, rows, width):
        x, y, one = normal(rows, width), normal(rows, width, seed=1), normal(width)
        agree(ops, lambda o: o.constant(x) + o.constant(y), 1e-7)
        agree(ops, lambda o: o.constant(x) * o.constant(y), 1e-7)
        agree(ops, lambda o: o.constant(x) + o.constant(one), 1e-7)
        agree(ops, lambda o: o.constant(x) * o.constant(one), 1e-7)
        agree(ops, lambda o: o.constant(x) * -1.7, 2e-7)

    def test_clamp(self, ops, rows, width):
        x = normal(rows, width)
        for bounds in ((-0.5, 0.7), (-np.inf, 0.1), (0.2, np.inf), (-np.inf, np.inf), (0.3, 0.3)):
            agree(ops, lambda o: o.clamp(o.constant(x), *bounds), 1e-7)  # noqa: B023

    def test_softcap(self, ops, rows, width):
        x = 10 * normal(rows, width)
        agree(ops, lambda o: o.softcap(o.constant(x), 5.0))
        agree(ops, lambda o: o.softcap(o.constant(x), 30.0))

    def test_norms(self, ops, rows, width):
        x, w, b = normal(rows, width) + 3, normal(width), normal(width, seed=1)
        agree(ops, lambda o: o.rms_norm(o.constant(x), o.constant(w), 1e-5))
        agree(ops, lambda o: o.rms_norm(o.constant(x), None, 1e-1))
        agree(ops, lambda o: o.layer_norm(o.constant(x), o.constant(w), o.constant(b), 1e-5))
        agree(ops, lambda o: o.layer_norm(o.constant(x), o.constant(w), None, 1e-1))

    def test_take(self, ops, rows, width):
        x, picked = normal(rows, width), np.array([rows - 1, 0, rows // 2, 0], np.int32)
        agree(ops, lambda o: o.take(o.constant(x), o.constant(picked)), 0)

    def test_put(self, ops, rows, width):
        x, y = normal(rows, width), normal(3, width, seed=1)
        places = np.random.default_rng(rows).integers(-2, 3, rows).astype(np.int32)
        agree(ops, lambda o: o.put(o.constant(x), o.constant(y), o.constant(places)), 0)
        got = ops.put(ops.constant(x), ops.constant(y), ops.constant(places)).numpy()
        for row, place in enumerate(places):
            assert np.array_equal(got[row], x[row] if place < 0 else y[place])

    def test_neighbours_side_by_side_and_their_mean(self, ops, rows, width):
        for k in (1, 2, 9):
            x = normal(rows * k, width)
            agree(ops, lambda o: o.fold(o.constant(x), k), 0)  # noqa: B023
            agree(ops, lambda o: o.mean_rows(o.constant(x), k), 3e-7)  # noqa: B023


def test_decay(ops):
    x = np.concatenate([np.linspace(-30, 30, 91), [-200, 200, -3e38, 3e38]]).astype(np.float32)[:, None]
    rate = -np.array([0, 1e-4, 0.03, 1, 20], np.float32)
    spread = np.repeat(x, len(rate), axis=1)
    agree(ops, lambda o: o.decay(o.constant(spread), o.constant(rate)), 1e-6)
    kept = 1 - ops.decay(ops.constant(spread), ops.constant(rate)).numpy().astype(np.float64)
    assert (kept[0] < 1e-6).all()  # e**-30 of anything
    assert (kept[-1, 1:] == 1).all()
    assert np.isnan(ops.decay(ops.constant(np.float32([[np.nan]])), ops.constant(rate[:1])).numpy()).all()


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize(("rows", "width"), [(1, 5), (3, 40), (2, 129)])
def test_activations_and_gates(ops, kind, rows, width):
    x, up = 4 * normal(rows, width), normal(rows, width, seed=1)
    agree(ops, lambda o: o.activate(o.constant(x), kind))
    agree(ops, lambda o: o.glu(o.constant(x), o.constant(up), kind))


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_of_extreme_values(ops, kind):
    x = np.array([[0.0, -0.0, 1e-30, -1e-30, 30.0, -30.0, 88.5, -88.5, 1e4, -1e4, 3e38, -3e38]], np.float32)
    got = ops.activate(ops.constant(x), kind).numpy()
    far, at_zero = (1.0, 0.5) if kind == "sigmoid" else (x, 0.0)
    wanted = np.where(x > 0, far, 0.0)
    near = np.abs(x) >= 30
    np.testing.assert_allclose(got[near], wanted[near], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(got[~near], at_zero, atol=1e-6)


def test_softcap_of_extreme_values(ops):
    x = np.array([[0.0, -0.0, 1e-30, 2e3, -2e3, 1e4, -1e4, 3e38, -3e38, np.inf, -np.inf]], np.float32)
    got = ops.softcap(ops.constant(x), 30.0).numpy()
    np.testing.assert_allclose(got, [[0, 0, 0, *[30, -30] * 4]], atol=1e-6)
    assert np.isnan(ops.softcap(ops.constant(np.full((1, 3), np.nan, np.float32)), 30.0).numpy()).all()


def test_norms_of_heads(ops):
    x, w = normal(5, 3, 40), normal(40)
    agree(ops, lambda o: o.rms_norm(o.constant(x), o.constant(w), 1e-5))
    agree(ops, lambda o: o.layer_norm(o.constant(x), o.constant(w), o.constant(w), 1e-5))


@pytest.mark.parametrize("pairs", [1, 4, 13, 36, 64])
def test_rope_table(ops, pairs):
    positions = np.array([0, 1, 77, 5000, 131071, -3], np.int32)
    frequencies = (500000.0 ** (-np.arange(pairs) / pairs)).astype(np.float32)
    agree(ops, lambda o: o.rope_table(o.constant(positions), o.constant(frequencies)), 1e-7)
    agree(ops, lambda o: o.rope_table(o.constant(positions), o.constant(frequencies), 1.37), 1e-7)


@pytest.mark.parametrize("every", [1, 40, 5000])
def test_rope_table_that_grows(ops, every):
    positions, growth = np.array([0, 1, 39, 40, 77, 5000, 131071, -3], np.int32), 1 + normal(7) ** 2
    frequencies = (500000.0 ** (-np.arange(13) / 13)).astype(np.float32)

    def run(o, **more):
        return o.rope_table(o.constant(positions), o.constant(frequencies), 1.37, **more)

    agree(ops, lambda o: run(o, growth=o.constant(growth), every=every), 1e-7)
    steps = np.clip(positions // every, 0, 6)
    grown, plain = run(ops, growth=ops.constant(growth), every=every).numpy(), run(ops).numpy()
    np.testing.assert_allclose(grown, plain * growth[steps][:, None, None], rtol=1e-6)
    np.testing.assert_array_equal(run(ops, growth=ops.constant(np.ones(2, np.float32)), every=every).numpy(), plain)


def test_rope_table_grows_by_whole_positions(ops):
    positions, turns = ops.constant(np.zeros(3, np.int32)), ops.constant(FREQUENCIES)
    with pytest.raises(ModelError, match="rope_table: .* growth every 0"):
        ops.rope_table(positions, turns, growth=ops.constant(np.ones(2, np.float32)), every=0)


@pytest.mark.parametrize("pairs", [3, 16, 37])
def test_rope_table_with_axes(ops, pairs):
    positions = np.array([[0, 0, 0], [5, 70, 3], [9000, 2, 131071], [-3, 1, 40]], np.int32)
    frequencies = (10000.0 ** (-np.arange(pairs) / pairs)).astype(np.float32)
    axis = (np.arange(pairs) * 3 // pairs)[::-1].astype(np.int32)
    parts = positions, frequencies, axis

    def run(o, scale=1.0):
        place, turns, which = (o.constant(a) for a in parts)
        return o.rope_table(place, turns, scale, which)

    agree(ops, run, 1e-7)
    agree(ops, lambda o: run(o, 0.7), 1e-7)
    for i in range(pairs):  # as each axis alone
        alone = ops.rope_table(ops.constant(positions[:, axis[i]].copy()), ops.constant(frequencies)).numpy()
        np.testing.assert_array_equal(run(ops).numpy()[:, :, i], alone[:, :, i])


def test_rope_table_wants_as_many_axes_as_it_is_told_of(ops):
    flat, two = ops.constant(np.zeros(3, np.int32)), ops.constant(np.zeros((3, 2), np.int32))
    turns, axis = ops.constant(FREQUENCIES), ops.constant(np.zeros(16, np.int32))
    for positions, which in ((two, None), (flat, axis), (two, ops.constant(np.zeros(15, np.int32)))):
        with pytest.raises(ModelError, match="rope_table"):
            ops.rope_table(positions, turns, 1.0, which)


@pytest.mark.parametrize("pairing", ["neighbours", "halves", "quarters"])
@pytest.mark.parametrize(("heads", "width", "pairs"), [(1, 8, 4), (3, 24, 12), (2, 72, 36), (3, 80, 16), (2, 128, 64)])
def test_rope(ops, pairing, heads, width, pairs):
    x, table = normal(5, heads, width), normal(5, 2, pairs)
    agree(ops, lambda o: o.rope(o.constant(x), o.constant(table), pairing), 1e-6)


def test_rope_in_quarters_is_that_of_halves_on_each_half(ops):
    x, table = normal(5, 3, 24), normal(5, 2, 12)
    whole = ops.rope(ops.constant(x), ops.constant(table), "quarters").numpy()
    for half in (0, 1):
        part, turns = x[..., 12 * half : 12 * half + 12].copy(), table[..., 6 * half : 6 * half + 6].copy()
        alone = ops.rope(ops.constant(part), ops.constant(turns), "halves").numpy()
        np.testing.assert_array_equal(whole[..., 12 * half : 12 * half + 12], alone)
    with pytest.raises(ModelError, match="rope"):
        ops.rope(ops.constant(x), ops.constant(normal(5, 2, 11)), "quarters")


def test_rope_turns_by_the_position_times_the_frequency(ops):
    x = np.zeros((2, 1, 32), np.float32)
    x[:, 0, 0] = 1
    table = ops.rope_table(ops.constant(np.array([0, 3], np.int32)), ops.constant(FREQUENCIES))
    turned = ops.rope(ops.constant(x), table, "neighbours").numpy()
    np.testing.assert_allclose(turned[1, 0, :2], [np.cos(3), np.sin(3)], atol=1e-6)
    np.testing.assert_array_equal(turned[0], x[0])


class TestViews:
    """Parts of rows: every operation walks from row to row by its own stride."""

    def test_operations_on_a_part_of_each_row(self, ops):
        x, w = normal(5, 100), normal(40)
        table = normal(5, 2, 20, seed=1)
        agree(ops, lambda o: o.glu(o.constant(x)[:, 3:43], o.constant(x)[:, 60:100], "silu"))
        agree(ops, lambda o: o.rms_norm(o.constant(x)[:, 3:43], o.constant(w), 1e-5))
        agree(ops, lambda o: o.layer_norm(o.constant(x)[:, 3:43], o.constant(w), None, 1e-5))
        agree(ops, lambda o: o.take(o.constant(x)[:, 3:43], o.constant(np.array([4, 0], np.int32))), 0)
        agree(ops, lambda o: o.rope(o.constant(x)[:, 3:43].reshape(1, 40), o.constant(table), "halves"), 1e-6)
        agree(ops, lambda o: o.constant(x)[:, 3:43].reshape(4, 10).reshape(20, 2), 0)
        agree(ops, lambda o: o.fold(o.constant(x)[:, 3:43], 5), 0)
        agree(ops, lambda o: o.mean_rows(o.constant(x)[:, 3:43], 5))
        agree(ops, lambda o: o.constant(x)[:, 3:43][:, 1:5] + o.constant(x)[:, 50:54], 1e-7)

    def test_a_view_keeps_its_memory_when_the_whole_is_dropped(self, ops):
        x = normal(6, 64)
        part = ops.scale(ops.constant(x), 2.0)[:, 8:16]
        for _ in range(8):
            ops.scale(ops.constant(x), 100.0)
        np.testing.assert_array_equal(part.numpy(), 2 * x[:, 8:16])


class TestNan:
    """A NaN that goes in comes out, in its own row and no other."""

    @pytest.mark.parametrize("at", [0, 5, 31, 39])
    @pytest.mark.parametrize("kind", ACTIVATIONS[:2] if FEW else ACTIVATIONS)
    def test_through_activations(self, ops, kind, at):
        x = normal(3, 40)
        x[1, at] = np.nan
        got = ops.activate(ops.constant(x), kind).numpy()
        assert np.isnan(got).tolist() == np.isnan(x).tolist()

    def test_through_a_clamp(self, ops):
        x = np.array([[np.nan, 3.0, -np.nan, np.inf, -np.inf]], np.float32)
        np.testing.assert_array_equal(ops.clamp(ops.constant(x), -1, 2).numpy(), [[np.nan, 2, np.nan, 2, -1]])

    @pytest.mark.parametrize("at", [0, 5, 31, 39])
    def test_through_norms(self, ops, at):
        x, w = normal(3, 40), normal(40)
        x[1, at] = np.nan
        for y in (
            ops.rms_norm(ops.constant(x), ops.constant(w), 1e-5),
            ops.layer_norm(ops.constant(x), ops.constant(w), None, 1e-5),
        ):
            assert np.isnan(y.numpy()).all(1).tolist() == [False, True, False]
            assert np.isfinite(y.numpy()[[0, 2]]).all()


class TestShapes:
    def test_that_do_not_go_together_are_refused(self, ops):
        x, y = ops.constant(normal(3, 40)), ops.constant(normal(3, 39))
        for call in (lambda: x + y, lambda: x * y, lambda: ops.glu(x, y, "silu")):
            with pytest.raises(ModelError, match="39"):
                call()

    def test_rows_that_are_not_whole_groups_are_refused(self, ops):
        x = ops.constant(normal(5, 8))
        for call in (ops.fold, ops.mean_rows):
            for k in (0, 2, 10):
                with pytest.raises(ModelError, match=f"times {k} rows"):
                    call(x, k)

    def test_rope_wider_than_the_head_is_refused(self, ops):
        with pytest.raises(ModelError, match="pairs"):
            ops.rope(ops.constant(normal(3, 2, 8)), ops.constant(normal(3, 2, 5)), "halves")

    def test_weight_of_a_norm_has_the_width_of_a_row(self, ops):
        x, w = ops.constant(normal(3, 40)), ops.constant(normal(39))
        with pytest.raises(ModelError, match="39"):
            ops.rms_norm(x, w, 1e-5)
        with pytest.raises(ModelError, match="39"):
            ops.layer_norm(x, w, None, 1e-5)
