"""Weights of 16 bits as integers, where the CPU is quicker with them: against their definition in float64."""

from __future__ import annotations

import numpy as np
import pytest
from samples import close, held, normal, raw

from opsin.ops.cpu.code import Kernel
from opsin.ops.reference import Reference

KINDS = ("F16", "BF16")
BLOCK = 128


@pytest.fixture(autouse=True)
def instruction(cpu):
    if cpu.eager().tape.code.isa.dot != "vpdpbusd":
        pytest.skip("this set of instructions keeps floats")


def rounded(x: np.ndarray) -> np.ndarray:
    """What `quantise_int16` makes of rows, in float64: blocks as long as 46320, and no value above 32767."""
    rows, width = x.shape
    blocks = np.pad(x.astype(np.float64), ((0, 0), (0, -width % BLOCK))).reshape(rows, -1, BLOCK)
    most, length = np.abs(blocks).max(2, keepdims=True), np.linalg.norm(blocks, axis=2, keepdims=True)
    scale = np.maximum(most / 32767, length / 46320)
    whole = np.rint(blocks / np.where(scale > 0, scale, 1))
    return (whole * scale).reshape(rows, -1)[:, :width]


def run(ops, x, tensor, *extra, **options):
    return ops.linear(ops.constant(x), ops.pack(tensor, rounded=True), *extra, **options)


