"""How answers are drawn where nobody says: as the model's file recommends."""

from __future__ import annotations

import numpy as np
import pytest
from running_server import running
from tiny import tiny_llama

import opsin
from opsin.cli import main
from opsin.engine.sampling import Sampling
from opsin.errors import FileError
from opsin.gguf import Typed, ValueType

ASK = [{"role": "user", "content": "the rain in Spain"}]
KNOBS = {
    "general.sampling.temp": 9.0,
    "general.sampling.top_k": -1,
    "general.sampling.top_p": 1.0,
    "general.sampling.min_p": 0.0,
}
LIVELY = {"temperature": 9.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
PLAIN = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}
REST = {"seed": 5, "max_tokens": 12, "ignore_eos": True}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tiny_llama(tmp_path_factory.mktemp("own") / "model.gguf", metadata=KNOBS)
    with opsin.load(path, threads=2, context=512, sequences=4) as made:
        yield made


def test_a_file_recommends_its_sampling(model):
    assert model.facts.sampling == Sampling(**LIVELY)


def test_a_file_that_says_nothing_leaves_our_defaults(tmp_path):
    with opsin.load(tiny_llama(tmp_path / "model.gguf"), threads=2, context=512) as model:
        assert model.facts.sampling == Sampling()


def test_answers_follow_it_where_nobody_says_otherwise(model):
    lively, plain = model.chat(ASK, **LIVELY, **REST).text, model.chat(ASK, **PLAIN, **REST).text
    assert lively != plain
    assert model.chat(ASK, **REST).text == lively
    assert model.chat(ASK, **PLAIN, **REST).text == plain


def test_clients_of_the_server_get_it_too(model):
    with running(lambda: model) as server:
        client = server.openai()
        said = client.chat.completions.create(
            model="any", messages=ASK, max_tokens=12, seed=5, extra_body={"ignore_eos": True}
        )
        assert said.choices[0].message.content == model.chat(ASK, **LIVELY, **REST).text
        assert server.ask("/props").json["default_generation_settings"]["params"]["temperature"] == 9.0


def test_the_command_follows_it_too(model, capfd):
    for flags, knobs in ((), LIVELY), (("--temperature", "0"), {**LIVELY, "temperature": 0.0}):
        asked = ["chat", "-m", str(model.path), "-n", "12", "--seed", "5", "--ignore-eos", *flags, ASK[0]["content"]]
        assert main.run(asked) == 0
        assert capfd.readouterr().out.strip() == model.chat(ASK, **knobs, **REST).text.strip()


@pytest.mark.parametrize(
    ("key", "value"), [("temp", -1.0), ("temp", float("nan")), ("top_p", 1.5), ("min_p", "a"), ("top_k", 0.5)]
)
def test_a_file_that_recommends_nonsense_is_refused_by_name(tmp_path, key, value):
    path = tiny_llama(tmp_path / "model.gguf", metadata={f"general.sampling.{key}": value})
    with pytest.raises(FileError, match=rf"general.sampling.*{key}"):
        opsin.load(path, threads=2, context=512)


def test_a_file_recommends_samplers_and_penalties_too(tmp_path):
    keys = {
        "penalty_repeat": np.float32(1.3), "penalty_last_n": 32, "xtc_probability": 0.5, "xtc_threshold": 0.2,
        "mirostat": 2, "mirostat_tau": 4.0, "mirostat_eta": 0.2, "sequence": "penalties;top_k;typ;temp",
        "presence_penalty": 0.5, "frequency_penalty": -0.5, "typical_p": 0.9,
    }  # fmt: skip
    path = tiny_llama(tmp_path / "m.gguf", metadata={f"general.sampling.{key}": value for key, value in keys.items()})
    with opsin.load(path, threads=1, context=64) as model:
        assert model.notes == ()
        assert model.facts.sampling == Sampling(
            repeat_penalty=1.3, repeat_last_n=32, xtc_probability=0.5, xtc_threshold=0.2, mirostat=2, mirostat_tau=4.0,
            mirostat_eta=0.2, samplers="ekyt", presence_penalty=0.5, frequency_penalty=-0.5, typical_p=0.9,
        )  # fmt: skip


def test_tokens_that_a_file_suppresses_are_never_written(tmp_path):
    told = {}
    for name, more in {
        "free": {},
        "bound": {"tokenizer.ggml.suppress_tokens": Typed(ValueType.INT32, [66, 9999])},
    }.items():
        path = tiny_llama(tmp_path / f"{name}.gguf", metadata=more)
        with opsin.load(path, threads=1, context=64) as model:
            told[name] = model.complete(
                "the", temperature=0, max_tokens=8, logit_bias={66: 100, 67: 50}, ignore_eos=True
            )
            told[name].text  # noqa: B018 - waits
    assert {*told["free"].ids} == {66} and {*told["bound"].ids} == {67}
