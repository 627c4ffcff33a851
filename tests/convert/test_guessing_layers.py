"""Layers behind a text's own, which guess further tokens: they are left out, for nobody here runs them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

import glm4v_truth
from safetensors.torch import load_file, save_file

from opsin.convert.hf import convert
from opsin.errors import FileError, ModelError
from opsin.gguf import File


@pytest.fixture(params=["glm_ocr", "glm4v_moe"])
def folder(request, tmp_path):
    truth = glm4v_truth.TOWERS[request.param]
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
