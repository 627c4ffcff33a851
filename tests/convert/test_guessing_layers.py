"""Layers behind a text's own, which guess further tokens: some families' are kept, others' left out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

import glm4v_truth
import hf_folders
import numpy as np
from safetensors.torch import load_file, save_file

from opsin.convert.hf import convert
from opsin.errors import FileError, ModelError
from opsin.gguf import File
from opsin.models import load_decoder
from opsin.nn.meta import MetaReader


@pytest.fixture
def folder(tmp_path):
    truth = glm4v_truth.TOWERS["glm_ocr"]
    truth.save(truth.make(), tmp_path / "hf")
    return tmp_path / "hf"


def change(folder, more):
    """The tensors of a checkpoint, with those that `more` makes of them."""
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, **more(tensors)}, folder / "model.safetensors", {"format": "pt"})


def guessing(tensors, name="eh_proj"):
    layer = {n.replace("layers.2.", "layers.3."): v.clone() for n, v in tensors.items() if "layers.2." in n}
    first = next(n for n in layer if "layers.3." in n)
    return {**layer, first.split("layers.3.")[0] + f"layers.3.{name}.weight": tensors[next(iter(tensors))].clone()}


def test_they_are_left_out(folder, tmp_path):
    made = []
    for name in ("without", "with"):
        (path, _) = convert(folder, tmp_path / f"{name}.gguf", mmproj=tmp_path / f"{name}-mmproj.gguf").paths
        with File.open(path) as file:
            made.append((list(file.tensors), file.get_int(f"{file.get_str('general.architecture')}.block_count")))
        change(folder, guessing)
    assert made[0] == made[1]


def test_a_tensor_of_an_own_layer_that_nobody_knows_is_refused(folder, tmp_path):
    change(folder, lambda tensors: {n.replace("layers.3.", "layers.2."): v for n, v in guessing(tensors).items()})
    with pytest.raises((FileError, ModelError), match="nobody knows tensor layers.2.eh_proj"):
        convert(folder, tmp_path / "model.gguf", mmproj=tmp_path / "mmproj.gguf")


@pytest.mark.parametrize("family", ["qwen35", "qwen35moe"])
def test_the_layer_of_qwen_is_kept_behind_the_others(tmp_path, family):
    """Under llama.cpp's names; norms hold one more."""
    hf_folders.save(tmp_path / "hf", family)
    (plain,) = convert(tmp_path / "hf", tmp_path / "plain.gguf", format="f32", vision=False).paths

    def more(tensors):
        attends = {n.split("layers.1.")[1]: v for n, v in tensors.items() if "language_model.layers.1." in n}
        norm = attends["input_layernorm.weight"]
        names = ("norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden")
        return {
            **{f"mtp.layers.0.{name}": values.clone() for name, values in attends.items()},
            **{f"mtp.{name}.weight": norm + i for i, name in enumerate(names)},
            "mtp.fc.weight": norm.repeat(len(norm), 2),
        }

    change(tmp_path / "hf", more)
    (path,) = convert(tmp_path / "hf", tmp_path / "model.gguf", format="f32", vision=False).paths

    def values(file, name):
        return file.read(name).view(np.float32)

    with File.open(plain) as before, File.open(path) as file:
        assert before.get_int(f"{family}.block_count") == 5 and f"{family}.nextn_predict_layers" not in before.metadata
        assert (file.get_int(f"{family}.block_count"), file.get_int(f"{family}.nextn_predict_layers")) == (6, 1)
        assert file.get_bools(f"{family}.attention.recurrent_layers").tolist()[5:] == [False]
        kept = {name.replace("blk.5.", "blk.1.") for name in file.tensors.keys() - before.tensors.keys()}
        own = {name for name in kept if ".nextn." in name}
        assert kept - own == {name for name in before.tensors if name.startswith("blk.1.")}
        assert all(np.array_equal(values(file, n.replace("blk.1.", "blk.5.")), values(before, n)) for n in kept - own)
        norm = values(before, "blk.1.attn_norm.weight")
        for i, name in enumerate(("shared_head_norm", "enorm", "hnorm")):
            assert np.allclose(values(file, f"blk.5.nextn.{name}.weight"), norm + i)
        assert file.tensors["blk.5.nextn.eh_proj.weight"].shape == (len(norm), 2 * len(norm))
        assert load_decoder(file, MetaReader(file)).guesses and not load_decoder(before, MetaReader(before)).guesses


def test_the_layer_of_glm_is_kept_where_it_stands(tmp_path):
    hf_folders.save(tmp_path / "hf", "glm4moe")

    def more(tensors):
        layer = {n.replace("layers.2.", "layers.3."): v.clone() for n, v in tensors.items() if "layers.2." in n}
        norm, table = tensors["model.norm.weight"], tensors["model.embed_tokens.weight"]
        beside = {"eh_proj": norm.repeat(len(norm), 2), "enorm": norm + 1, "hnorm": norm + 2,
                  "shared_head.norm": norm + 3, "shared_head.head": table + 4, "embed_tokens": table + 5}  # fmt: skip
        return layer | {f"model.layers.3.{name}.weight": values for name, values in beside.items()}

    change(tmp_path / "hf", more)
    (path,) = convert(tmp_path / "hf", tmp_path / "model.gguf", format="f32", vision=False).paths
    with File.open(path) as file:
        assert (file.get_int("glm4moe.block_count"), file.get_int("glm4moe.nextn_predict_layers")) == (4, 1)
        norm, table = (file.read(f"{name}.weight").view(np.float32) for name in ("output_norm", "token_embd"))
        expected = {"enorm": norm + 1, "hnorm": norm + 2, "shared_head_norm": norm + 3, "shared_head_head": table + 4,
                    "embed_tokens": table + 5}  # fmt: skip
        for name, values in expected.items():
            assert np.allclose(file.read(f"blk.3.nextn.{name}.weight").view(np.float32), values)
        assert load_decoder(file, MetaReader(file)).guesses
