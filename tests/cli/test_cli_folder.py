"""A folder of transformers on the command line: answered from, served and shown as the file that is made of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from opsin_process import COMMAND, environment

pytest.importorskip("torch")
pytest.importorskip("transformers")

sys.path.insert(0, str(Path(__file__).parents[1] / "convert"))
import hf_folders
from safetensors.numpy import load_file, save_file

ASK = ("-n", 8, "--temperature", 0, "--ignore-eos", "hi")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("hf") / "tiny"
    hf_folders.save(made, "llama")
    return made


def test_chat_answers_as_from_the_file_and_writes_nothing(run, folder, tmp_path):
    assert run("convert", folder, "-o", tmp_path / "tiny.gguf").returncode == 0
    wanted = run("chat", "-m", tmp_path / "tiny.gguf", *ASK)
    before = {path: path.read_bytes() for path in folder.rglob("*")}
    done = run("chat", "-m", folder, *ASK)
    assert (done.returncode, done.stdout) == (0, wanted.stdout), done.stderr
    assert {path: path.read_bytes() for path in folder.rglob("*")} == before
    shown, whole = (json.loads(run("inspect", place, "--json").stdout) for place in (folder, tmp_path / "tiny.gguf"))
    assert {**shown, "path": "", "name": ""} | {"metadata": None} == {**whole, "path": "", "name": "", "metadata": None}


def test_a_tower_that_nobody_knows_is_left_out_where_that_is_said(run, folder, tmp_path):
    odd = shutil.copytree(folder, tmp_path / "odd")
    tensors = load_file(odd / "model.safetensors")
    save_file({**tensors, "vision_tower.strange.weight": np.zeros(3, np.float32)}, odd / "model.safetensors")
    wanted = run("chat", "-m", folder, *ASK)
    refused = run("chat", "-m", odd, *ASK)
    assert refused.returncode == 4 and "part for pictures or sound cannot be converted" in refused.stderr
    assert "--no-vision" in refused.stderr
    for option in ("--no-vision", "--no-mmproj"):
        done = run("chat", "-m", odd, option, *ASK)
        assert (done.returncode, done.stdout) == (0, wanted.stdout), done.stderr
    done = run("chat", "-m", folder, "--no-vision", "--image", __file__, "hi")
    assert done.returncode == 2 and "takes text only" in done.stderr


def test_it_is_served_under_its_name(folder):
    with subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", "-c", "128", "-m", str(folder)], stderr=subprocess.PIPE, text=True,
        env=environment(),
    ) as process:  # fmt: skip
        said = ""
        while "OPENAI_BASE_URL=" not in said:
            line = process.stderr.readline()
            assert line, f"it ended: {said}"
            said = said + line
        url = said.rpartition("OPENAI_BASE_URL=")[2].split()[0]
        with urllib.request.urlopen(f"{url}/models", timeout=600) as reply:
            assert [model["id"] for model in json.load(reply)["data"]] == ["tiny"]
        process.terminate()
        process.stderr.read()
