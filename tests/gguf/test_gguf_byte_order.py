"""Big-endian files: every scalar of every block is swapped, and nothing else."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from raw_gguf import RawFile, RawTensor

from opsin.gguf import TENSOR_TYPES, File, NewTensor, TensorType, write
from opsin.gguf.byte_order import swap_blocks

# How each block is declared: NumPy's codes of its fields in order, where V is for bytes that keep their place.
LAYOUTS = {
    "F32": "u4", "F16": "u2", "F64": "u8", "I8": "V1", "I16": "u2", "I32": "u4", "I64": "u8", "BF16": "u2",
    "Q4_0": "u2,V16", "Q4_1": "u2,u2,V16", "Q5_0": "u2,u4,V16", "Q5_1": "u2,u2,u4,V16", "Q8_0": "u2,V32",
    "Q8_1": "u2,u2,V32", "Q2_K": "V16,V64,u2,u2", "Q3_K": "V32,V64,V12,u2", "Q4_K": "u2,u2,V12,V128",
    "Q5_K": "u2,u2,V12,V32,V128", "Q6_K": "V128,V64,V16,u2", "Q8_K": "u4,V256,(16,)u2", "IQ2_XXS": "u2,(16,)u4",
    "IQ2_XS": "u2,(32,)u2,V8", "IQ3_XXS": "u2,V64,(8,)u4", "IQ1_S": "u2,V32,(8,)u2", "IQ4_NL": "u2,V16",
    "IQ3_S": "u2,V64,V8,V32,V4", "IQ2_S": "u2,V64,V8,V8", "IQ4_XS": "u2,u2,V4,V128", "IQ1_M": "V32,V16,(4,)u2",
    "TQ1_0": "V48,V4,u2", "TQ2_0": "V64,u2", "MXFP4": "V1,V16", "NVFP4": "V4,V32", "Q1_0": "u2,V16", "Q2_0": "u2,V16",
}  # fmt: skip


def random_blocks(type_id: int, blocks: int = 6) -> np.ndarray:
    size = blocks * TENSOR_TYPES[type_id].block_bytes
    return np.random.default_rng(type_id).integers(0, 256, size, np.uint8)


@pytest.mark.parametrize("kind", TENSOR_TYPES.values(), ids=lambda kind: kind.name)
def test_blocks_are_swapped_as_they_are_declared(kind: TensorType) -> None:
    blocks = random_blocks(kind.id)
    layout = np.dtype([(f"f{place}", code) for place, code in enumerate(_codes(LAYOUTS[kind.name]))])
    assert layout.itemsize == kind.block_bytes
    expected = blocks.view(layout).byteswap().view(np.uint8)
    found = blocks.copy()
    swap_blocks(found, kind)
    assert np.array_equal(found, expected)
    swap_blocks(found, kind)
    assert np.array_equal(found, blocks)


def _codes(layout: str) -> list[object]:
    made: list[object] = []
    for code in (
        layout.replace("(16,)", "16x").replace("(8,)", "8x").replace("(32,)", "32x").replace("(4,)", "4x").split(",")
    ):
        count, _, plain = code.rpartition("x")
        made.append((plain, (int(count),)) if count else plain)
    return made


@pytest.mark.parametrize("name", ["Q4_0", "Q8_0", "Q4_K", "Q6_K", "MXFP4", "NVFP4"])
def test_swapping_is_what_gguf_py_does(name: str) -> None:
    scripts = pytest.importorskip("gguf.scripts.gguf_convert_endian")
    kind = gguf.GGMLQuantizationType[name]
    ours = random_blocks(kind)
    theirs = gguf.ReaderTensor(name, kind, np.empty(0), 0, 0, 0, ours.copy(), None)
    width = TENSOR_TYPES[kind].block_bytes
    for start in range(0, len(ours), width):
        scripts.byteswap_tensors[kind](theirs, start)
    swap_blocks(ours, TENSOR_TYPES[kind])
    assert np.array_equal(ours, theirs.data)


@pytest.mark.parametrize("kind", TENSOR_TYPES.values(), ids=lambda kind: kind.name)
def test_tensors_of_a_big_endian_file_read_as_little_endian(tmp_path: Path, kind: TensorType) -> None:
    blocks = random_blocks(kind.id)
    shape = (2, 3 * kind.block_elements)
    write(tmp_path / "big.gguf", {"number": 1}, [NewTensor("a", shape, kind.id, blocks)], big_endian=True)
    assert (tmp_path / "big.gguf").read_bytes()[:8] == b"GGUF\0\0\0\3"
    with File.open(tmp_path / "big.gguf") as file:
        assert file.tensors["a"].shape == shape
        assert np.array_equal(file.read("a"), blocks)
        for first, count in [(0, 1), (1, 5), (kind.block_bytes, kind.block_bytes), (kind.block_bytes - 1, 2), (3, 0)]:
            part = np.zeros(min(count, blocks.size - first), np.uint8)
            file.read_into("a", part, first)
            assert np.array_equal(part, blocks[first : first + part.size])


def test_a_big_endian_file_of_another_writer_is_read(tmp_path: Path) -> None:
    numbers = np.arange(8, dtype=">f4")
    tensor = RawTensor(b"a", [8], 0, 0, numbers.tobytes())
    raw = RawFile([(b"k", 9, (3, [-2, 300])), (b"n", 11, -5)], [tensor], ">")
    with File.open(raw.save(tmp_path / "big.gguf")) as file:
        assert file.get_ints("k").tolist() == [-2, 300]
        assert file.metadata["k"].dtype.isnative  # type: ignore[union-attr]
        assert file.get_int("n") == -5
        assert file.read("a").view("<f4").tolist() == numbers.tolist()
