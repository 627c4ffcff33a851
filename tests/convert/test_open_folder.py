"""A folder of safetensors that is opened is the file that `convert` writes, and is never whole in memory."""

from __future__ import annotations

import json
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
hf_folders = pytest.importorskip("hf_folders", reason="needs transformers")

import checkpoints  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from tiny import SPECIALS  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from truths import TOWERS  # noqa: E402

import opsin  # noqa: E402
from opsin.convert.hf import convert, open_folder  # noqa: E402
from opsin.errors import FileError, ModelError  # noqa: E402
from opsin.gguf import File  # noqa: E402

FAMILIES = [*checkpoints.CHECKPOINTS, *checkpoints.OTHERS]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of transformers by the name of a family of text, or of a truth."""
    root, made = tmp_path_factory.mktemp("hf"), {}

    def find(name):
        if name not in made:
            made[name] = root / name
            if name in TOWERS:
                TOWERS[name].save(TOWERS[name].make(), made[name])
            else:
                hf_folders.save(made[name], name)
        return made[name]

    return find


@pytest.mark.parametrize("format", ["auto", "f32", "q8_0"])
@pytest.mark.parametrize("name", sorted({*FAMILIES, *TOWERS}))
def test_it_is_the_file_that_convert_writes(folders, tmp_path, name, format):
    folder = folders(name)
    before = sorted(folder.iterdir())
    written = convert(folder, tmp_path / "model.gguf", format=format)
    file, notes = open_folder(folder, format=format)
    with File.open(tmp_path / "model.gguf") as wanted, file:
        assert notes == written.notes
        assert dict(file.types) == dict(wanted.types)
        assert all(np.array_equal(file.metadata[key], value) for key, value in wanted.metadata.items())
        assert dict(file.tensors) == dict(wanted.tensors)
        for tensor in wanted.tensors:
            assert np.array_equal(file.read(tensor), wanted.read(tensor)), tensor
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("name", FAMILIES)
def test_its_logits_are_those_of_the_file(folders, tmp_path, name):
    convert(folders(name), tmp_path / "model.gguf")
    made = []
    for place in (folders(name), tmp_path / "model.gguf"):
        with opsin.load(place, threads=1, context=128) as model:
            made.append(model.logits(list(range(7, 60))))
    assert np.array_equal(*made)


def test_a_large_tensor_is_never_whole_in_memory(tmp_path):
    """A matrix that stays as it is, 134 MB in float32, read in pieces as devices do."""
    hf_folders.save(tmp_path / "hf", "qwen2")
    path = tmp_path / "hf" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(1 << 19, checkpoints.WIDTH)
    save_file(tensors, path)
    del tensors
    file, _ = open_folder(tmp_path / "hf")
    with file:
        size, buffer = file.tensors["blk.0.ffn_up.weight"].nbytes, np.empty(8 << 20, np.uint8)
        tracemalloc.start()
        try:
            for first in range(0, size, buffer.size):
                file.read_into("blk.0.ffn_up.weight", buffer, first)
            _, peak = tracemalloc.get_traced_memory()
            file.read("blk.0.ffn_up.weight")
            _, whole = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert size == (1 << 20) * checkpoints.WIDTH
    assert peak < 40e6
    assert whole < size + 40e6


def test_a_tensor_that_a_rule_changes_takes_ten_bytes_a_weight(tmp_path):
    """Llama's queries have their rows in another order: they are read whole, changed, and encoded in runs."""
    count, heads = 1 << 18, 1 << 12
    hf_folders.save(tmp_path / "hf", "llama")
    path = tmp_path / "hf" / "model.safetensors"
    tensors = {name: value.bfloat16() for name, value in load_file(path).items()}
    tensors["model.layers.0.self_attn.q_proj.weight"] = torch.ones(count, checkpoints.WIDTH, dtype=torch.bfloat16)
    save_file(tensors, path)
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps({**config, "num_attention_heads": heads}))
    file, _ = open_folder(tmp_path / "hf")
    with file:
        assert file.tensors["blk.0.attn_q.weight"].kind.name == "BF16"
        tracemalloc.start()
        try:
            file.read_into("blk.0.attn_q.weight", np.empty(1 << 20, np.uint8))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 10 * count * checkpoints.WIDTH + 40e6


def test_a_folder_is_named_by_itself_and_lists_what_it_is(folders, monkeypatch):
    folder = folders("qwen2")
    monkeypatch.chdir(folder)
    for place in (folder, ".", str(folder)):
        with opsin.load(place, threads=1, context=64) as model:
            assert model.name == "qwen2"
            assert model.chat("the", max_tokens=2).text is not None
    assert SPECIALS  # the tokenizer is the folder's own


def test_one_gguf_in_a_folder_of_transformers_is_the_model(folders, tmp_path):
    import shutil

    folder = shutil.copytree(folders("qwen2"), tmp_path / "both")
    convert(folders("qwen2"), folder / "small.gguf", format="q8_0")
    with opsin.load(folder, threads=1, context=64) as model:
        assert model.name == "small" and model.facts.file_type == "Q8_0"


def test_what_cannot_be_converted_is_told_in_a_line(tmp_path):
    folder = tmp_path / "hf"
    folder.mkdir()
    with pytest.raises(FileError, match="holds no models .*safetensors"):
        opsin.load(folder)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(FileError, match="holds an adapter, not a model"):
        opsin.load(folder)
    (folder / "adapter_config.json").unlink()
    (folder / "config.json").write_text('{"architectures": ["DebertaV2Model"], "model_type": "deberta-v2"}')
    with pytest.raises(FileError, match="has no safetensors files"):
        opsin.load(folder)
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(FileError, match="holds its weights as a pickle"):
        opsin.load(folder)
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(ModelError, match="DebertaV2Model cannot be converted"):
        opsin.load(folder)


def test_the_text_alone_is_read_where_nobody_wants_pictures(folders):
    with opsin.load(folders("llava"), vision=False, threads=1, context=64) as model:
        assert not model.has_vision
    with opsin.load(folders("llava"), threads=1, context=512) as model:
        assert model.has_vision
