"""Embeddings in the place of a batch's rows: read where they lie, row by row, run by run."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from samples import agree, normal

from opsin.errors import ModelError


@pytest.mark.parametrize("width", [1, 16, 40, 129])
def test_overlay(ops, width):
    x, pictures = normal(9, width), [normal(4, width, seed=1), normal(3, width, seed=2)]

    def run(o):
        rows = o.rows(12)
        rows.set(1, o.constant(pictures[0]), 0, 4)
        rows.set(5, o.constant(pictures[1]), 2)
        rows.set(8, o.constant(pictures[1]), 0, 2)  # one of them beyond the batch
        rows.clear(2, 1)
        return o.overlay(o.constant(x), rows)

    agree(ops, run, 0)
    got = run(ops).numpy()
    np.testing.assert_array_equal(got[[0, 2, 6, 7]], x[[0, 2, 6, 7]])
    np.testing.assert_array_equal(got[[1, 3, 4]], pictures[0][[0, 2, 3]])
    np.testing.assert_array_equal(got[[5, 8]], pictures[1][[2, 0]])


def test_part_of_each_row_may_be_an_embedding(ops):
    x, wide = normal(3, 24), normal(5, 100)
    rows = ops.rows(3)
    rows.set(0, ops.constant(wide)[:, 30:54], 3, 2)
    np.testing.assert_array_equal(ops.overlay(ops.constant(x), rows).numpy(), [*wide[3:5, 30:54], x[2]])


@pytest.mark.parametrize("width", [1, 16, 40, 129])
def test_parts_of_wider_embeddings_replace_and_add(ops, width):
    x, wide = normal(9, width), normal(4, 3 * width, seed=1)

    def run(o, first):
        rows = o.rows(12)
        rows.set(1, o.constant(wide), 0, 4)
        rows.set(8, o.constant(wide), 2, 2)  # one of them beyond the batch
        rows.clear(2, 1)
        return o.overlay(o.constant(x), rows) if first is None else o.add_rows(o.constant(x), rows, first)

    for first in (None, 0, width, 2 * width):
        agree(ops, lambda o, first=first: run(o, first), 0 if first is None else 1e-7)
    got = run(ops, 2 * width).numpy()
    np.testing.assert_array_equal(got[[0, 2, 5, 6, 7]], x[[0, 2, 5, 6, 7]])
    np.testing.assert_array_equal(got[[1, 3, 4, 8]], x[[1, 3, 4, 8]] + wide[[0, 2, 3, 2], 2 * width :])
    np.testing.assert_array_equal(run(ops, None).numpy()[[1, 3]], wide[[0, 2], :width])


def test_what_adds_rows_reaches_as_far_as_they_are_named(cpu):
    ops, tape = cpu.record()
    count = tape.count("rows", 6)
    x = tape.input(ops, "x", (count, 40), "f32")
    program = tape.finish({"y": ops.scale(ops.add_rows(ops.scale(x, 1.0), tape.rows(ops, "media", 6), 40), 2.0)})
    values, given, media = normal(7, 120, seed=3), normal(6, 40), program.rows["media"]
    program.inputs["x"][:] = given

    def result(n):
        program.run(rows=n)
        return program.output("y")[:n].copy()

    def named(*rows):
        """How many rows the kernel looks at, and what comes of it."""
        expected = given.copy()
        expected[[*rows]] += values[[*rows], 40:80]
        for n in (1, 4, 6):
            np.testing.assert_array_equal(result(n), 2 * expected[:n])
        return int(media.reach[0])

    wide = cpu.eager().constant(values)
    assert named() == 0
    media.set(1, wide, 1, 3)
    assert named(1, 2, 3) == 4
    media.set(0, wide, 0)
    media.clear(2)
    assert named(0, 1) == 2
    media.clear()
    assert named() == 0


def test_rows_of_a_program_are_set_between_its_runs(cpu):
    ops, tape = cpu.record()
    count = tape.count("rows", 5)
    x = tape.input(ops, "x", (count, 40), "f32")
    program = tape.finish({"y": ops.scale(ops.overlay(x, tape.rows(ops, "media", 5)), 2.0)})
    eager = cpu.eager()
    values = normal(7, 40, seed=3)
    program.inputs["x"][:] = normal(5, 40)

    def result(n):
        program.run(rows=n)
        return program.output("y")[:n].copy()

    plain = 2 * normal(5, 40)
    np.testing.assert_array_equal(result(5), plain)
    media = program.rows["media"]
    media.set(1, eager.constant(values), 4, 3)
    np.testing.assert_array_equal(result(4), np.concatenate([plain[:1], 2 * values[4:7]]))
    np.testing.assert_array_equal(result(5), np.concatenate([plain[:1], 2 * values[4:7], plain[4:]]))
    media.clear()
    np.testing.assert_array_equal(result(5), plain)


def test_embeddings_live_as_long_as_they_are_named(ops):
    rows, x = ops.rows(2), ops.constant(np.zeros((2, 64), np.float32))
    rows.set(0, ops.scale(ops.constant(np.ones((3, 64), np.float32)), 2.0), 1, 2)
    gc.collect()
    others = [ops.scale(ops.constant(np.ones((3, 64), np.float32)), 9.0) for _ in range(4)]
    assert (ops.overlay(x, rows).numpy() == 2).all()
    assert len(others) == 4


def test_what_does_not_fit_is_refused(ops):
    rows, embeddings = ops.rows(4), ops.constant(normal(3, 8))
    for place, row, count in ((0, 2, 2), (0, -1, 1), (3, 0, 2), (-1, 0, 1), (0, 3, 1)):
        with pytest.raises(ModelError, match="overlay"):
            rows.set(place, embeddings, row, count)
    rows.set(0, embeddings, 0)
    with pytest.raises(ModelError, match="9 values among rows of 8"):
        rows.set(0, ops.constant(normal(3, 9)), 0)
    with pytest.raises(ModelError, match="9 values are read of rows of 8"):
        ops.overlay(ops.constant(normal(3, 9)), rows)
    with pytest.raises(ModelError, match="4 rows"):
        ops.overlay(ops.constant(normal(5, 8)), rows)
    for width, first in ((8, 1), (4, 5), (4, -1)):
        with pytest.raises(ModelError, match="add_rows|values are read of rows of 8"):
            ops.add_rows(ops.constant(normal(3, width)), rows, first)
    with pytest.raises(ModelError, match="4 rows"):
        ops.add_rows(ops.constant(normal(5, 4)), rows, 4)
    unset = ops.rows(4)
    ops.overlay(ops.constant(normal(3, 8)), unset)
    with pytest.raises(ModelError, match="8 values are read of rows of 7"):
        unset.set(0, ops.constant(normal(3, 7)), 0)
