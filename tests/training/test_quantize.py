"""Our Q4_K encoder writes what gguf reads, closely."""

from __future__ import annotations

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")

from training.quantize import encode_q4_k  # noqa: E402


def test_encoded_matrix_is_read_back_closely() -> None:
    """The error is that of four bits."""
    values = np.random.default_rng(0).normal(0, 0.05, (7, 512)).astype(np.float32)
    back = gguf.quants.dequantize(encode_q4_k(values), gguf.GGMLQuantizationType.Q4_K)
    assert back.shape == values.shape
    assert np.sqrt(np.mean((back - values) ** 2)) < 0.09 * values.std()


def test_zero_rows_stay_zero() -> None:
    """No division by nothing."""
    back = gguf.quants.dequantize(encode_q4_k(np.zeros((2, 256), np.float32)), gguf.GGMLQuantizationType.Q4_K)
    assert not back.any()


def test_odd_rows_are_refused() -> None:
    """A row must hold whole blocks."""
    with pytest.raises(ValueError, match="multiple of 256"):
        encode_q4_k(np.zeros((2, 300), np.float32))
