"""The file of Gemma 4's shapes that speed is measured on runs here and says what its writer meant."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gguf")
sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
import random_gemma4

import opsin
from opsin.gguf import File

SHAPES = random_gemma4.Shapes(
    layers=10, shared=4, width=256, hidden=512, heads=4, head=64, wide_head=128, narrow=256, window=32, vocabulary=1024
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return random_gemma4.write(tmp_path_factory.mktemp("files"), SHAPES)


def test_it_answers(path):
    with opsin.load(path, threads=2) as model:
        logits = model.logits(list(range(300, 400)))
    assert np.isfinite(logits).all() and logits.std() > 0.1 and np.abs(logits).max() <= 30


def test_formats_are_those_of_the_mix(path):
    with File.open(path) as file:
        kinds = {name: info.kind.name for name, info in file.tensors.items()}
    assert kinds["per_layer_token_embd.weight"] == kinds["token_embd.weight"] == "Q6_K"
    assert kinds["blk.5.ffn_gate.weight"] == "Q4_K"
    assert "blk.6.attn_k.weight" not in kinds and "blk.5.attn_k.weight" in kinds
