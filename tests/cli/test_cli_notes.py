"""What loading found out reaches stderr, whichever subcommand loads; a file that is no model says what it is."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_cli_errors import assert_one_line
from tiny import tiny_llama
from tiny_sight import tiny_tower

from opsin.cli import main
from opsin.gguf import NewTensor, write

COMMANDS = {"chat": ("Hi", "-n", "2"), "bench": ("-p", "2", "-n", "2")}
SERVE = {"serve": ("--port", "0")}


@pytest.mark.parametrize("command", COMMANDS)
def test_notes_are_printed(run, tmp_path, command):
    text = tiny_llama(tmp_path / "text.gguf", metadata={"general.sampling.tfs_z": 0.5})
    tiny_tower(tmp_path / "mmproj.gguf", width=96)
    done = run(command, "-m", text, *COMMANDS[command])
    assert done.returncode == 0, done.stderr
    assert "opsin: pictures are left out: " in done.stderr
    assert "general.sampling.tfs_z" in done.stderr


def test_notes_are_part_of_what_inspect_tells(run, tmp_path):
    text = tiny_llama(tmp_path / "text.gguf", metadata={"tokenizer.ggml.eos_token_id": 9999})
    done = run("inspect", text)
    assert done.returncode == 0, done.stderr
    assert "tokenizer.ggml.eos_token_id is 9999" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_for_pictures_alone_is_refused(run, tmp_path, command):
    tower = tiny_tower(tmp_path / "mmproj.gguf")
    said = ("mmproj.gguf holds no text model: it is a part for pictures or sound (mmproj)", "--mmproj")
    assert_one_line(run(command, "-m", tower, *COMMANDS[command]), 4, *said)


# Keys, a tensor's name, what it is, and what to do.
OTHERS = {
    "adapter": (
        {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora",
         "general.base_model.0.name": "Llama\x1b[2J 3"},
        "blk.0.attn_q.weight.lora_a", r"an adapter (LoRA) for 'Llama\x1b[2J 3'", "merge it into the model",
    ),
    "imatrix": (
        {"general.type": "imatrix", "imatrix.chunk_count": 3}, "blk.0.attn_q.weight.in_sum2",
        "statistics for quantising (imatrix)", "give the model itself",
    ),
    "control vector": (
        {"general.architecture": "controlvector", "controlvector.layer_count": 3}, "direction.1",
        "a control vector", "give the model itself",
    ),
    "vocabulary": (
        {"general.architecture": "llama", "tokenizer.ggml.tokens": ["a"]}, "",
        "a vocabulary alone: it has no tensors", "give the model itself",
    ),
    "embedding model": (
        {"general.architecture": "nomic-bert-moe"}, "token_embd.weight",
        "a model for embeddings of texts (nomic-bert-moe)", "give a model that writes",
    ),
    "draft model": ({"general.architecture": "eagle3"}, "fc.weight", "a draft model", "give the model itself"),
    "the head alone that guesses ahead": (
        {"general.architecture": "qwen3", "qwen3.nextn_predict_layers": 1}, "blk.36.nextn.eh_proj.weight",
        "a draft model (it guesses for another one)", "give the model itself",
    ),
    "painter": (
        {"general.architecture": "flux"}, "double_blocks.0.img_mod.lin.weight",
        "a model that makes pictures or films (flux)", "give a model that writes",
    ),
    "speaker": (
        {"general.architecture": "wavtokenizer-dec"}, "conv1d.weight", "a model that makes sound",
        "give a model that writes",
    ),
    "unknown": ({"general.architecture": "never-heard-of"}, "x", "'never-heard-of' is not supported", "gemma3, "),
}  # fmt: skip


@pytest.fixture(params=OTHERS)
def other(request, tmp_path):
    metadata, tensor, what, do = OTHERS[request.param]
    tensors = [NewTensor.of(tensor, np.zeros((1, 32), np.float32))] if tensor else []
    write(tmp_path / "file.gguf", metadata, tensors)
    return tmp_path / "file.gguf", what, do


def test_what_is_no_model_says_what_it_is_and_what_to_do(other, capsys):
    """`serve` ends as the others do: it was never healthy, because that needs a model."""
    path, what, do = other
    for command, rest in {**COMMANDS, **SERVE}.items():
        assert main.run([command, "-m", str(path), *rest]) == 4
        out, err = capsys.readouterr()
        last = err.splitlines()[-1]
        assert out == "" and "Traceback" not in err and "ready" not in err
        assert "file.gguf" in last and what in last and do in last


def test_inspect_shows_what_is_no_model_and_says_what_it_is(other, capsys):
    path, what, do = other
    assert main.run(["inspect", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["parameters"] in (0, 32) and told["weight_bytes"] is None
    assert what in told["problem"] and do in told["problem"]
    assert main.run(["inspect", str(path)]) == 0
    assert "opsin cannot run this model: " in (shown := capsys.readouterr().out) and "\x1b" not in shown
