"""Decoding is the definition of a format: it equals gguf-py's, bit for bit."""

from __future__ import annotations

import sys
from types import ModuleType

import gguf
import numpy as np
import pytest
from hard_blocks import make_blocks

from opsin.errors import OpsinError
from opsin.quants import BY_NAME, TYPES, QuantType

# gguf-py decodes no integers, and 0.19 knows these two only by name or not at all.
NOT_IN_GGUF = {"I8", "I16", "I32", "I64", "F64", "Q1_0", "Q2_0"}
KINDS = [kind for kind in TYPES.values() if kind.name not in NOT_IN_GGUF]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_decode_equals_gguf(kind: QuantType) -> None:
    blocks = make_blocks(kind)
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType(kind.id))
    values = kind.decode(blocks)
    assert values.dtype == np.float32
    assert values.shape == (len(blocks), kind.elements)
    assert np.array_equal(values, expected, equal_nan=True)
    number = ~np.isnan(expected)
    assert np.array_equal(np.signbit(values[number]), np.signbit(expected[number]))


@pytest.mark.parametrize("kind", TYPES.values(), ids=lambda kind: kind.name)
def test_no_blocks_decode_to_no_values(kind: QuantType) -> None:
    assert kind.decode(np.zeros((0, kind.bytes), dtype=np.uint8)).shape == (0, kind.elements)


@pytest.mark.parametrize(
    ("name", "dtype", "numbers"),
    [
        ("I8", "<i1", [-128, 0, 127]),
        ("I16", "<i2", [-32768, 1, 32767]),
        ("I32", "<i4", [-(2**31), 5, 2**24]),
        ("I64", "<i8", [-(2**40), 3]),
        ("F64", "<f8", [0.5, -1e300, np.inf]),
    ],
)
def test_plain_numbers_decode_to_their_nearest_float(name: str, dtype: str, numbers: list[float]) -> None:
    blocks = np.array(numbers, dtype=dtype).view(np.uint8).reshape(len(numbers), -1)
    with np.errstate(over="ignore"):
        expected = np.array(numbers).astype(np.float32)
    assert BY_NAME[name].decode(blocks)[:, 0].tolist() == expected.tolist()


def test_q1_0_decodes_bits_to_signs_lowest_first() -> None:
    block = np.zeros((1, 18), dtype=np.uint8)
    block[0, :2] = np.array([2.0], dtype="<f2").view(np.uint8)
    block[0, 2], block[0, 17] = 0b101, 0x80
    values = BY_NAME["Q1_0"].decode(block)[0]
    assert values[:4].tolist() == [2, -2, 2, -2]
    assert values[126:].tolist() == [-2, 2]


def test_q2_0_decodes_pairs_of_bits_lowest_first() -> None:
    block = np.zeros((1, 18), dtype=np.uint8)
    block[0, :2] = np.array([0.5], dtype="<f2").view(np.uint8)
    block[0, 2], block[0, 17] = 0b11100100, 0b01000000
    values = BY_NAME["Q2_0"].decode(block)[0]
    assert values[:4].tolist() == [-0.5, 0, 0.5, 1]
    assert values[60:].tolist() == [-0.5, -0.5, -0.5, 0]


@pytest.mark.parametrize("inside", [(), ("GGMLQuantizationType",), ("quants",)])
def test_a_folder_that_is_called_gguf_is_not_the_package(
    monkeypatch: pytest.MonkeyPatch, inside: tuple[str, ...]
) -> None:
    """A folder beside the program is imported as a package without anything in it."""
    other = ModuleType("gguf")
    other.__path__ = []
    for name in inside:
        setattr(other, name, ModuleType(name))
    for name in [name for name in sys.modules if name.startswith("gguf.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gguf", other)
    with pytest.raises(OpsinError, match="IQ2_XS.*pip install gguf"):
        BY_NAME["IQ2_XS"].decode(np.zeros((1, 74), np.uint8))


def test_a_codebook_without_gguf_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(OpsinError, match="IQ2_XS.*pip install gguf"):
        BY_NAME["IQ2_XS"].decode(np.zeros((1, 74), dtype=np.uint8))
