"""What a store sets beside a model holds where nobody says otherwise: on the server, on the command line, in Python."""

from __future__ import annotations

import json

import pytest
from ollama_store import pull
from running_server import running
from tiny import tiny_llama

import opsin
from opsin.cli import main

SYSTEM, ASK = "Be brief.", "the rain in Spain"
REST = {"temperature": 9.0, "top_p": 1.0, "min_p": 0.0, "seed": 5, "max_tokens": 24, "ignore_eos": True}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The model as a file, without a store."""
    with opsin.load(tiny_llama(tmp_path_factory.mktemp("plain") / "model.gguf"), threads=1, context=512) as made:
        yield made


@pytest.fixture(scope="module")
def whole(plain):
    """Its answer to the question with the system message, which nothing ends."""
    return said(plain, system=SYSTEM)


@pytest.fixture(scope="module")
def stop(whole):
    return whole[6:8]


@pytest.fixture
def store(plain, stop, tmp_path, monkeypatch):
    """The same model under the name "tiny" in a store."""
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    params = json.dumps({"temperature": 9.0, "top_p": 1.0, "min_p": 0.0, "stop": [stop]}).encode()
    pull(tmp_path, [("model", plain.path.read_bytes()), ("system", SYSTEM.encode()), ("params", params)])


def messages(system=None):
    first = [] if system is None else [{"role": "system", "content": system}]
    return [*first, {"role": "user", "content": ASK}]


def said(model, system=None, **options):
    return model.chat(messages(system), **REST, **options).text


def test_the_server_sends_and_ends_as_the_store_says(plain, whole, stop, store):
    ended = whole[: whole.index(stop)]
    other = said(plain, system="Be long.")
    assert len({whole, ended, other}) == 3
    with running(lambda: opsin.load("ollama:tiny", threads=1, context=512)) as server:

        def answer(system=None, **options):
            body = {"messages": messages(system), "max_tokens": 24, "seed": 5, "ignore_eos": True, **options}
            return server.ask("/v1/chat/completions", body).json["choices"][0]["message"]["content"]

        assert answer() == ended
        assert answer(stop=["nowhere"]) == whole
        assert answer("Be long.", stop=["nowhere"]) == other
        told = server.ask("/completion", {"prompt": ASK, "n_predict": 2}).json
        assert told["generation_settings"]["stop"] == [stop]


def test_the_command_does_too(plain, whole, stop, store, capfd):
    def answer(*flags):
        assert main.run(["chat", "-m", "ollama:tiny", "-n", "24", "--seed", "5", "--ignore-eos", *flags, ASK]) == 0
        return capfd.readouterr().out.strip()

    assert answer() == whole[: whole.index(stop)].strip()
    assert answer("--stop", "nowhere") == whole.strip()
    assert answer("--stop", "nowhere", "--system", "Be long.") == said(plain, system="Be long.").strip()
    assert answer("--stop", "nowhere", "--system", "") == said(plain, system="").strip()
