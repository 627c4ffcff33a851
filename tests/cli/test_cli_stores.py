"""Commands take names in stores where they take files."""

from __future__ import annotations

import json

import pytest
from ollama_store import pull
from tiny_sight import tiny_pair

from opsin.gguf import File


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of Ollama's with a model that sees."""
    folder = tmp_path_factory.mktemp("store")
    text, tower = tiny_pair(folder)
    params = {"temperature": 0, "num_ctx": 96, "repeat_penalty": 1.5}
    layers = [("model", text.read_bytes()), ("projector", tower.read_bytes()), ("params", json.dumps(params).encode())]
    pull(folder / "models", layers)
    return folder / "models"


def test_chat_answers_from_ollamas_store(run, store):
    model = store.parent / "model.gguf"
    wanted = run("chat", "-m", model, "-n", 8, "--temperature", 0, "--ignore-eos", "hi")
    done = run("chat", "-m", "ollama:tiny", "-n", 8, "--ignore-eos", "--verify", "hi", OLLAMA_MODELS=str(store))
    assert (done.returncode, done.stdout) == (0, wanted.stdout)
    assert "penalty_repeat" in done.stderr


def test_inspect_shows_both_parts_and_what_stands_beside(run, store):
    done = run("inspect", "ollama:tiny", "--json", OLLAMA_MODELS=str(store))
    told = json.loads(done.stdout)
    with File.open(store.parent / "model.gguf") as file:
        assert told["name"] == file.get_str("general.name", "")
        assert sum(kind["count"] for kind in told["tensors"].values()) == len(file.tensors)
    assert told["vision"]["projector"] == "gemma3" and told["vision"]["problem"] is None
    assert told["metadata"]["general.sampling.temp"] == 0
    assert any("sha256-" in note for note in told["notes"]) and any("penalty_repeat" in note for note in told["notes"])


def test_bench_takes_names_too(run, store):
    done = run("bench", "-m", "ollama:tiny", "-p", 8, "-n", 2, "--json", OLLAMA_MODELS=str(store))
    assert json.loads(done.stdout)["model"] == "ollama:tiny"


@pytest.mark.parametrize("command", [("chat", "-m"), ("serve", "--port", "0", "-m"), ("bench", "-m"), ("inspect",)])
def test_a_model_that_is_not_there_is_a_line_and_bad_file(run, store, command):
    done = run(*command, "ollama:absent", *(["hi"] if command[0] == "chat" else []), OLLAMA_MODELS=str(store))
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 3
    assert "'absent'" in last and "tiny:latest" in last and "Traceback" not in done.stderr
