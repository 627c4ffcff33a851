"""The file of experts that speed is measured on: a router and experts in every layer, in the mix's formats."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import opsin
from opsin.gguf import File

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
import random_experts


def test_it_is_a_model_of_experts_that_answers(tmp_path):
    shapes = replace(
        random_experts.SIZES, layers=8, width=256, hidden=512, heads=4, kv_heads=2, head=64, vocabulary=1024
    )
    path = random_experts.write(tmp_path, shapes, random_experts.Mixture(experts=8, used=2, hidden=256))
    with File.open(path) as file:
        kinds = [file.tensors[f"blk.{i}.ffn_down_exps.weight"].kind.name for i in range(8)]
        assert file.tensors["blk.0.ffn_up_exps.weight"].shape == (8, 256, 256)
    assert [i for i, kind in enumerate(kinds) if kind == "Q6_K"] == [0, 3, 6, 7]
    with opsin.load(path, threads=2, context=256) as model:
        logits = model.logits(list(range(5, 45)))
    assert np.isfinite(logits).all() and logits.std() > 0.1
