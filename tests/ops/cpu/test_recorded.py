"""Programs by shape: recorded once, bounded in number, and the same as the operations one by one."""

from __future__ import annotations

import numpy as np
import pytest
from samples import agree, normal, raw

from opsin.ops.cpu import programs


@pytest.fixture
def encoder(ops):
    """build(ops, x, positions), and how often it ran."""
    weight, tensor, asked = ops.pack(raw("F16", 64, 64)), normal(64), []

    def build(o, x, ends):
        asked.append(x.shape)
        y = o.layer_norm(x, ops.constant(tensor), None, 1e-5)
        heads = o.linear(y, weight, activation="gelu").reshape(2, 32)
        first = ops.constant(np.zeros(x.shape[0], np.int32))
        return o.linear(o.attend_dense(heads, heads, heads, first, ends, scale=0.2).reshape(64), weight, None, x)

    return build, asked


def given(rows: int, seed: int = 0):
    return normal(rows, 64, seed=seed), np.full(rows, rows, np.int32)


def test_a_program_gives_what_its_operations_give(ops, encoder):
    build, asked = encoder
    for rows, seed in ((30, 0), (30, 1), (7, 2), (30, 3)):
        x, ends = given(rows, seed)
        alone = build(ops, ops.constant(x), ops.constant(ends)).numpy()
        np.testing.assert_array_equal(ops.recorded("encoder", build, x, ends).numpy(), alone)
    assert len(asked) == 4 + 2  # each shape was recorded once


def test_a_result_lives_on_when_its_program_runs_again(ops, encoder):
    first = ops.recorded("encoder", encoder[0], *given(30))
    before = first.numpy()
    ops.recorded("encoder", encoder[0], *given(30, 1))
    np.testing.assert_array_equal(first.numpy(), before)


def test_another_key_is_another_program(ops):
    x = normal(3, 8)
    for factor in (2.0, 3.0):
        got = ops.recorded(factor, lambda o, a: a * factor, x).numpy()  # noqa: B023
        np.testing.assert_array_equal(got, np.float32(factor) * x)


def test_the_programs_used_last_are_kept(ops, monkeypatch):
    monkeypatch.setattr(programs, "PROGRAMS", 2)
    asked = []

    def build(o, x):
        asked.append(x.shape[0])
        return x * 2.0

    for rows in (1, 2, 1, 3, 1, 2):
        ops.recorded("double", build, normal(rows, 8))
    assert asked == [1, 2, 3, 2]


def test_by_the_definition_it_is_a_call(ops):
    x, y = normal(3, 8), normal(3, 8, seed=1)
    agree(ops, lambda o: o.recorded("sum", lambda _, a, b: a + b, x, y), 1e-7)
