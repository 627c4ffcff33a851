"""What loading found out reaches stderr, whichever subcommand loads; files that cannot write are refused."""

from __future__ import annotations

import numpy as np
import pytest
from test_cli_errors import assert_one_line
from tiny import tiny_llama
from tiny_sight import tiny_tower

from opsin.gguf import NewTensor, write

COMMANDS = {"chat": ("Hi", "-n", "2"), "bench": ("-p", "2", "-n", "2")}


@pytest.mark.parametrize("command", COMMANDS)
def test_notes_are_printed(run, tmp_path, command):
    text = tiny_llama(tmp_path / "text.gguf", metadata={"general.sampling.penalty_repeat": 1.25})
    tiny_tower(tmp_path / "mmproj.gguf", width=96)
    done = run(command, "-m", text, *COMMANDS[command])
    assert done.returncode == 0, done.stderr
    assert "opsin: pictures are left out: " in done.stderr
    assert "general.sampling.penalty_repeat" in done.stderr


def test_notes_are_part_of_what_inspect_tells(run, tmp_path):
    text = tiny_llama(tmp_path / "text.gguf", metadata={"tokenizer.ggml.eos_token_id": 9999})
    done = run("inspect", text)
    assert done.returncode == 0, done.stderr
    assert "tokenizer.ggml.eos_token_id is 9999" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_for_pictures_alone_is_refused(run, tmp_path, command):
    tower = tiny_tower(tmp_path / "mmproj.gguf")
    assert_one_line(run(command, "-m", tower, *COMMANDS[command]), 4, "mmproj.gguf holds no text model", "--mmproj")


OTHERS = {
    "adapter": ({"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora"}, "adapter"),
    "imatrix": ({"general.type": "imatrix", "imatrix.chunk_count": 3}, "imatrix"),
    "control vector": ({"general.architecture": "controlvector", "controlvector.layer_count": 3}, "control vector"),
    "vocabulary": ({"general.architecture": "llama", "tokenizer.ggml.tokens": ["a"]}, "vocabulary alone"),
    "embedding model": ({"general.architecture": "nomic-bert"}, "'nomic-bert' is not supported"),
    "draft model": ({"general.architecture": "eagle3"}, "'eagle3' is not supported"),
    "diffusion model": ({"general.architecture": "flux"}, "'flux' is not supported"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_model_says_what_it_is(run, tmp_path, kind):
    metadata, said = OTHERS[kind]
    tensors = (
        [] if kind == "vocabulary" else [NewTensor.of("blk.0.attn_q.weight.lora_a", np.zeros((1, 32), np.float32))]
    )
    write(tmp_path / "file.gguf", metadata, tensors)
    assert_one_line(run("chat", "-m", tmp_path / "file.gguf", "Hi"), 4, "file.gguf", said, "(")
