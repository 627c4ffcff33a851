"""The random pair that pictures are timed with: it opens, sees, and is scaled as trained weights are."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from PIL import Image

import opsin

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
import random_smolvlm

TEXT = random_smolvlm.Text(layers=2, width=64, hidden=96, heads=4, kv_heads=2)
TOWER = random_smolvlm.Tower(layers=2, width=64, hidden=256, heads=4, side=64, patch=8, fold=4, makes=64)


@pytest.fixture(scope="module", params=["f16", "q8_0"])
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    return (
        random_smolvlm.write_text(folder, request.param, TEXT),
        random_smolvlm.write_tower(folder, request.param, TOWER),
    )


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


def test_a_picture_of_one_tile_stands_in_the_prompt_as_its_rows_and_three_markers(pair, picture):
    with opsin.load(pair[0], mmproj=pair[1], threads=1) as model:
        alone = model.count([{"role": "user", "content": "Hi"}])
        both = model.chat([{"role": "user", "content": [picture, " Hi"]}], max_tokens=3, ignore_eos=True)
        assert both.prompt_tokens == alone + TOWER.rows + 3
        assert both.text is not None
        assert len(both.ids) == 3


def test_rows_of_a_picture_are_near_one_and_differ(pair, picture):
    with opsin.load(pair[1], threads=1) as tower:
        rows = tower.encode(picture).values
    assert rows.shape == (TOWER.rows, TOWER.makes)
    assert rows.std() == pytest.approx(1.0, rel=0.3)
    assert np.abs(np.corrcoef(rows) - np.eye(len(rows))).max() < 0.95


def test_outliers_are_one_channel_in_two_hundred_and_at_least_one(tmp_path):
    plain = {t.name: t.data for t in GGUFReader(random_smolvlm.write_tower(tmp_path, "f32", TOWER)).tensors}
    large = GGUFReader(random_smolvlm.write_tower(tmp_path, "f32", TOWER, outliers=True)).tensors
    large = {tensor.name: tensor.data for tensor in large}
    for name in ("attn_v", "ffn_up"):
        weights = large[f"v.blk.1.{name}.weight"]
        sizes = np.linalg.norm(weights, axis=1) / np.linalg.norm(plain[f"v.blk.1.{name}.weight"], axis=1).mean()
        assert (sizes > 25).sum() == 1, name
        assert (sizes < 2).sum() == len(weights) - 1, name


def test_outliers_leave_attention_alone(tmp_path):
    large = GGUFReader(random_smolvlm.write_tower(tmp_path, "f32", TOWER, outliers=True)).tensors
    norms = {t.name: np.linalg.norm(t.data, axis=1) for t in large if "attn_q.weight" in t.name}
    assert len(norms) == TOWER.layers
    assert all(sizes.max() < 2 * sizes.mean() for sizes in norms.values())


def test_products_are_counted_as_they_are_multiplied():
    shapes = random_smolvlm.Tower()
    each = {"patches": 768 * 768, "square": 4 * 768 * 768 * 12, "inner": 2 * 768 * 3072 * 12}
    assert shapes.products == 2 * (1024 * sum(each.values()) + 64 * 12288 * 576)
