"""Repositories of safetensors without GGUF: fetched as folders, read as what `opsin convert` would write of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_hub import as_the_hub

pytest.importorskip("torch")
pytest.importorskip("transformers")

sys.path.insert(0, str(Path(__file__).parents[1] / "convert"))
import hf_folders

import opsin
from opsin.cli import main
from opsin.errors import FileError, ModelError, RequestError
from opsin.gguf import File
from opsin.hub.locate import locate

IDS = list(range(7, 60))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with as_the_hub(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint in three shards."""
    made = tmp_path_factory.mktemp("hf") / "tiny"
    model = hf_folders.save(made, "qwen3")
    (made / "model.safetensors").unlink()
    model.save_pretrained(made, max_shard_size="150KB")
    assert len(list(made.glob("*.safetensors"))) > 1
    return made


@pytest.fixture(scope="module")
def files(folder):
    """What a repository of it has."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


OTHERS = {
    "README.md": b"x", "pytorch_model.bin": b"x", "onnx/model.safetensors": b"x", "consolidated.safetensors": b"x",
    "imatrix.gguf": b"x",
}  # fmt: skip


def test_it_is_fetched_and_gives_the_bits_of_the_folder(hub, folder, files):
    hub.repos["owner/tiny"] = {**files, **OTHERS}
    made = []
    for place, options in ((folder, {}), ("hf:owner/tiny", {"verify": True}), ("hf:owner/tiny", {"vision": False})):
        with opsin.load(place, threads=1, context=128, **options) as model:
            made.append(model.logits(IDS))
            name = model.name
    assert np.array_equal(made[0], made[1]) and np.array_equal(made[0], made[2])
    assert name == "owner/tiny"
    assert sorted(set(hub.fetched())) == sorted(hub.fetched()) == sorted(files)
    with locate_file("hf:owner/tiny") as file:
        assert file.get_str("general.name") == "owner/tiny"


def test_a_tokenizer_of_two_files_is_fetched_as_well(hub, files):
    tree = json.loads(files["tokenizer.json"])
    slow = {name: data for name, data in files.items() if name != "tokenizer.json"}
    slow["vocab.json"] = json.dumps(tree["model"]["vocab"]).encode()
    slow["merges.txt"] = "\n".join(" ".join(pair) for pair in tree["model"]["merges"]).encode()
    told = {"tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": {t["id"]: t for t in tree["added_tokens"]}}
    slow["tokenizer_config.json"] = json.dumps(json.loads(files["tokenizer_config.json"]) | told).encode()
    hub.repos["owner/slow"], hub.repos["owner/tiny"] = {**slow, **OTHERS}, files
    made = []
    for name in ("tiny", "slow"):
        with opsin.load(f"hf:owner/{name}", threads=1, context=128) as model:
            made.append(model.tokenize("The quick brown fox<|im_end|>", special=True))
    assert made[0] == made[1]


def locate_file(place):
    from opsin.api.files import find

    return find(place, None, vision=True).open()[0]


def test_without_the_hub_the_cache_is_taken(hub, files):
    hub.repos["owner/tiny"] = files
    first = locate("hf:owner/tiny")
    hub.status = 503
    again = locate("hf:owner/tiny")
    assert again.text == first.text and any("cache" in note for note in again.notes)
    again.verify()


def test_gguf_comes_before_safetensors_where_there_is_some(hub, files):
    hub.repos["owner/both"] = {**files, "tiny-Q8_0.gguf": b"GGUF"}
    assert locate("hf:owner/both").text.name == "tiny-Q8_0.gguf"
    assert hub.fetched() == ["tiny-Q8_0.gguf"]
    assert locate("hf:owner/both", checkpoint=True).text.is_dir()


def test_what_nobody_can_convert_is_told_before_the_weights_are_fetched(hub, files):
    config = json.loads(files["config.json"])
    for change, said in (({"architectures": ["T5Model"], "model_type": "t5"}, "T5Model cannot be converted"),
                         ({"quantization_config": {"quant_method": "awq"}}, "is quantised")):  # fmt: skip
        name = f"owner/{next(iter(change))}"
        hub.repos[name] = {**files, "config.json": json.dumps({**config, **change}).encode()}
        with pytest.raises((ModelError, FileError), match=said):
            opsin.load(f"hf:{name}")
        assert not any(name.endswith(".safetensors") for name in hub.fetched())


@pytest.mark.parametrize(
    ("names", "place", "said"),
    [
        (["model.safetensors", "tokenizer.json"], "m/m", "no GGUF file of a model, and no safetensors"),
        (["config.json", "pytorch_model.bin"], "m/m", "no GGUF file of a model, and no safetensors"),
        (["adapter_config.json", "adapter_model.safetensors"], "m/m", "is an adapter"),
        (["config.json", "model.safetensors"], "m/m:Q4_K_M", "has no Q4_K_M: it holds safetensors"),
        (["config.json", "model.safetensors"], "m/m/x.gguf", "has no file 'x.gguf'"),
    ],
)
def test_what_a_repository_lacks_is_told(hub, names, place, said):
    hub.repos["m/m"] = dict.fromkeys(names, b"{}")
    with pytest.raises(FileError, match=said):
        locate(f"hf:{place}")
    assert hub.fetched() == []


def test_convert_takes_the_hubs_names(hub, folder, files, tmp_path, capsys):
    hub.repos["owner/tiny"] = {**files, "tiny-Q8_0.gguf": b"GGUF"}
    hub.repos["owner/gguf"] = {"tiny-Q8_0.gguf": b"GGUF"}
    assert main.run(["convert", str(folder), "-o", str(tmp_path / "a.gguf")]) == 0
    for given in (["hf:owner/tiny"], ["-hf", "owner/tiny"]):
        assert main.run(["convert", *given, "-o", str(tmp_path / "b.gguf")]) == 0
        with File.open(tmp_path / "a.gguf") as one, File.open(tmp_path / "b.gguf") as other:
            assert all(np.array_equal(one.read(name), other.read(name)) for name in one.tensors)
        (tmp_path / "b.gguf").unlink()
    assert main.run(["convert", "hf:owner/gguf", "-o", str(tmp_path / "b.gguf")]) == 3
    assert "has GGUF files and no safetensors" in capsys.readouterr().err.splitlines()[-1]
    assert main.run(["convert", "ollama:tiny", "-o", str(tmp_path / "b.gguf")]) == RequestError.exit_code
    assert "no checkpoint" in capsys.readouterr().err.splitlines()[-1]


def test_quantize_and_inspect_take_a_folder_and_the_hubs_names(hub, folder, files, tmp_path, capsys):
    hub.repos["owner/tiny"] = files
    made = []
    for number, place in enumerate((str(folder), "hf:owner/tiny")):
        out = tmp_path / f"{number}.gguf"
        assert main.run(["quantize", place, "-o", str(out), "Q8_0"]) == 0
        with File.open(out) as file:
            made.append({name: file.read(name).tobytes() for name in file.tensors})
            assert file.tensors["blk.0.attn_q.weight"].kind.name == "Q8_0"
    assert made[0] == made[1]
    capsys.readouterr()
    told = []
    for given in ([str(folder)], ["hf:owner/tiny"], ["-hf", "owner/tiny"]):
        assert main.run(["inspect", *given, "--json"]) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert [report["tensors"] for report in told] == [told[0]["tensors"]] * 3
    assert told[0]["problem"] is None and told[1]["name"] == "owner/tiny"


def test_a_file_of_a_folder_is_never_written_over(folder, capsys):
    shard = next(folder.glob("*.safetensors"))
    before = shard.read_bytes()
    assert main.run(["quantize", str(folder), "-o", str(shard), "Q8_0"]) == 2
    assert "is a file to read" in capsys.readouterr().err and shard.read_bytes() == before
