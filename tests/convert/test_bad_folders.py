"""Folders that cannot be converted: each gets one clear error, and nothing is written."""

from __future__ import annotations

import json
import pickle
import shutil

import pytest

pytest.importorskip("torch")
hf_folders = pytest.importorskip("hf_folders", reason="needs transformers")

import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from opsin.convert.hf import convert  # noqa: E402
from opsin.errors import FileError, ModelError, OpsinError  # noqa: E402


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good") / "hf"
    hf_folders.save(folder, "qwen2")
    return folder


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good, tmp_path / "hf")


def set_config(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        config.pop(key, None) if value is None else config.update({key: value})
    path.write_text(json.dumps(config))


def change_tensors(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def shards(folder):
    hf_folders.checkpoints.make("qwen2").save_pretrained(folder, max_shard_size="60KB")
    (folder / "model.safetensors").unlink()
    return sorted(folder.glob("*.safetensors"))


class Trap:
    """Whoever unpickles this writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def _pickle(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(folder / "trapped")))


def _quantised(tensors):
    key = "model.layers.1.mlp.up_proj.weight"
    tensors[key] = tensors[key].to(torch.float8_e4m3fn)


def _lacks_a_layer(tensors):
    for name in [name for name in tensors if ".layers.1." in name]:
        del tensors[name]


CASES = {
    "no folder": (lambda f: shutil.rmtree(f), "is no folder"),
    "no config": (lambda f: (f / "config.json").unlink(), r"config\.json cannot be read"),
    "config of text": (lambda f: (f / "config.json").write_text("hello"), r"config\.json is no JSON"),
    "config of a list": (lambda f: (f / "config.json").write_text("[]"), "is no JSON object"),
    "deep config": (lambda f: (f / "config.json").write_text("[" * 100_000), "is no JSON"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no safetensors files"),
    "a pickle": (_pickle, "as a pickle"),
    "half a file": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:9000]),
        "is no safetensors file",
    ),
    "a missing shard": (lambda f: shards(f)[1].unlink(), "lacks model-0000"),
    "shards without an index": (
        lambda f: (shards(f), (f / "model.safetensors.index.json").unlink()), r"but no model\.safetensors\.index"
    ),
    "an index that leads elsewhere": (
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"x": "../../etc/passwd"}}'),
        "names no files",
    ),
    "another class": (lambda f: set_config(f, architectures=["Mamba"], model_type="x"), "Mamba cannot be converted"),
    "no class": (lambda f: set_config(f, architectures=None, model_type=None), "no class cannot be converted"),
    "a size missing": (lambda f: set_config(f, hidden_size=None), "does not say hidden_size"),
    "a size of text": (lambda f: set_config(f, hidden_size="64"), "hidden_size is '64'"),
    "a size below nothing": (lambda f: set_config(f, num_attention_heads=-4), "num_attention_heads"),
    "a scaling nobody knows": (
        lambda f: set_config(f, rope_parameters={"rope_type": "dynamic", "alpha": 1e3}), "scaled by 'dynamic'"
    ),
    "more layers than told": (lambda f: set_config(f, num_hidden_layers=2), "holds 3 of its 2 layers"),
    "fewer layers than told": (lambda f: change_tensors(f, _lacks_a_layer), "holds 2 of its 3 layers"),
    "quantised, as it says": (lambda f: set_config(f, quantization_config={"quant_method": "gptq"}), "is quantised"),
    "quantised, as it is": (lambda f: change_tensors(f, _quantised), "holds F8_E4M3"),
    "a tensor nobody knows": (
        lambda f: change_tensors(f, lambda t: t.update({"model.layers.0.surprise.weight": torch.ones(3)})),
        "nobody knows tensor layers.0.surprise.weight",
    ),
    "one tensor by two names": (
        lambda f: change_tensors(f, lambda t: t.update({"model.language_model.norm.weight": torch.ones(64)})),
        "are the same",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "neither tokenizer.json"),
    "a number too large for F16": (
        lambda f: change_tensors(f, lambda t: t["model.layers.0.mlp.up_proj.weight"].fill_(1e6)), "too large for F16"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_bad_folder_gets_one_clear_error(folder, tmp_path, case):
    spoil, message = CASES[case]
    spoil(folder)
    with pytest.raises(OpsinError, match=message) as caught:
        convert(folder, tmp_path / "model.gguf", format="f16")
    assert isinstance(caught.value, FileError | ModelError)
    assert caught.value.hint
    assert not list(tmp_path.glob("*.gguf")) and not list(tmp_path.glob(".*"))
    assert not (folder / "trapped").exists()


def test_an_mmproj_of_a_model_of_text_is_refused(folder, tmp_path):
    with pytest.raises(ModelError, match="has no part for pictures"):
        convert(folder, tmp_path / "model.gguf", mmproj=tmp_path / "mmproj.gguf")
    assert not list(tmp_path.glob("*.gguf"))


def test_a_tower_that_nobody_knows_is_not_left_out_silently(folder, tmp_path):
    change_tensors(folder, lambda t: t.update({"vision_tower.blocks.0.weight": torch.ones(3)}))
    with pytest.raises(ModelError, match="its part for pictures or sound cannot be converted .*--no-vision"):
        convert(folder, tmp_path / "model.gguf")
    assert convert(folder, tmp_path / "model.gguf", vision=False).paths == (tmp_path / "model.gguf",)


def test_half_a_pair_is_not_left_behind(tmp_path):
    hf_folders.save(tmp_path / "hf", "gemma3")
    change_tensors(tmp_path / "hf", lambda t: next(v for k, v in t.items() if "layers.0.mlp.up_proj" in k).fill_(1e6))
    with pytest.raises(ModelError, match="too large for F16"):
        convert(tmp_path / "hf", tmp_path / "model.gguf", mmproj=tmp_path / "mmproj.gguf", format="f16")
    assert not list(tmp_path.glob("*.gguf"))


def test_a_pair_of_one_name_is_refused(tmp_path):
    hf_folders.save(tmp_path / "hf", "gemma3")
    with pytest.raises(OpsinError, match="cannot hold the model and the part for pictures"):
        convert(tmp_path / "hf", tmp_path / "model.gguf", mmproj=tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("format", "kind", "norm"), [("f32", "F32", "F32"), ("f16", "F16", "F32"), ("bf16", "BF16", "F32"),
                                 ("q8_0", "Q8_0", "F32"), ("auto", "F16", "F32")],
)  # fmt: skip
def test_a_good_folder_has_the_formats_that_were_asked_for(folder, tmp_path, format, kind, norm):
    from opsin.gguf import File
    from opsin.quants import by_id

    (path,) = convert(folder, tmp_path / "model.gguf", format=format).paths
    with File.open(path) as file:
        kinds = {name: by_id(info.type).name for name, info in file.tensors.items()}
    assert kinds["blk.0.attn_q.weight"] == kinds["token_embd.weight"] == kind
    assert kinds["blk.0.attn_norm.weight"] == kinds["blk.0.attn_q.bias"] == norm
