"""Llama 3.2 Vision in every file in which people hold it: what Ollama published in two layouts, and ours."""

from __future__ import annotations

import re

import numpy as np
import pytest
from ollama_store import pull

import opsin
from opsin.convert.hf import convert
from opsin.errors import OpsinError
from opsin.gguf import File, NewTensor, write
from opsin.models import open_model

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from mllama_vision_truth import MLLAMA  # noqa: E402
from vision_truth import picture  # noqa: E402

OPTIONS = {"threads": 2, "context": 512, "sequences": 2}
KEYS = (
    "block_count", "global.block_count", "intermediate_layers_indices", "embedding_length", "feed_forward_length",
    "attention.head_count", "attention.layer_norm_epsilon", "image_size", "patch_size", "max_num_tiles",
)  # fmt: skip
SPLIT = ((r"\.ffn_up\.", ".ffn_x."), (r"\.ffn_down\.", ".ffn_up."), (r"\.ffn_x\.", ".ffn_down."))
WHOLE = ((r"\.ln1\.", ".attn_norm."), (r"\.ln2\.", ".ffn_norm."), (r"\.attn_out\.", ".attn_output."))


def of_tower(path, names):
    """The tower's tensors under other names, and what Ollama's files say of it."""
    with File.open(path) as file:
        tensors = []
        for own, info in file.tensors.items():
            name = own
            for old, new in names:
                name = re.sub(old, new, name)
            tensors.append(NewTensor(name, info.shape, info.type, file.read(own)))
        keys = {f"mllama.vision.{key}": file.typed[f"clip.vision.{key}"] for key in KEYS}
    return tensors, {**keys, "mllama.vision.num_channels": 3}


def write_split(path, eyes, keys=None):
    """2024-11 to 2025-04: the tower in a file of its own, under the architecture of the text."""
    tensors, known = of_tower(eyes, SPLIT)
    known |= {"general.architecture": "mllama", "general.description": "vision encoder for Mllama"}
    return write(path, {**known, "mllama.vision.projection_dim": 64, **(keys or {})}, tensors)[0]


def write_whole(path, text, eyes, keys=None, tensors=None):
    """Since 2025-05: all in one file."""
    seen, known = of_tower(eyes, WHOLE)
    with File.open(text) as file:
        held = {tensor.name: tensor for tensor in (*map(file.copy_tensor, file.tensors), *seen)}
        held |= {name: NewTensor.of(name, values) for name, values in (tensors or {}).items()}
        return write(path, {**file.typed, **known, **(keys or {})}, list(held.values()))[0]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """The folder, our pair, our one file, and both of Ollama's layouts."""
    root = tmp_path_factory.mktemp("mllama")
    MLLAMA.save(MLLAMA.make(), root / "hf")
    (root / "pair").mkdir()
    text, eyes = convert(root / "hf", root / "pair" / "tiny.gguf", mmproj=root / "pair" / "mmproj.gguf").paths
    one = convert(root / "hf", root / "one.gguf").paths[0]
    (root / "split").mkdir()
    (root / "whole").mkdir()
    return {
        "folder": root / "hf", "text": text, "eyes": eyes, "one": one,
        "split": write_split(root / "split" / "eyes.gguf", eyes),
        "whole": write_whole(root / "whole" / "tiny.gguf", text, eyes),
    }  # fmt: skip


def logits(place, **options):
    with opsin.load(place, **OPTIONS, **options) as model:
        given = [{"role": "user", "content": ["What is this? ", picture(60, 44), " And this?", picture(20, 22)]}]
        return model.logits(model.chat_prompt(given))


@pytest.fixture(scope="module")
def wanted(shelf):
    return logits(shelf["text"], mmproj=shelf["eyes"])


WAYS = {
    "our one file": lambda shelf: logits(shelf["one"]),
    "a folder of transformers": lambda shelf: logits(shelf["folder"]),
    "Ollama's text and projector": lambda shelf: logits(shelf["text"], mmproj=shelf["split"]),
    "Ollama's one file": lambda shelf: logits(shelf["whole"]),
    "the text of Ollama's one file with our tower": lambda shelf: logits(shelf["whole"], mmproj=shelf["eyes"]),
    "our text with the tower of Ollama's one file": lambda shelf: logits(shelf["text"], mmproj=shelf["whole"]),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_file_gives_the_same_bits(shelf, wanted, way):
    assert np.array_equal(WAYS[way](shelf), wanted)


@pytest.mark.parametrize("layout", ["split", "whole"])
def test_ollamas_store_gives_them_too(shelf, wanted, tmp_path, monkeypatch, layout):
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    layers = {"split": [("model", "text"), ("projector", "split")], "whole": [("model", "whole")]}[layout]
    pull(
        tmp_path,
        [(kind, shelf[name].read_bytes()) for kind, name in layers],
        "registry.ollama.ai/library/llama3.2-vision/latest",
    )
    assert np.array_equal(logits("ollama:llama3.2-vision"), wanted)


def test_what_is_written_of_ollamas_file_is_in_our_words(shelf):
    with open_model(shelf["whole"]) as told, File.open(shelf["eyes"]) as eyes, File.open(shelf["text"]) as text:
        assert set(told.tensors) == {*eyes.tensors, *text.tensors}
        assert {key for key in eyes.metadata if key.startswith("clip.")} <= set(told.metadata)


@pytest.mark.parametrize("name", ["v.global.blk.0.attn_gate", "v.global.blk.1.ffn_gate"])
def test_gates_that_ollama_stored_raw_are_refused_by_name(shelf, tmp_path, name):
    path = write_whole(tmp_path / "raw.gguf", shelf["text"], shelf["eyes"], tensors={name: np.float32([1.3])})
    with opsin.load(path, **OPTIONS) as model, pytest.raises(OpsinError, match=rf"{name} is 1.3, .*tangent") as caught:
        model.logits(model.chat_prompt([{"role": "user", "content": [picture(60, 44)]}]))
    assert "converted later" in caught.value.hint
