"""Attention of encoders against the definition: whole pictures, windows, odd sizes."""

from __future__ import annotations

import numpy as np
import pytest
from samples import FEW, agree, normal

from opsin.errors import ModelError

# Query heads, KV heads, width.
SHAPES = ((1, 1, 8), (6, 2, 24), (2, 2, 72), (3, 1, 80), (3, 3, 64), (2, 1, 96))
if FEW:  # widths that share one kernel
    SHAPES = SHAPES[3:]


def spans(*lengths: int) -> tuple[np.ndarray, np.ndarray]:
    """first and last of rows that see their own window."""
    ends = np.cumsum(lengths)
    pairs = [(end - n, end) for n, end in zip(lengths, ends, strict=True) for _ in range(n)]
    first, last = np.array(pairs, np.int32).reshape(-1, 2).T
    return np.ascontiguousarray(first), np.ascontiguousarray(last)


def dense(o, q, k, v, first, last, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return o.attend_dense(*(o.constant(a) for a in (q, k, v, first, last)), scale=scale)


def inputs(rows: int, heads: int, kv: int, width: int):
    return 2 * normal(rows, heads, width), normal(rows, kv, width, seed=1), normal(rows, kv, width, seed=2)


@pytest.mark.parametrize(("heads", "kv", "width"), SHAPES)
@pytest.mark.parametrize("rows", [1, 63, 64, 65, 130, 700])
def test_one_picture(ops, rows, heads, kv, width):
    q, k, v = inputs(rows, heads, kv, width)
    agree(ops, lambda o: dense(o, q, k, v, *spans(rows)), 3e-6)


@pytest.mark.parametrize("lengths", [(64, 64, 64), (64, 48, 16, 64), (1, 2, 3, 100), (530, 5, 530)])
def test_windows(ops, lengths):
    q, k, v = inputs(sum(lengths), 4, 2, 40)
    agree(ops, lambda o: dense(o, q, k, v, *spans(*lengths)), 3e-6)


def test_rows_that_see_nothing_give_zeros(ops):
    q, k, v = inputs(5, 2, 1, 40)
    first, last = np.array([0, 0, 5, 2, 1], np.int32), np.array([5, 0, 5, 2, 3], np.int32)
    agree(ops, lambda o: dense(o, q, k, v, first, last), 3e-6)
    assert not dense(ops, q, k, v, first, last).numpy()[1:4].any()


def test_more_queries_than_keys_and_fewer(ops):
    """Attention of a resampler: a few queries, all patches."""
    for queries, keys in ((5, 200), (200, 5)):
        q, (_, k, v) = normal(queries, 3, 32), inputs(keys, 3, 3, 32)
        first, last = np.zeros(queries, np.int32), np.full(queries, keys, np.int32)
        agree(ops, lambda o: dense(o, q, k, v, first, last), 3e-6)  # noqa: B023


@pytest.mark.parametrize("lengths", [(70, 144, 144, 1), (600, 3, 1030)])
def test_a_picture_among_others_has_the_bits_that_it_has_alone(teams, lengths):
    q, k, v = inputs(sum(lengths), 4, 2, 64)
    whole = dense(teams[2].eager(), q, k, v, *spans(*lengths)).numpy()
    start = 0
    for n in lengths:
        part = slice(start, start + n)
        for threads in (1, 2, 3):
            alone = dense(teams[threads].eager(), q[part], k[part], v[part], *spans(n)).numpy()
            np.testing.assert_array_equal(alone, whole[part])
        start += n


@pytest.mark.parametrize("rows", [1, 2, 5, 97])
def test_a_row_alone_or_among_some_has_the_bits_that_it_has_among_all(teams, rows):
    q, k, v = inputs(1100, 3, 1, 72)
    first, last = np.zeros(1100, np.int32), np.full(1100, 1100, np.int32)
    whole = dense(teams[1].eager(), q, k, v, first, last).numpy()
    for start in (0, 333, 1100 - rows):
        part = slice(start, start + rows)
        got = dense(teams[3].eager(), q[part], k, v, first[part], last[part]).numpy()
        np.testing.assert_array_equal(got, whole[part])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_no_number_stays_in_its_window(ops, bad):
    q, k, v = inputs(70, 2, 1, 40)
    k[33], v[50] = bad, bad
    got = dense(ops, q, k, v, *spans(30, 10, 30)).numpy()
    assert np.isfinite(got[:30]).all()
    assert not np.isfinite(got[30:]).all((1, 2)).any()


@pytest.mark.parametrize("rows", [1, 63, 65, 324, 700])
def test_a_part_among_others_has_the_bits_that_it_has_alone(ops, rows):
    q, k, v = inputs(3 * rows, 4, 2, 64)
    lengths = (rows // 3, rows - rows // 3) if rows > 1 else (1,)
    first, last = spans(*lengths)
    ends = [ops.constant(np.tile(a, 3)) for a in (first, last)]
    whole = ops.attend_dense(*(ops.constant(a) for a in (q, k, v)), *ends, scale=0.2, parts=3).numpy()
    for part in (slice(i * rows, (i + 1) * rows) for i in range(3)):
        np.testing.assert_array_equal(dense(ops, q[part], k[part], v[part], first, last, 0.2).numpy(), whole[part])


def test_parts(ops):
    q, (_, k, v) = normal(12, 2, 40), inputs(15, 2, 1, 40)
    first, last = (ops.constant(np.int32(a)) for a in ([0] * 4 + [1] * 8, [5] * 11 + [1]))

    def run(o):
        ends = (o.constant(a.numpy()) for a in (first, last))
        return o.attend_dense(*(o.constant(a) for a in (q, k, v)), *ends, scale=0.2, parts=3)

    agree(ops, run, 3e-6)


def test_parts_that_are_not_equal_are_refused(ops):
    q, k, v = (ops.constant(a) for a in inputs(5, 2, 1, 24))
    with pytest.raises(ModelError, match="5 rows and 5 keys are not 2 equal parts"):
        ops.attend_dense(q, k, v, *(ops.constant(a) for a in spans(5)), scale=1.0, parts=2)


def test_parts_of_one_matrix_serve_as_queries_keys_and_values(ops):
    x, (first, last) = normal(70, 200), spans(40, 30)
    whole = ops.constant(x)
    parts = [whole[:, 3:67].reshape(2, 32), whole[:, 70:102].reshape(1, 32), whole[:, 110:142].reshape(1, 32)]
    got = ops.attend_dense(*parts, ops.constant(first), ops.constant(last), scale=0.2).numpy()
    apart = [np.ascontiguousarray(a) for a in (x[:, 3:67].reshape(70, 2, 32), x[:, None, 70:102], x[:, None, 110:142])]
    np.testing.assert_array_equal(got, dense(ops, *apart, first, last, 0.2).numpy())


def test_layers_that_read_alike_and_others(ops):
    """What is known of the rows of one call does not serve another's."""
    q, k, v = (ops.constant(a) for a in inputs(130, 2, 2, 32))
    results = []
    for lengths in ((130,), (130,), (65, 65), (130,)):
        first, last = (ops.constant(a) for a in spans(*lengths))
        results += [ops.attend_dense(q, k, v, first, last, scale=0.2).numpy() for _ in range(2)]
    for same in (1, 2, 3, 6, 7):
        np.testing.assert_array_equal(results[same], results[0])
    np.testing.assert_array_equal(results[4], results[5])
    assert np.abs(results[4] - results[0]).max() > 0.01


def test_in_a_recorded_program(cpu):
    ops, tape = cpu.record()
    q, k, v = inputs(100, 2, 2, 32)
    x = [tape.input(ops, name, a.shape, "f32") for name, a in zip("qkv", (q, k, v), strict=True)]
    ends = [ops.constant(a) for a in spans(60, 40)]
    y = ops.attend_dense(*x, *ends, scale=0.2)
    program = tape.finish({"y": ops.attend_dense(y, x[1], x[2], *ends, scale=0.2)})
    for name, a in zip("qkv", (q, k, v), strict=True):
        program.inputs[name][:] = a
    eager = cpu.eager()
    once = dense(eager, q, k, v, *spans(60, 40), 0.2).numpy()
    for _ in range(2):
        program.run()
        np.testing.assert_array_equal(program.output("y"), dense(eager, once, k, v, *spans(60, 40), 0.2).numpy())


def test_other_shapes_are_refused(ops):
    q, k, v = inputs(5, 4, 2, 24)
    first, last = spans(5)
    for wrong in (
        (q[:, :3], k, v, first, last),
        (q, k[..., :23].copy(), v, first, last),
        (q, k, v[:4], first, last),
        (q, k, v, first[:4], last),
        (q, k, v, first, np.append(last, 5).astype(np.int32)),
    ):
        with pytest.raises(ModelError, match="attend_dense"):
            dense(ops, *wrong)
