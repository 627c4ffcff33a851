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
    with pytest.raises(ModelError, match="9 values among rows of 8"):
        ops.overlay(ops.constant(normal(3, 9)), rows)
    with pytest.raises(ModelError, match="4 rows"):
        ops.overlay(ops.constant(normal(5, 8)), rows)