def values_of(tensor) -> np.ndarray:
    return Reference().pack(tensor).values


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"), [(1, 1, 1), (5, 7, 33), (6, 127, 64), (25, 1601, 65), (230, 128, 31), (7, 900, 97)]
)
def test_products(ops, kind, rows, inputs, outputs):
    tensor, x = raw(kind, outputs, inputs), normal(rows, inputs)
    x[:, inputs // 2 :] *= 50  # blocks have scales of their own
    bias, residual = normal(outputs), normal(rows, outputs, seed=1)
    plain = rounded(x) @ rounded(values_of(tensor)).T
    for got, wanted in (
        (run(ops, x, tensor), plain),
        (run(ops, x, tensor, ops.constant(bias), ops.constant(residual)), plain + bias + residual),
    ):
        # A value at the middle may be rounded the other way.
        assert np.abs(got.numpy() - wanted).mean() < 2e-6 * np.abs(wanted).max()
        close(got.numpy(), wanted, 2e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inputs", [1, 127, 901])
def test_rows_of_a_table(ops, kind, inputs):
    """A model that ties its head reads the same integers."""
    tensor, ids = raw(kind, 70, inputs), np.array([69, 0, 33, 69], np.int32)
    got = ops.embed(ops.constant(ids), ops.pack(tensor, rounded=True)).numpy()
    wanted = rounded(values_of(tensor))[ids]
    assert np.abs(got - wanted).mean() < 2e-6 * np.abs(wanted).max()
    close(got, wanted, 2e-4)


def test_x_is_rounded_once_for_all_weights_that_read_it(cpu):
    ops, tape = cpu.record()
    x = tape.input(ops, "x", (tape.count("rows", 3), 300), "f32")
    weights = [ops.pack(raw(kind, 40, 300), rounded=True) for kind in KINDS]
    y = [ops.linear(x, w) for w in (*weights, weights[0])]
    tape.finish({"sum": y[0] + y[1] + y[2]})
    assert [entry.title for entry in tape.entries].count(str(Kernel.of("quantise_int16"))) == 1


def test_parts_of_rows_are_rounded_each_by_itself(ops):
    x = normal(3, 400)
    whole = ops.constant(x)
    for start, width in ((0, 200), (100, 200), (100, 70)):
        tensor = raw("F16", 33, width)
        part = ops.linear(whole[:, start : start + width], ops.pack(tensor, rounded=True))
        np.testing.assert_array_equal(part.numpy(), run(ops, x[:, start : start + width], tensor).numpy())


def test_outputs_that_are_not_there_are_zeros(ops):
    """Of the last strip, whatever stands in memory behind the file's rows: what is kept on disk is always the same."""
    _, weight = (ops.pack(raw("F16", outputs, 128), rounded=True) for outputs in (70, 33))
    size = weight.layout.strip_bytes(128)
    last = weight.block.data[size : 2 * size].view(np.int32).reshape(-1, 32)
    assert last[:, 0].any()
    assert not last[:, 1:].any()


def test_it_loses_less_than_the_file_did(ops):
    """A matrix of floats stored as F16: what storing lost, beside what integers lose of weights and rows together."""
    true, x = normal(64, 1024, seed=2), normal(50, 1024)
    tensor = held("F16", true.astype(np.float16).view(np.uint8), 1024)
    exact, stored = (x.astype(np.float64) @ w.T.astype(np.float64) for w in (true, values_of(tensor)))
    lost = np.linalg.norm(run(ops, x, tensor).numpy() - stored)
    assert 0 < lost < np.linalg.norm(stored - exact)


def test_the_longest_blocks_do_not_overflow(ops):
    """Like values are where sums are largest: of all signs alike, and of one value alone."""
    weight = np.ones((32, 300), np.float16)
    weight[5:, 1:], weight[9:] = 0, -weight[9:]
    for x in (np.full((6, 300), 3e4, np.float32), np.full((6, 300), -1e-20, np.float32)):
        wanted = x.astype(np.float64) @ weight.T.astype(np.float64)
        close(
            run(ops, x, held("F16", weight.view(np.uint8), 300)).numpy(), wanted, 3e-4
        )  # like values are rounded alike


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_its_company(teams, kind):
    x, more = normal(300, 400), normal(300, 100)
    weights = {n: team.eager().pack(raw(kind, 77, 200), rounded=True) for n, team in teams.items()}

    def part(threads, rows):
        ops = teams[threads].eager()
        residual = ops.constant(more[rows])[:, 11:88]
        return ops.linear(ops.constant(x[rows])[:, 100:300], weights[threads], None, residual).numpy()

    whole = part(2, slice(None))
    for threads, rows in ((1, slice(0, 1)), (2, slice(7, 20)), (3, slice(90, 199)), (1, slice(None))):
        np.testing.assert_array_equal(part(threads, rows), whole[rows])


def test_an_activation_comes_before_the_residual(ops):
    tensor, x, residual = raw("F16", 77, 200), 3 * normal(30, 200), ops.constant(normal(30, 77, seed=1))
    wanted = ops.activate(run(ops, x, tensor), "gelu") + residual
    np.testing.assert_array_equal(run(ops, x, tensor, None, residual, activation="gelu").numpy(), wanted.numpy())


def test_what_is_not_finite_is_seen_in_its_rows_alone(ops):
    weight = normal(40, 200).astype(np.float16)
    x = normal(9, 200)
    plain = run(ops, x, held("F16", weight.view(np.uint8), 200)).numpy()
    x[2, 5], x[4, 199], weight[7, 150], weight[38, 3] = np.nan, np.inf, np.inf, np.nan
    got = run(ops, x, held("F16", weight.view(np.uint8), 200)).numpy()
    whole = np.ones(9, bool)
    whole[[2, 4]] = False
    others = ~np.isin(np.arange(40), [7, 38])
    np.testing.assert_array_equal(got[whole][:, others], plain[whole][:, others])
    assert not np.isfinite(got[~whole]).any()
    assert not np.isfinite(got[:, ~others]).any()


def test_other_formats_stay(ops):
    x = ops.constant(normal(30, 96))
    for kind in ("F32", "Q8_0"):
        tensor = raw(kind, 33, 96)
        wanted = ops.linear(x, ops.pack(tensor)).numpy()
        np.testing.assert_array_equal(ops.linear(x, ops.pack(tensor, rounded=True)).numpy(), wanted)
    tensor = raw("F16", 33, 96)
    assert (ops.linear(x, ops.pack(tensor)).numpy() != ops.linear(x, ops.pack(tensor, rounded=True)).numpy()).any()
