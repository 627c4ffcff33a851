"""The file of Qwen 3.5's shapes that speed is measured on: valid, varied, scaled as trained weights are."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
import random_qwen35

from opsin.gguf import File
from opsin.models import load_decoder
from opsin.nn.meta import MetaReader

SHAPES = random_qwen35.Shapes(
    layers=8, width=256, hidden=512, heads=4, kv_heads=2, head=64, key_heads=2, value_heads=4, state=64, vocabulary=1024
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return random_qwen35.write(tmp_path_factory.mktemp("files"), SHAPES)


def test_formats_are_those_of_the_mix(path):
    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(path).tensors}
    assert [i for i in range(8) if kinds[f"blk.{i}.ffn_down.weight"] == "Q6_K"] == [0, 3, 6, 7]
    assert kinds["blk.0.attn_qkv.weight"] == "Q5_K"
    assert kinds["blk.3.attn_q.weight"] == kinds["blk.0.ssm_out.weight"] == "Q4_K"


def test_weights_have_the_deviation_of_trained_ones_and_no_bias(path):
    tensors = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    for name, gain in (("attn_qkv", 1.0), ("ffn_gate", 1.0), ("ssm_out", 0.25)):
        tensor = tensors[f"blk.0.{name}.weight"]
        weights = dequantize(tensor.data, tensor.tensor_type)
        wanted = gain / np.sqrt(weights.shape[1])
        assert weights.std() == pytest.approx(wanted, rel=0.06), name
        assert abs(weights.mean()) < wanted / 50, name


def test_a_decoder_takes_it_all(path):
    with File.open(path) as file:
        reader = MetaReader(file)
        decoder = load_decoder(file, reader)
        assert reader.unread() == ()
    assert decoder.states["delta"].layers == 6
    assert decoder.groups["self"].layers == 2
