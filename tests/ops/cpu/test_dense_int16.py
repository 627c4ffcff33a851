"""Linear layers of encoders by 16-bit integers, where the CPU has the instruction: against their definition in float64."""

from __future__ import annotations

import numpy as np
import pytest
from samples import close, held, normal, raw

from opsin.ops.reference import Reference

KINDS = ("F16", "BF16")
BLOCK = 128


@pytest.fixture(autouse=True)
def instruction(cpu):
    if cpu.eager().tape.code.isa.dot != "vpdpbusd":
        pytest.skip("this set of instructions keeps floats")


def rounded(x: np.ndarray) -> np.ndarray:
    """What `quantise_int16` makes of rows, in float64: blocks as long as 46334, and no value above 32767."""
    rows, width = x.shape
    blocks = np.pad(x.astype(np.float64), ((0, 0), (0, -width % BLOCK))).reshape(rows, -1, BLOCK)
    most, length = np.abs(blocks).max(2, keepdims=True), np.linalg.norm(blocks, axis=2, keepdims=True)
    scale = np.maximum(most / 32767, length / 46334)
    whole = np.rint(blocks / np.where(scale > 0, scale, 1))
    return (whole * scale).reshape(rows, -1)[:, :width]


def run(ops, x, tensor, *extra, **options):
    return ops.linear(ops.constant(x), ops.pack(tensor, encoder=True), *extra, **options)


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
    close(run(ops, x, tensor).numpy(), plain, 3e-5)  # a value at the middle may be rounded the other way
    close(run(ops, x, tensor, ops.constant(bias), ops.constant(residual)).numpy(), plain + bias + residual, 3e-5)
