"""Inputs for the tests of operations, and the comparison of a device with the definition.

OPSIN_TEST_FEW=1 keeps to a few number formats: for runs on another instruction set, where every kernel is new.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from opsin.ops import PAGE, Array, Ops, Raw, Reads
from opsin.ops.reference import Reference
from opsin.quants import BY_NAME

FEW = os.environ.get("OPSIN_TEST_FEW") == "1"
FLOATS = ("F32", "F16") if FEW else ("F32", "F16", "BF16")
# What each adds: 4 bits; a minimum; 4 + 1 bits; 8 bits, biased; 4 + 2 bits and groups of 16; 2 bits; 2 + 1 bits;
# a table of uneven steps.
QUANTISED = (
    ("Q4_0", "Q8_0", "Q4_K", "IQ4_NL")
    if FEW
    else (
        *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
        *("TQ1_0", "TQ2_0", "IQ4_NL", "IQ4_XS", "MXFP4", "NVFP4"),
    )
)
DECODED = () if FEW else ("F64", "I8")  # kept as float weights

Floats = NDArray[np.float32]


def normal(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


def raw(name: str, outputs: int, inputs: int, seed: int = 0) -> Raw:
    """A random matrix in a number format, as a file holds it."""
    kind = BY_NAME[name]
    blocks = outputs * inputs // kind.elements
    values = normal(blocks, kind.elements, seed=seed)
    if kind.encode is not None:
        stored = kind.encode(values)
    elif name == "F64":
        stored = values.astype(np.float64).view(np.uint8)
    else:
        stored = _random_blocks(name, blocks, kind.bytes, seed)
    return held(name, np.ascontiguousarray(stored).reshape(outputs, -1), inputs)


def held(name: str, stored: NDArray[np.uint8], inputs: int) -> Raw:
    """The matrix of these bytes, [outputs, bytes a row]."""

    def read(first: int, last: int, into: NDArray[np.uint8]) -> None:
        into[:] = stored[first:last].reshape(-1)

    return Raw(f"{name} {len(stored)}x{inputs}", BY_NAME[name].id, (len(stored), inputs), read)


def _random_blocks(name: str, blocks: int, size: int, seed: int) -> NDArray[np.uint8]:
    """Blocks of a format that is only read: any bytes, with a scale about 1."""
    stored = np.random.default_rng(seed).integers(0, 256, (blocks, size), np.uint8)
    if name.startswith("IQ4"):
        stored[:, :2] = np.frombuffer(np.float16(0.02).tobytes(), np.uint8)
    return stored


def quantised(x: Floats) -> NDArray[np.float64]:
    """x as linear layers see it: int8 in groups of 32, each with a scale of its largest magnitude / 127."""
    groups = x.reshape(*x.shape[:-1], -1, 32)
    largest = np.abs(groups).max(-1, keepdims=True)
    scale = (largest.astype(np.float64) / 127).astype(np.float32)
    inverse = np.divide(127.0, largest, out=np.zeros(largest.shape), where=largest > 0).astype(np.float32)
    return (np.rint(groups * inverse).astype(np.float64) * scale).reshape(x.shape)


def agree(ops: Ops, run: Callable[[Ops], Array], tolerance: float = 2e-6) -> None:
    """The device's result is the definition's (in float64), to `tolerance` of its largest value."""
    wanted = run(Reference(wide=True)).numpy()
    close(run(ops).numpy(), wanted, tolerance)


def close(got: NDArray[np.generic], wanted: NDArray[np.generic], tolerance: float) -> None:
    assert got.shape == wanted.shape
    largest = np.abs(wanted[np.isfinite(wanted)]).max(initial=1e-30)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * float(largest))


@dataclass
class Cache:
    """Sequences in pages: `lengths` rows each, on the pages that `order` gives out."""

    heads: int
    width: int
    lengths: tuple[int, ...]
    kind: str = "f32"
    seed: int = 0
    scattered: bool = True
    layer: int = 1

    def __post_init__(self) -> None:
        counts = [-(-n // PAGE) for n in self.lengths]
        self.count = sum(counts) + 3
        order = np.arange(self.count)
        if self.scattered:
            order = np.random.default_rng(self.seed + 1).permutation(self.count)
        self.tables = np.zeros((len(counts), max(*counts, 1) if len(counts) > 1 else max(counts[0], 1)), np.int32)
        used = 0
        for i, n in enumerate(counts):
            self.tables[i, :n] = order[used : used + n]
            used += n
        self.k = [normal(n, self.heads, self.width, seed=self.seed + 10 * i) for i, n in enumerate(self.lengths)]
        self.v = [normal(n, self.heads, self.width, seed=self.seed + 10 * i + 5) for i, n in enumerate(self.lengths)]

    def slots(self, sequence: int) -> NDArray[np.int32]:
        places = np.arange(self.lengths[sequence])
        return (self.tables[sequence, places // PAGE] * PAGE + places % PAGE).astype(np.int32)

    def fill(self, ops: Ops):
        """Pages of this content on a device."""
        pages = ops.pages(layers=2, heads=self.heads, width=self.width, count=self.count, kind=self.kind)
        for i in range(len(self.lengths)):
            if self.lengths[i]:
                k, v, slots = (ops.constant(a) for a in (self.k[i], self.v[i], self.slots(i)))
                ops.store(pages, self.layer, k, v, slots)
        return pages

    def reads(self, ops: Ops, rows: list[tuple[int, int, int]]) -> Reads:
        """(sequence, first, last) of each row."""
        columns = np.array(rows, np.int32).reshape(-1, 3).T
        return Reads(ops.constant(self.tables), *(ops.constant(np.ascontiguousarray(c)) for c in columns))
