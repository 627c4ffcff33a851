"""Texts and ids in vLLM's shapes, and what harnesses read of log-probabilities with them."""

from __future__ import annotations

import pytest
from running_server import running
from test_chat import MESSAGES
from tiny import tiny_llama

import opsin


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A server of a model whose prompts begin with a token of the file's."""
    path = tiny_llama(tmp_path_factory.mktemp("t") / "m.gguf", metadata={"tokenizer.ggml.add_bos_token": True})
    with opsin.load(path, threads=1, context=128, sequences=2) as model, running(lambda: model) as made:
        yield made


def test_nothing_has_no_tokens(server):
    assert server.ask("/tokenize", {}).json == {"tokens": []}
    assert server.ask("/detokenize", {}).json["content"] == ""


def test_vllms_names_are_known(opened):
    model = opened.service.model
    ids = model.tokenize("the rain")
    told = opened.ask("/tokenize", {"prompt": "the rain"}).json
    assert told == {
        "count": len(ids) + 1,
        "max_model_len": 128,
        "token_strs": None,
        "tokens": [model.tokenizer.bos, *ids],
    }
    bare = opened.ask("/tokenize", {"prompt": "the rain", "add_special_tokens": False, "return_token_strs": True}).json
    assert bare["tokens"] == ids and "".join(bare["token_strs"]) == "the rain"
    assert opened.ask("/detokenize", {"tokens": ids}).json["prompt"] == "the rain"
    assert opened.ask("/tokenize", {"prompt": 5}).json["error"]["param"] == "prompt"
    assert opened.ask("/tokenize", {"messages": MESSAGES}).json["error"]["param"] == "messages"


def test_special_tokens_and_the_template_are_told(opened):
    info = opened.ask("/tokenizer_info").json
    template = opened.ask("/props").json["chat_template"]
    assert (info["chat_template"], info["add_bos_token"], info["model_max_length"]) == (template, True, 128)
    for name in ("bos", "eos"):
        text = info[f"{name}_token"]
        id = getattr(opened.service.model.tokenizer, name)
        assert opened.ask("/tokenize", {"prompt": text, "add_special_tokens": False}).json["tokens"] == [id]


def test_an_id_that_ends_an_answer_is_told_how_likely_it_was(opened, monkeypatch):
    """Harnesses ask for one id after a prompt, and leave the last entry out: it must be there though answers end."""
    model, prompt = opened.service.model, [5, 9, 7]
    end = int(model.logits(prompt)[-1].argmax())
    monkeypatch.setattr(model.engine, "_ends", frozenset({end}))
    body = {"prompt": prompt, "max_tokens": 1, "logprobs": 1, "temperature": 0, "echo": True}
    told = opened.ask("/v1/completions", body).json["choices"][0]
    assert told["finish_reason"] == "stop"
    assert len(told["logprobs"]["token_logprobs"]) == len(prompt) + 1
    streamed = opened.ask("/v1/completions", {**body, "stream": True}).events
    assert sum(len((e["choices"][0]["logprobs"] or {}).get("tokens", ())) for e in streamed) == len(prompt) + 1
    native = opened.ask("/completion", {**body, "n_probs": 1}).json
    assert [entry["id"] for entry in native["completion_probabilities"]] == [end]
    assert native["tokens_predicted"] == 0
