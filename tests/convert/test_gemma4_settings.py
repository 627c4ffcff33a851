"""Gemma 4's settings as the hub has them, where transformers writes those of single layers, become the same file."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("torch")
hf_folders = pytest.importorskip("hf_folders", reason="needs transformers")

from opsin.convert.hf import convert  # noqa: E402
from opsin.errors import ModelError  # noqa: E402
from opsin.gguf import File  # noqa: E402


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gemma4") / "hf"
    hf_folders.save(folder, "gemma4")
    return folder


def keys(folder, tmp_path):
    (path,) = convert(folder, tmp_path / f"{folder.name}.gguf", format="f32").paths
    with File.open(path) as file:
        assert "rope_freqs.weight" in file.tensors
        told = {k: np.array(v).tolist() for k, v in file.metadata.items() if k.startswith("gemma4.")}
        return told, file.read("rope_freqs.weight").tobytes()


def changed(folder, to, edit):
    path = shutil.copytree(folder, to) / "config.json"
    tree = json.loads(path.read_text())
    edit(tree)
    path.write_text(json.dumps(tree))
    return to


def test_numbers_of_layers_that_see_everything_may_stand_for_all_of_them(saved, tmp_path):
    def age(tree):
        del tree["per_layer_config"]
        tree.update(global_head_dim=48, num_global_key_value_heads=1)

    assert keys(changed(saved, tmp_path / "old", age), tmp_path) == keys(saved, tmp_path)


def test_kv_heads_differ_only_where_keys_are_values(saved, tmp_path):
    def age(tree):
        del tree["per_layer_config"]
        tree.update(global_head_dim=48, num_global_key_value_heads=1, attention_k_eq_v=False)

    told, _ = keys(changed(saved, tmp_path / "old", age), tmp_path)
    assert told["gemma4.attention.head_count_kv"] == 2


def test_its_tokenizer_is_written_as_merges(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "merges")
    hf_folders.with_bytes_behind(prefix=False).save_pretrained(folder)
    (path,) = convert(folder, tmp_path / "merges.gguf", format="f32").paths
    with File.open(path) as file:
        assert file.get_str("tokenizer.ggml.model") == "gemma4"
        assert len(file.metadata["tokenizer.ggml.merges"]) > 0


@pytest.mark.parametrize(("edit", "said"), [
    ({"use_bidirectional_attention": "all"}, "embeds texts"),
    ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "ropes of the kinds"),
])  # fmt: skip
def test_what_a_file_cannot_say_is_refused(saved, tmp_path, edit, said):
    folder = changed(saved, tmp_path / "other", lambda tree: tree.update(edit))
    with pytest.raises(ModelError, match=said):
        convert(folder, tmp_path / "other.gguf", format="f32")
