"""Encoding: gguf-py's bytes where it has an encoder, and a refusal where a weight cannot be kept."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from hard_blocks import make_weights

from opsin.errors import ModelError
from opsin.quants import BY_NAME, TYPES, QuantType

IN_GGUF = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4"]
ENCODED = [kind for kind in TYPES.values() if kind.encode is not None]
SCALED = [kind for kind in ENCODED if kind.elements > 1]


def encode(kind: QuantType, values: np.ndarray) -> np.ndarray:
    assert kind.encode is not None
    return kind.encode(values)


@pytest.mark.parametrize("name", IN_GGUF)
def test_encode_equals_gguf(name: str) -> None:
    kind = BY_NAME[name]
    values = make_weights(kind.elements if kind.elements > 1 else 64).reshape(-1, kind.elements)
    with np.errstate(all="ignore"):
        expected = gguf.quants.quantize(values, gguf.GGMLQuantizationType(kind.id))
    blocks = encode(kind, values)
    assert blocks.dtype == np.uint8
    assert np.array_equal(blocks, expected.view(np.uint8).reshape(len(values), kind.bytes))


@pytest.mark.parametrize("kind", ENCODED, ids=lambda kind: kind.name)
def test_zeros_stay_zeros(kind: QuantType) -> None:
    values = np.zeros((3, kind.elements), dtype=np.float32)
    assert (kind.decode(encode(kind, values)) == 0).all()


@pytest.mark.parametrize("kind", ENCODED, ids=lambda kind: kind.name)
def test_no_values_encode_to_no_blocks(kind: QuantType) -> None:
    assert encode(kind, np.zeros((0, kind.elements), dtype=np.float32)).shape == (0, kind.bytes)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", SCALED, ids=lambda kind: kind.name)
def test_a_weight_that_is_no_number_is_refused(kind: QuantType, bad: float) -> None:
    values = make_weights(kind.elements)[:5]
    values[2, 3] = bad
    with pytest.raises(ModelError, match="NaN"):
        encode(kind, values)


def test_f16_refuses_what_it_would_turn_into_infinity() -> None:
    kind = BY_NAME["F16"]
    with pytest.raises(ModelError, match="too large for F16"):
        encode(kind, np.array([[1.0], [70000.0]], dtype=np.float32))
    kept = encode(kind, np.array([[np.inf], [np.nan], [-np.inf]], dtype=np.float32))
    assert np.array_equal(kind.decode(kept)[:, 0], [np.inf, np.nan, -np.inf], equal_nan=True)


def test_bf16_rounds_to_even_and_keeps_nan() -> None:
    bits = np.array([[0x3F808000], [0x3F818000], [0x3F808001], [0x7F800001], [0xFFFFFFFF]], dtype=np.uint32)
    codes = encode(BY_NAME["BF16"], bits.view(np.float32)).view("<u2")[:, 0]
    assert [hex(code) for code in codes] == ["0x3f80", "0x3f82", "0x3f81", "0x7fc0", "0xffff"]


def test_mxfp4_keeps_what_it_can_hold_exactly() -> None:
    kind = BY_NAME["MXFP4"]
    values = np.resize([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.5, -1, -1.5, -2, -3, -4, -6], (1, 32)).astype(np.float32)
    for power in (-100, -1, 0, 100):
        scaled = values * np.float32(2.0**power)
        assert np.array_equal(kind.decode(encode(kind, scaled)), scaled)
