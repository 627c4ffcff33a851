"""Matrices of a file as a network gets them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from opsin.errors import ModelError
from opsin.gguf import File, NewTensor, write
from opsin.nn.module import FileReader
from opsin.ops.reference import DenseWeight, Reference
from opsin.quants import BY_NAME

RANDOM = np.random.default_rng(0)
KERNEL = RANDOM.standard_normal((5, 3, 2, 2)).astype(np.float32)
MATRIX = RANDOM.standard_normal((7, 64)).astype(np.float32)


@pytest.fixture
def reader(tmp_path):
    def tensor(name, values, kind):
        blocks = BY_NAME[kind].encode(values.reshape(-1, BY_NAME[kind].elements))
        return NewTensor(name, values.shape, BY_NAME[kind].id, blocks.reshape(-1))

    tensors = [
        tensor("kernel.weight", KERNEL, "F32"), tensor("half.weight", KERNEL, "F16"),
        tensor("blocks.weight", MATRIX, "Q8_0"), tensor("vector.weight", MATRIX[0], "F32"),
    ]  # fmt: skip
    write(tmp_path / "file.gguf", {"general.architecture": "clip"}, tensors)
    with File.open(tmp_path / "file.gguf") as file:
        yield FileReader(file, Reference())


def dense(weight):
    assert isinstance(weight, DenseWeight)
    return weight.values


def test_a_kernel_is_a_matrix_of_all_its_inputs(reader):
    assert np.array_equal(dense(reader.weight("kernel.weight")), KERNEL.reshape(5, 12))
    assert np.array_equal(dense(reader.weight("half.weight")), KERNEL.reshape(5, 12).astype(np.float16))


@pytest.mark.parametrize("name", ["kernel.weight", "half.weight", "blocks.weight"])
def test_a_transposed_matrix_has_the_same_values(reader, name):
    assert np.array_equal(dense(reader.weight(name, change=np.transpose)), dense(reader.weight(name)).T)


def test_a_matrix_is_read_in_parts_as_it_is_whole(reader):
    seen = []
    reader.ops.pack = lambda raw, rounded=False: seen.append(raw)
    reader.weight("kernel.weight", change=np.transpose)
    (raw,) = seen
    parts = [np.empty((last - first) * 20, np.uint8) for first, last in pairwise([0, 5, 12])]
    for (first, last), part in zip(pairwise([0, 5, 12]), parts, strict=True):
        raw.read(first, last, part)
    assert np.array_equal(np.concatenate(parts).view(np.float32).reshape(12, 5), KERNEL.reshape(5, 12).T)


def test_a_vector_is_no_matrix(reader):
    with pytest.raises(ModelError, match=r"vector.weight is \(64,\); two dimensions"):
        reader.weight("vector.weight")


@pytest.mark.parametrize("name", ["kernel.weight", "blocks.weight"])
def test_some_rows_in_another_order(reader, name):
    order = np.array([3, 4, 1, 0, 2, 2], np.int32)
    assert np.array_equal(dense(reader.weight(name, rows=lambda count: order)), dense(reader.weight(name))[order])
    assert np.array_equal(dense(reader.weight(name, rows=lambda count: np.arange(count))), dense(reader.weight(name)))


def test_some_rows_are_read_in_parts(reader):
    seen = []
    reader.ops.pack = lambda raw, rounded=False: seen.append(raw)
    reader.weight("kernel.weight", rows=lambda count: np.array([3, 4, 1, 0], np.int32))
    (raw,) = seen
    assert raw.shape == (4, 12)
    parts = [np.empty((last - first) * 48, np.uint8) for first, last in pairwise([0, 1, 1, 4])]
    for (first, last), part in zip(pairwise([0, 1, 1, 4]), parts, strict=True):
        raw.read(first, last, part)
    assert np.array_equal(np.concatenate(parts).view(np.float32).reshape(4, 12), KERNEL.reshape(5, 12)[[3, 4, 1, 0]])
