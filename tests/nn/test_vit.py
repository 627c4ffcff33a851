"""Towers by their definition, and what families do not show: fused projections, layer scales, batches of any size."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from memory_decoder import Made

from opsin.nn.attention import Heads
from opsin.nn.vit import Vit, VitShape, VitWeights, attention_spans, block_order
from opsin.ops.cpu import Operations

SHAPE = VitShape(
    width=48, layers=2, heads=Heads(4, 4, 12, 12**-0.5), patch=4, side=72, eps=1e-6, norm="layer", activation="gelu"
)


def tensors(seed=0):
    random = np.random.default_rng(seed)
    width, inner = SHAPE.width, 80

    def matrix(outputs, inputs, gain=1.0):
        return (random.standard_normal((outputs, inputs)) * gain * inputs**-0.5).astype(np.float32)

    def vector(size, middle=0.0):
        return (middle + 0.3 * random.standard_normal(size)).astype(np.float32)

    made = {"v.patch_embd.weight": matrix(width, SHAPE.values), "v.patch_embd.bias": vector(width)}
    for layer in range(SHAPE.layers):
        sizes = {"attn_q": (width, width, 2), "attn_k": (width, width, 2), "attn_v": (width, width),
                 "attn_out": (width, width), "ffn_up": (inner, width), "ffn_down": (width, inner)}  # fmt: skip
        for name, size in sizes.items():
            made[f"v.blk.{layer}.{name}.weight"] = matrix(*size)
            made[f"v.blk.{layer}.{name}.bias"] = vector(size[0])
        for name in ("ln1", "ln2"):
            made[f"v.blk.{layer}.{name}.weight"] = vector(width, 1.0)
            made[f"v.blk.{layer}.{name}.bias"] = vector(width)
    return made


@pytest.fixture(scope="module")
def open_tower(device):
    def make(made):
        source = Made(device.eager(), made)
        return Vit(source.ops, VitWeights.read(source, "v"), SHAPE)

    return make


def patches(pictures, rows, seed=1):
    return np.random.default_rng(seed).standard_normal((pictures, rows, SHAPE.values)).astype(np.float32)


@pytest.mark.parametrize("rows", [1, 9, 63, 64, 65, 200, 324, 700])
def test_a_batch_equals_its_pictures_one_by_one(open_tower, rows):
    tower, given = open_tower(tensors()), patches(3, rows)
    together = tower.whole(given).numpy()
    alone = [tower.whole(one[None]).numpy() for one in given]
    assert np.array_equal(together, np.concatenate(alone))


def test_pictures_do_not_see_each_other(open_tower):
    tower, given = open_tower(tensors()), patches(2, 50)
    before = tower.whole(given).numpy()
    given[1] += 1
    after = tower.whole(given).numpy()
    assert np.array_equal(before[:50], after[:50])
    assert not np.array_equal(before[50:], after[50:])


def test_windows_keep_rows_apart(open_tower):
    tower, given = open_tower(tensors()), patches(2, 30)

    def run(features):
        x = tower.embed(features)
        return tower.run(x, [attention_spans(x.ops, [0, 10, 25, 30], 2)] * 2).numpy().reshape(2, 30, -1)

    before = run(given)
    given[1, 12] += 1
    after = run(given)
    changed = (before != after).any(-1)
    assert not changed[0].any()
    assert changed[1].tolist() == [10 <= row < 25 for row in range(30)]


def test_one_matrix_of_queries_keys_and_values_is_the_same_as_three(open_tower):
    apart, given = tensors(), patches(1, 20)
    fused = dict(apart)
    for layer in range(SHAPE.layers):
        for kind in ("weight", "bias"):
            parts = [fused.pop(f"v.blk.{layer}.attn_{name}.{kind}") for name in "qkv"]
            fused[f"v.blk.{layer}.attn_qkv.{kind}"] = np.concatenate(parts)
    assert np.array_equal(open_tower(fused).whole(given).numpy(), open_tower(apart).whole(given).numpy())


@pytest.mark.parametrize(("name", "part"), [("ls1", "attn_out"), ("ls2", "ffn_down")])
def test_a_layer_scale_multiplies_what_a_part_adds(open_tower, name, part):
    plain, given = tensors(), patches(1, 20)
    scale = np.linspace(0.5, 2, SHAPE.width, dtype=np.float32)
    folded = dict(plain)
    folded[f"v.blk.1.{part}.weight"] = plain[f"v.blk.1.{part}.weight"] * scale[:, None]
    folded[f"v.blk.1.{part}.bias"] = plain[f"v.blk.1.{part}.bias"] * scale
    scaled = open_tower(plain | {f"v.blk.1.{name}.weight": scale}).whole(given).numpy()
    assert np.abs(scaled - open_tower(folded).whole(given).numpy()).max() < 1e-5
    assert np.abs(scaled - open_tower(plain).whole(given).numpy()).max() > 0.1


def test_attention_is_told_how_exact_the_matrices_are(open_tower, monkeypatch):
    told, right = [], Operations.attend_dense

    def attend(ops, *parts, like, **options):
        told.append(like)
        return right(ops, *parts, like=like, **options)

    monkeypatch.setattr(Operations, "attend_dense", attend)
    tower = open_tower(tensors())
    tower.whole(patches(1, 20))
    assert told == [block.attn.attn_out.weight for block in tower.weights.blk]


@pytest.mark.parametrize("fused", [False, True])
def test_norms_of_q_and_k_see_all_heads_of_a_row(open_tower, monkeypatch, fused):
    given, random = patches(2, 20), np.random.default_rng(4)
    made = tensors() | {
        f"v.blk.{layer}.attn_{name}_norm.weight": random.uniform(0.5, 2, SHAPE.width).astype(np.float32)
        for layer in range(SHAPE.layers) for name in "qk"
    }  # fmt: skip
    seen, right = [], Operations.attend_dense

    def attend(ops, q, k, v, *spans, **options):
        seen.append((q.numpy(), k.numpy()))
        return right(ops, q, k, v, *spans, **options)

    monkeypatch.setattr(Operations, "attend_dense", attend)
    for layer in range(SHAPE.layers if fused else 0):
        for kind in ("weight", "bias"):
            parts = [made.pop(f"v.blk.{layer}.attn_{name}.{kind}") for name in "qkv"]
            made[f"v.blk.{layer}.attn_qkv.{kind}"] = np.concatenate(parts)
    open_tower(made).whole(given)
    normed = [part for layer in seen for part in layer]
    seen.clear()
    plain = {name: values for name, values in made.items() if "_norm" not in name}
    open_tower(plain).whole(given)
    for part, before, name in zip(normed[:2], seen[0], "qk", strict=True):  # of the first layer
        rows = before.reshape(-1, SHAPE.width)
        wanted = rows / np.sqrt((rows**2).mean(-1, keepdims=True) + SHAPE.eps)
        wanted = (wanted * made[f"v.blk.0.attn_{name}_norm.weight"]).reshape(part.shape)
        assert np.abs(part - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_the_class_row_is_left_out(open_tower):
    tower = open_tower(tensors())
    classed = open_tower(tensors() | {"v.class_embd": np.zeros(SHAPE.width, np.float32)})
    given = patches(3, 5)
    x = tower.ops.constant(np.arange(18, dtype=np.float32).repeat(48).reshape(18, 48))
    kept = classed.without_class(x, given).numpy()[:, 0]
    assert kept.tolist() == [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17]
    assert tower.without_class(x, given) is x


def test_a_gate_multiplies_the_inner_layer(open_tower):
    plain, given = tensors(), patches(1, 20)
    gated = dict(plain)
    for layer in range(SHAPE.layers):
        gated[f"v.blk.{layer}.ffn_gate.weight"] = np.zeros((80, 48), np.float32)
        gated[f"v.blk.{layer}.ffn_gate.bias"] = np.full(80, 100, np.float32)  # gelu(100) is 100
        for kind in ("weight", "bias"):
            gated[f"v.blk.{layer}.ffn_up.{kind}"] = plain[f"v.blk.{layer}.ffn_up.{kind}"] / 100
    shifted = {name: value + 100 * ("ffn_up.bias" in name) for name, value in plain.items()}
    for layer in range(SHAPE.layers):  # so that relu leaves everything as it is, and down takes it back
        down = shifted[f"v.blk.{layer}.ffn_down.weight"]
        shifted[f"v.blk.{layer}.ffn_down.bias"] = shifted[f"v.blk.{layer}.ffn_down.bias"] - 100 * down.sum(1)
    theirs = replace(open_tower(shifted), shape=replace(SHAPE, activation="relu")).whole(given).numpy()
    assert np.abs(open_tower(gated).whole(given).numpy() - theirs).max() < 1e-3


def test_places_in_blocks_stand_together():
    assert block_order(4, 4, 2).tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
    assert block_order(2, 4, 2).tolist() == [0, 1, 4, 5, 2, 3, 6, 7]
    assert block_order(2, 3, 1).tolist() == list(range(6))


def test_the_same_code_over_torch_gives_the_same(open_tower):
    """Nothing is asked for that a GPU lacks."""
    pytest.importorskip("torch")
    sys.path.insert(0, str(Path(__file__).parents[1] / "ops"))
    from torch_ops import TorchOps

    given = patches(2, 30)
    source = Made(TorchOps(), tensors())
    twin = Vit(source.ops, VitWeights.read(source, "v"), SHAPE)
    bounds, places = [0, 10, 25, 30], np.stack(np.divmod(np.arange(60) % 30, 6), 1).astype(np.int32)

    def run(tower):
        ops, x = tower.ops, tower.embed(given)
        axis, numbers = np.repeat(np.int32([0, 1]), 3), np.float32([1, 0.2, 0.05] * 2)
        turns = ops.rope_table(ops.constant(places), ops.constant(numbers), axis=ops.constant(axis))
        seen = [attention_spans(ops, bounds, 2), attention_spans(ops, [0, 30], 2)]
        return ops.mean_rows(tower.finish(tower.run(x, seen, turns)), 2).numpy()

    ours, theirs = run(open_tower(tensors())), run(twin)
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


def test_what_stands_after_each_layer_is_what_so_many_layers_give(open_tower):
    tower, given = open_tower(tensors()), patches(2, 9)
    spans = [attention_spans(tower.ops, [0, 9], 2)] * SHAPE.layers
    states = [state.numpy() for state in tower.states(tower.embed(given), spans)]
    wanted = [tower.run(tower.embed(given), spans[: layers + 1]).numpy() for layers in range(SHAPE.layers)]
    assert np.array_equal(states, wanted)


def test_positions_of_a_call_take_the_place_of_the_towers(open_tower):
    tower, given = open_tower(tensors()), patches(2, 9)
    own, other = (np.random.default_rng(n).standard_normal((9, SHAPE.width)).astype(np.float32) for n in (5, 6))
    with_own = replace(tower, position_embeddings=tower.ops.constant(own))
    added = with_own.embed(given, tower.ops.constant(other)).numpy()
    assert np.allclose(added, tower.embed(given).numpy() + np.tile(other, (2, 1)), atol=1e-5)
