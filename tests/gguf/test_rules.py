"""What rules of conversion say: settings by path, names of every version of transformers, and changes of values."""

from __future__ import annotations

import numpy as np
import pytest

from opsin.errors import FileError, ModelError
from opsin.gguf.rules import Settings, canonical, neighbours, plus_one
from opsin.gguf.text_rules import context, head_width, rope_type

TREE = {"a": {"b": 3, "none": None}, "n": 5, "x": 0.5, "yes": True, "list": [1, 2], "none": None}


def settings(tree=None, **defaults):
    return Settings("config.json", TREE if tree is None else tree, defaults)


def test_the_first_path_that_leads_somewhere_counts():
    assert settings().find("a.c|a.none|a.b|n") == 3
    assert settings().find("a.b.c|nothing") is None


def test_a_default_counts_where_nothing_is_said_and_null_says_nothing_is_meant():
    assert settings(m=7).find("m") == 7
    assert settings(n=7).find("n") == 5
    assert settings(none=7).find("none") is None


@pytest.mark.parametrize(
    ("path", "kind", "value"),
    [("n", "int", 5), ("n", "int32", 5), ("n", "float", 5.0), ("x", "float", 0.5), ("yes", "bool", True),
     ("list", "ints", [1, 2]), ("list", "floats", [1.0, 2.0])],
)  # fmt: skip
def test_values_have_the_kind_that_was_asked_for(path, kind, value):
    assert settings().get(path, kind) == value
    assert type(settings().get(path, kind)) is type(value)


@pytest.mark.parametrize(
    ("path", "kind"),
    [("x", "int"), ("yes", "int"), ("yes", "float"), ("n", "str"), ("n", "bool"), ("n", "ints"), ("a", "floats")],
)
def test_values_of_another_kind_are_refused(path, kind):
    with pytest.raises(FileError, match=f"config.json: {path} is"):
        settings().get(path, kind)


@pytest.mark.parametrize(("value", "kind"), [(-1, "int"), (1 << 32, "int"), (-1, "int32"), (1 << 31, "int32")])
def test_a_whole_number_that_no_key_holds_is_refused(value, kind):
    with pytest.raises(FileError, match=f"config.json: size is {value}"):
        settings({"size": value}).get("size", kind)


@pytest.mark.parametrize("value", [0, 1 << 31])
def test_counts_begin_at_one(value):
    with pytest.raises(FileError, match=f"config.json: size is {value}"):
        settings({"size": value}).number("size|width")


def test_what_is_missing_is_named():
    with pytest.raises(FileError, match="config.json does not say width"):
        settings().get("width|size", "int")
    assert settings().get("width", "int", None) is None


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("model.layers.0.mlp.up_proj.weight", "layers.0.mlp.up_proj.weight"),
        ("language_model.model.layers.0.mlp.up_proj.weight", "layers.0.mlp.up_proj.weight"),
        ("model.language_model.layers.0.mlp.up_proj.weight", "layers.0.mlp.up_proj.weight"),
        ("model.text_model.norm.weight", "norm.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("llm.model.layers.0.mlp.up_proj.weight", "layers.0.mlp.up_proj.weight"),
        ("llm.lm_head.weight", "lm_head.weight"),
        ("vpm.embeddings.x", "vpm.embeddings.x"),
        ("vision_tower.vision_model.encoder.x", "vision_tower.encoder.x"),
        ("model.vision_tower.encoder.x", "vision_tower.encoder.x"),
        ("model.visual.blocks.0.x", "visual.blocks.0.x"),
        ("visual.blocks.0.x", "visual.blocks.0.x"),
        ("model.vision_model.encoder.x", "vision_model.encoder.x"),
        ("model.connector.modality_projection.proj.weight", "connector.modality_projection.proj.weight"),
        ("model.multi_modal_projector.linear_1.weight", "multi_modal_projector.linear_1.weight"),
    ],
)
def test_names_of_every_version_become_one(name, wanted):
    assert canonical(name) == wanted


def test_halves_become_neighbours():
    """Two heads of four rows: row i of a head turns with row i + 2, and they come to stand together."""
    tree = settings({"heads": 2})
    rows = np.arange(8, dtype=np.float32)
    assert neighbours("heads")(rows, tree).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    matrix = np.stack([rows, rows + 10], 1)
    assert neighbours("heads")(matrix, tree)[:, 1].tolist() == [10, 12, 11, 13, 14, 16, 15, 17]
    with pytest.raises(FileError, match="9 rows are no 2 heads"):
        neighbours("heads")(np.zeros(9, np.float32), tree)


def test_norms_get_their_one():
    assert plus_one(np.array([0.5, -1], np.float32), settings()).tolist() == [1.5, 0]


def test_the_width_of_a_head_is_told_or_computed():
    sizes = {"hidden_size": 64, "num_attention_heads": 4}
    assert head_width(settings(sizes)) == 16
    assert head_width(settings(sizes | {"head_dim": 32})) == 32
    assert head_width(settings(sizes | {"head_dim": None})) == 16


@pytest.mark.parametrize(
    ("told", "positions"),
    [({}, 1000), ({"sliding_window": None}, 1000), ({"sliding_window": 300}, 300), ({"sliding_window": 5000}, 1000),
     ({"sliding_window": 300, "use_sliding_window": False}, 1000)],
)  # fmt: skip
def test_a_window_over_every_layer_ends_the_context(told, positions):
    assert context(settings({"max_position_embeddings": 1000, **told})) == positions


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ({}, "default"),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [1]}}, "default"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "default"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "linear"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "yarn"),
        ({"rope_parameters": {"full_attention": {"rope_type": "linear"}, "sliding_attention": {}}}, "linear"),
        ({"rope_scaling": {"rope_type": "llama3", "low_freq_factor": 1}}, "llama3"),
    ],
)
def test_the_rope_s_kind_is_found_in_every_place(told, kind):
    assert rope_type(settings(told)) == kind


@pytest.mark.parametrize("kind", ["longrope", 5])
def test_a_rope_that_cannot_be_said_is_refused(kind):
    with pytest.raises(ModelError, match="the rope is scaled by"):
        rope_type(settings({"rope_scaling": {"rope_type": kind, "factor": 2.0}}))
