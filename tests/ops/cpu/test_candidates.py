"""The likeliest values of a row, against a full stable sort and sums in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows_of_logits import any_row
from samples import FEW, close, normal

from opsin.errors import ModelError
from opsin.ops.reference import Reference


def found(ops, x, k):
    return [y.numpy() for y in ops.candidates(ops.constant(x), k)]


def agree(ops, x, k):
    places, values, sums = found(ops, x, k)
    wanted = found(Reference(wide=True), x, k)
    np.testing.assert_array_equal(places, wanted[0])
    np.testing.assert_array_equal(values, wanted[1].astype(np.float32))
    np.testing.assert_allclose(sums, wanted[2], rtol=1e-6)


@pytest.mark.parametrize("width", [1, 7, 40, 64, 129, 1000, 4097])
@pytest.mark.parametrize("rows", [1, 3, 33])
def test_on_odd_sizes(ops, rows, width):
    x = 4 * normal(rows, width)
    for k in {min(k, width) for k in (1, 2, 40, 64, 900)}:
        agree(ops, x, k)


@pytest.mark.parametrize("width", [257] if FEW else [257, 128_256])
@pytest.mark.parametrize("order", ["up", "down", "equal", "rounded", "mostly nothing"])
def test_whatever_the_order(ops, order, width):
    x = np.linspace(-30, 9, width, dtype=np.float32)[None]
    x = {
        "up": x, "down": x[:, ::-1].copy(), "equal": np.full_like(x, -2.5), "rounded": normal(1, width).round(1),
        "mostly nothing": np.where(np.arange(width) % 97 == 5, x, -np.inf).astype(np.float32),
    }[order]  # fmt: skip
    agree(ops, x, 64)


@settings(max_examples=50 if FEW else 400, deadline=None)
@given(row=any_row(300), k=st.integers(1, 80))
def test_of_any_row(cpu, row, k):
    if np.isfinite(row).any():
        agree(cpu.eager(), row[None], min(k, len(row)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("at", [0, 1, 63, 64, 70, 95, 98, 99])
def test_a_row_with_a_nan_or_an_infinite_value_has_no_sum_and_harms_no_other(ops, at, bad):
    x = normal(3, 100)
    clean = found(ops, x, 64)
    x[1, at] = bad
    places, values, sums = found(ops, x, 64)
    assert np.isnan(sums).tolist() == [False, True, False]
    assert ((places >= 0) & (places < 100)).all()
    for got, wanted in zip((places, values, sums), clean, strict=True):
        np.testing.assert_array_equal(got[[0, 2]], wanted[[0, 2]])


def test_a_row_of_nothing_has_no_sum(ops):
    assert np.isnan(found(ops, np.full((1, 99), -np.inf, np.float32), 3)[2]).all()


def test_part_of_an_array(ops):
    x = normal(3, 90)
    for got, wanted in zip(
        (y.numpy() for y in ops.candidates(ops.constant(x)[:, 3:83], 7)), found(ops, x[:, 3:83].copy(), 7), strict=True
    ):
        np.testing.assert_array_equal(got, wanted)


def test_a_program_is_told_how_many(cpu):
    ops, tape = cpu.record()
    rows, k = tape.count("rows", 4), tape.count("k", 64)
    names = ("places", "values", "sums")
    x = tape.input(ops, "x", (rows, 500), "f32")
    program = tape.finish(dict(zip(names, ops.candidates(x, k), strict=True)))
    for count, many in ((4, 1), (2, 64), (3, 40), (4, 64)):
        given = normal(count, 500, seed=many)
        program.inputs["x"][:count] = given
        program.run(rows=count, k=many)
        places, values, sums = (program.output(name)[:count] for name in names)
        for got, wanted in zip((places[:, :many], values[:, :many]), found(cpu.eager(), given, many), strict=False):
            np.testing.assert_array_equal(got, wanted)
        close(sums, found(Reference(wide=True), given, many)[2], 1e-6)


@pytest.mark.parametrize("k", [0, 41])
def test_as_many_as_a_row_has_at_most(ops, k):
    with pytest.raises(ModelError, match=f"candidates: {k}"):
        ops.candidates(ops.constant(normal(3, 40)), k)
