"""Attention of encoders against the definition: whole pictures, windows, odd sizes."""

from __future__ import annotations

import numpy as np
import pytest
from samples import FEW, agree, close, normal

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


@pytest.mark.parametrize(("rows", "keys"), [(1, 1), (40, 12), (5, 700)])
def test_scores_that_are_capped(ops, rows, keys):
    """A part for each row, with keys of its own."""
    q, (_, k, v) = 4 * normal(rows, 3, 32), inputs(rows * keys, 3, 3, 32)
    first, last = np.arange(rows, dtype=np.int32) % keys, np.full(rows, keys, np.int32)

    def capped(o, cap):
        given = (o.constant(a) for a in (q, k, v, first, last))
        return o.attend_dense(*given, scale=0.2, parts=rows, softcap=cap)

    agree(ops, lambda o: capped(o, 2.0), 3e-6)
    assert keys == 1 or np.abs(capped(ops, 2.0).numpy() - capped(ops, 0.0).numpy()).max() > 0.01


def test_scores_with_a_bias_have_no_cap(ops):
    given = [ops.constant(a) for a in (*inputs(6, 2, 2, 24), *spans(6), np.zeros((6, 2, 6), np.float32))]
    with pytest.raises(ModelError, match="no cap"):
        ops.attend_dense(*given[:5], scale=1.0, bias=given[5], softcap=2.0)


def biased(o, q, k, v, first, last, bias, parts=1):
    given = (o.constant(a) for a in (q, k, v, first, last))
    return o.attend_dense(*given, scale=0.2, parts=parts, bias=o.constant(bias))


@pytest.mark.parametrize(("heads", "kv", "width"), SHAPES)
@pytest.mark.parametrize(("rows", "keys"), [(1, 1), (65, 130), (130, 63), (3, 1100), (700, 530)])
def test_bias(ops, heads, kv, width, rows, keys):
    q, (_, k, v) = normal(rows, heads, width), inputs(keys, heads, kv, width)
    first, last = np.zeros(rows, np.int32), np.full(rows, keys, np.int32)
    bias = 3 * normal(rows, heads, keys, seed=3)
    agree(ops, lambda o: biased(o, q, k, v, first, last, bias), 6e-6)
    agree(ops, lambda o: biased(o, q, k, v, first, last, bias[:, :1].copy()), 6e-6)
    if keys > 1:
        none = biased(ops, q, k, v, first, last, 0 * bias).numpy()
        np.testing.assert_array_equal(none, dense(ops, q, k, v, first, last, 0.2).numpy())
        assert np.abs(none - biased(ops, q, k, v, first, last, bias).numpy()).max() > 0.01


@pytest.mark.parametrize("rows", [9, 18])
@pytest.mark.parametrize("heads", [1, 4])
def test_bias_of_parts_and_windows(ops, rows, heads):
    """18 rows of queries in two parts; a bias of 9 serves both."""
    q, (_, k, v) = normal(18, 4, 40), inputs(2 * 530, 4, 2, 40)
    first, last = np.int32([*[0] * 5, 3, 70, 514, 7] * 2), np.int32([530, 1, 0, 100, 529, 8, 530, 520, 530] * 2)
    bias = 3 * normal(rows, heads, 530, seed=3)
    agree(ops, lambda o: biased(o, q, k, v, first, last, bias, parts=2), 6e-6)


def test_bias_hides_keys(ops):
    q, k, v = inputs(1100, 2, 1, 40)
    first, last = np.zeros(1100, np.int32), np.full(1100, 1100, np.int32)
    bias = np.where(np.arange(1100) < np.arange(1100)[:, None], 0, -np.inf)[:, None].astype(np.float32)
    got = biased(ops, q, k, v, first, last, bias).numpy()
    agree(ops, lambda o: biased(o, q, k, v, first, last, bias), 6e-6)
    close(got, dense(ops, q, k, v, first, np.arange(1100, dtype=np.int32), 0.2).numpy(), 6e-6)
    assert not got[0].any()
    assert got[1:].any((1, 2)).all()


@pytest.mark.parametrize("rows", [1, 5, 97])
def test_a_biased_row_has_the_same_bits_in_any_company(teams, rows):
    q, k, v = inputs(1100, 3, 1, 72)
    first, last, bias = np.zeros(1100, np.int32), np.full(1100, 1100, np.int32), normal(1100, 3, 1100, seed=3)
    whole = biased(teams[1].eager(), q, k, v, first, last, bias).numpy()
    for start in (0, 333, 1100 - rows):
        part = slice(start, start + rows)
        got = biased(teams[3].eager(), q[part], k, v, first[part], last[part], bias[part]).numpy()
        np.testing.assert_array_equal(got, whole[part])


def test_bias_in_a_recorded_program(cpu):
    ops, tape = cpu.record()
    q, k, v = inputs(100, 2, 2, 32)
    bias = normal(100, 2, 100, seed=3)
    x = tape.input(ops, "bias", bias.shape, "f32")
    given = [ops.constant(a) for a in (q, k, v, *spans(60, 40))]
    program = tape.finish({"y": ops.attend_dense(*given, scale=0.2, bias=x)})
    for values in (bias, -bias):
        program.inputs["bias"][:] = values
        program.run()
        np.testing.assert_array_equal(program.output("y"), biased(cpu.eager(), q, k, v, *spans(60, 40), values).numpy())


@pytest.mark.parametrize("shape", [(6, 4, 3), (5, 4, 3), (6, 3, 6), (6, 4, 12), (4, 1, 6), (6, 24)])
def test_a_bias_of_another_shape_is_refused(ops, shape):
    q, k, v = inputs(12, 4, 2, 24)
    with pytest.raises(ModelError, match=r"the bias is .*; \(12 or 6, 4 or 1, 6\) is needed"):
        biased(ops, q, k, v, *spans(6, 6), np.zeros(shape, np.float32), parts=2)
