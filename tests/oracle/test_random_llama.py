"""The files that speed is measured on are valid, varied, and scaled as trained weights are."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
import random_llama

SHAPES = random_llama.Shapes(layers=8, width=256, hidden=768, heads=8, kv_heads=2, head=32, vocabulary=1024)


@pytest.fixture(scope="module", params=sorted(random_llama.MIXES))
def written(request, tmp_path_factory):
    path = random_llama.write(tmp_path_factory.mktemp("files"), request.param, SHAPES)
    return request.param, {tensor.name: tensor for tensor in GGUFReader(path).tensors}


def test_formats_are_those_of_the_mix(written):
    mix, tensors = written
    base = {"q4_k_m": "Q4_K", "q4_0": "Q4_0", "q8_0": "Q8_0"}[mix]
    more = [i for i in range(8) if tensors[f"blk.{i}.ffn_down.weight"].tensor_type.name != base]
    assert more == ([0, 3, 6, 7] if mix == "q4_k_m" else [])
    assert tensors["token_embd.weight"].tensor_type.name == ("Q8_0" if mix == "q8_0" else "Q6_K")
    assert tensors["blk.2.attn_q.weight"].tensor_type.name == base


def test_weights_have_the_deviation_of_trained_ones_and_no_bias(written):
    for name, gain in (("ffn_gate", 1.0), ("ffn_down", 0.25), ("attn_v", 1.0), ("attn_output", 0.25)):
        tensor = written[1][f"blk.0.{name}.weight"]
        weights = dequantize(tensor.data, tensor.tensor_type)
        wanted = gain / np.sqrt(weights.shape[1])
        assert weights.std() == pytest.approx(wanted, rel=0.06), name
        assert abs(weights.mean()) < wanted / 50, name


def test_no_two_rows_are_equal(written):
    embedding = written[1]["token_embd.weight"].data
    assert len(np.unique(embedding, axis=0)) == SHAPES.vocabulary


def test_rope_factors_follow_the_published_llama3_rule():
    factors = random_llama.rope_factors(random_llama.Shapes())
    pairs = np.arange(32)
    wavelength = 2 * np.pi * 500_000.0 ** (pairs / 32)
    assert np.array_equal(factors[wavelength < 8192 / 4], np.ones(np.sum(wavelength < 8192 / 4)))
    assert np.array_equal(factors[wavelength > 8192], np.full(np.sum(wavelength > 8192), 32))
    assert np.all(np.diff(factors) >= 0)
