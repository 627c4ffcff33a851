"""What towers' settings become: sizes, colours, the activation; and matrices that hold several."""

from __future__ import annotations

import numpy as np
import pytest

from opsin.errors import ModelError
from opsin.gguf.rules import Settings
from opsin.gguf.vision_rules import normalisation_keys, part, part_shape, projector_keys, siglip, tower_sizes

DEFAULTS = {
    "image_size": 224, "patch_size": 32, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12,
}  # fmt: skip


def written(keys, tree):
    settings, found = Settings("config.json", tree), {}
    for key in keys:
        value = settings.get(key.path, key.kind, key.default) if isinstance(key.path, str) else key.path(settings)
        if value is not None:
            found[key.name.removeprefix("clip.")] = value
    return found


def test_sizes_of_a_tower_are_told_or_its_class_s():
    assert written(tower_sizes(DEFAULTS), {"vision_config": {"image_size": 512, "num_hidden_layers": 3}}) == {
        "vision.image_size": 512, "vision.patch_size": 32, "vision.embedding_length": 768,
        "vision.feed_forward_length": 3072, "vision.block_count": 3, "vision.attention.head_count": 12,
    }  # fmt: skip


def test_colours_are_those_of_the_preprocessor_or_the_family_s():
    keys = normalisation_keys((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    told = written(keys, {"preprocessor": {"image_mean": [0, 1, 0.5]}})
    assert told == {"vision.image_mean": [0.0, 1.0, 0.5], "vision.image_std": [0.25, 0.25, 0.25]}


@pytest.mark.parametrize(
    ("told", "flags"),
    [("gelu", {"use_gelu": True}), ("gelu_pytorch_tanh", {"use_gelu": True}), ("silu", {"use_silu": True}),
     ("quick_gelu", {}), (None, {"use_silu": True})],
)  # fmt: skip
def test_the_activation_is_a_flag_or_the_quick_one(told, flags):
    tree = {"vision_config": {"hidden_act": told}}
    assert written(projector_keys("mlp", "silu"), tree) == {
        "has_vision_encoder": True,
        "projector_type": "mlp",
        **flags,
    }


def test_an_activation_that_no_key_says_is_refused():
    with pytest.raises(ModelError, match="vision_config.hidden_act is 'relu6'"):
        written(projector_keys("mlp", "gelu"), {"vision_config": {"hidden_act": "relu6"}})


def test_a_tower_s_tensors_lie_below_its_name():
    names = {rule.source: rule.target for rule in siglip("tower")}
    assert names["tower.encoder.layers.{n}.mlp.fc2"] == "v.blk.{n}.ffn_down"
    assert names["tower.post_layernorm"] == "v.post_ln"
    assert all(source.startswith("tower.") and target.startswith("v.") for source, target in names.items())
    assert len(set(names.values())) == len(names)
    assert [rule.target for rule in siglip("tower") if rule.type] == ["v.position_embd"]


@pytest.mark.parametrize("shape", [(6,), (6, 2), (6, 2, 3)])
def test_parts_of_a_matrix_are_all_of_it_in_order(shape):
    whole = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    parts = [part(i, 3)(whole, Settings("config.json", {})) for i in range(3)]
    assert [each.shape for each in parts] == 3 * [part_shape(3)(shape, Settings("config.json", {}))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
