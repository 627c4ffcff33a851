"""Checkpoints on the hub were saved by many versions of transformers: all spellings become the same file."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("torch")
hf_folders = pytest.importorskip("hf_folders", reason="needs transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from opsin.convert.hf import convert  # noqa: E402
from opsin.gguf import File  # noqa: E402
from opsin.gguf.rules import canonical  # noqa: E402

MEDIA = ("vision_tower.", "multi_modal_projector.", "visual.")


def spell(text: str, head: str, media: str, inner: str = ""):
    """A spelling: what stands before the text's body, its head, and parts of pictures; and within the tower's."""

    def rename(name: str) -> str:
        if name.startswith(MEDIA):
            return media + name.replace("vision_tower.", f"vision_tower.{inner}", 1)
        return (head if name.startswith("lm_head") else text) + name

    return rename


SPELLINGS = {
    "gemma3": {
        "as on the hub": spell("language_model.model.", "language_model.", "", "vision_model."),
        "as in memory": spell("model.language_model.", "", "model."),
        "as in memory, with the tower's inner name": spell("model.language_model.", "", "model.", "vision_model."),
    },
    "qwen2vl": {
        "as on the hub": spell("model.", "", ""),
        "as in memory": spell("model.language_model.", "", "model."),
    },
    "qwen3vl": {"as on the hub": spell("model.language_model.", "", "model.")},
}
CASES = [(family, spelling) for family, known in SPELLINGS.items() for spelling in known]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders by family, with a head of their own."""
    made = {}
    for family in SPELLINGS:
        made[family] = tmp_path_factory.mktemp(family) / "hf"
        hf_folders.save(made[family], family, tied=False)
    return made


def contents(folder, tmp_path, *, vision=True):
    (path,) = convert(folder, tmp_path / f"{len(list(tmp_path.iterdir()))}.gguf", format="f32", vision=vision).paths
    with File.open(path) as file:
        keys = {k: v if isinstance(v, str) else np.array(v).tolist() for k, v in file.metadata.items()}
        del keys["general.name"]  # the folder's
        return keys, {name: file.read(name).tobytes() for name in file.tensors}


def respell(folder, rename):
    path = folder / "model.safetensors"
    renamed = {rename(canonical(name)): value for name, value in load_file(path).items()}
    save_file(renamed, path)
    return set(renamed)


@pytest.mark.parametrize(("family", "spelling"), CASES)
def test_every_spelling_of_names_becomes_the_same_file(saved, tmp_path, family, spelling):
    folder = shutil.copytree(saved[family], tmp_path / "respelt")
    names = respell(folder, SPELLINGS[family][spelling])
    assert any("lm_head" in name for name in names)
    wanted, made = contents(saved[family], tmp_path), contents(folder, tmp_path)
    assert "output.weight" in made[1] and any(name.startswith("v.blk.") for name in made[1])
    assert made == wanted


@pytest.mark.parametrize("same", [True, False], ids=["the embeddings again", "another"])
def test_a_stored_head_is_left_out_only_where_it_is_the_embeddings_again(saved, tmp_path, same):
    folder = shutil.copytree(saved["gemma3"], tmp_path / "tied")
    change(folder, lambda tree: tree["text_config"].update(tie_word_embeddings=True))
    if same:
        path = folder / "model.safetensors"
        tensors = load_file(path)
        table = next(value for name, value in tensors.items() if canonical(name) == "embed_tokens.weight")
        save_file({name: table.clone() if "lm_head" in name else value for name, value in tensors.items()}, path)
    assert ("output.weight" in contents(folder, tmp_path)[1]) is not same


def change(folder, edit):
    path = folder / "config.json"
    tree = json.loads(path.read_text())
    edit(tree)
    path.write_text(json.dumps(tree))


def test_settings_of_text_at_the_root_become_the_same_file(saved, tmp_path):
    """As Qwen2-VL's first checkpoints have them, with the rope's parameters under their old name."""

    def flatten(tree):
        text = tree.pop("text_config")
        rope = text.pop("rope_parameters")
        kept = {key: value for key, value in text.items() if key not in ("model_type", "architectures")}
        scaling = {"type": "mrope", "mrope_section": rope["mrope_section"]}
        tree.update({**kept, "rope_theta": rope["rope_theta"], "rope_scaling": scaling})

    folder = shutil.copytree(saved["qwen2vl"], tmp_path / "old")
    change(folder, flatten)
    assert contents(folder, tmp_path) == contents(saved["qwen2vl"], tmp_path)


def test_gemma_s_old_settings_become_the_same_file(saved, tmp_path):
    """A period of layers instead of their list, and the bases of the two ropes beside each other."""

    def age(tree):
        text = tree["text_config"]
        text.pop("layer_types")
        rope = text.pop("rope_parameters")
        full = rope["full_attention"]
        text.update(
            sliding_window_pattern=3,
            rope_theta=full["rope_theta"],
            rope_local_base_freq=rope["sliding_attention"]["rope_theta"],
            rope_scaling={"rope_type": full["rope_type"], "factor": full["factor"]},
        )

    folder = shutil.copytree(saved["gemma3"], tmp_path / "old")
    change(folder, age)
    assert contents(folder, tmp_path) == contents(saved["gemma3"], tmp_path)


def test_the_sizes_of_gemma_s_class_count_where_the_hub_is_silent(saved, tmp_path):
    """gemma-3-4b-it tells eight settings of its text; the rest is what its class takes."""
    from opsin.gguf.rules import Settings
    from opsin.models import rules

    (text,) = [rule for rule in rules() if rule.part == "text" and rule.architecture == "gemma3"]
    told = {
        "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
    }  # fmt: skip
    settings, found = Settings("config.json", told, text.defaults), {}
    for key in text.keys:
        value = settings.get(key.path, key.kind, key.default) if isinstance(key.path, str) else key.path(settings)
        if value is not None:
            found[key.name.removeprefix("{arch}.")] = value
    assert found == {
        "vocab_size": 262208, "context_length": 131072, "embedding_length": 2560, "block_count": 34,
        "feed_forward_length": 10240, "attention.head_count": 8, "attention.head_count_kv": 4,
        "attention.key_length": 256, "attention.value_length": 256, "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 1e6, "rope.freq_base_swa": 1e4, "rope.scaling.type": "linear", "rope.scaling.factor": 8.0,
        "attention.sliding_window": 1024,
    }  # fmt: skip
