"""Filling in the middle: the prompt's layout, what is taken of long texts, and models that cannot."""

from __future__ import annotations

import pytest
from running_server import running
from test_chat import LIVELY
from tiny import tiny_llama

import opsin

FIM = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
REPO = ("<|fim_repo|>", "<|file_sep|>")
ALWAYS = {**LIVELY, "ignore_eos": True, "max_tokens": 6}


@pytest.fixture(scope="module", params=[FIM, FIM + REPO], ids=["file", "repository"])
def coder(request, tmp_path_factory):
    """A server of a model with tokens for the middle, and for repositories or not."""
    path = tmp_path_factory.mktemp("code") / "m.gguf"
    tiny_llama(path, specials=request.param, metadata={"tokenizer.ggml.add_bos_token": True})
    with opsin.load(path, threads=1, context=256, sequences=2) as model, running(lambda: model) as made:
        yield made


def asked(coder, path="/infill", **fields):
    reply = coder.ask(path, {**ALWAYS, **fields})
    assert reply.status == 200, reply.body
    return reply.json


def test_the_middle_stands_behind_both_sides(coder):
    model = coder.service.model
    whole = asked(coder, input_prefix="def f(", input_suffix="):\n", prompt="a, ")
    last = "<|fim_prefix|>def f(a, <|fim_suffix|>):\n<|fim_middle|>"
    bos = model.tokenizer.piece(model.tokenizer.bos, special=True).decode()
    first = "<|fim_repo|>myproject\n<|file_sep|>filename\n" if model.tokenizer.fim["fim_sep"] else ""
    assert whole["prompt"] == first + bos + last
    assert whole["tokens_predicted"] == 6
    again = asked(coder, "/completion", prompt=model.tokenizer.encode(first + bos + last, special=True))
    assert again["content"] == whole["content"]


def test_other_files_come_first_with_their_names(coder):
    extra = [{"filename": "a.py", "text": "x = 1\n"}, {"text": "y = 2\n"}]
    whole = asked(coder, input_prefix="p", input_suffix="s", input_extra=extra)
    repository = coder.service.model.tokenizer.fim["fim_sep"]
    assert whole["prompt"].endswith("<|fim_prefix|>p<|fim_suffix|>s<|fim_middle|>")
    if repository:
        assert "myproject\n<|file_sep|>a.py\nx = 1\n<|file_sep|>tmp\ny = 2\n<|file_sep|>filename\n" in whole["prompt"]
    else:
        assert "\n\n--- snippet ---\n\nx = 1\n\n\n--- snippet ---\n\ny = 2\n" in whole["prompt"]


def test_of_long_texts_the_nearest_is_taken(coder):
    model = coder.service.model
    before, behind = "a b " * 300 + "NEAR", "NEXT" + " c d" * 300
    whole = asked(coder, input_prefix=before, input_suffix=behind)
    left, _, right = whole["prompt"].partition("<|fim_suffix|>")
    assert left.endswith("NEAR") and right.startswith("NEXT")
    count = [len(model.tokenize(side)) for side in (left.partition("<|fim_prefix|>")[2], right.removesuffix(FIM[2]))]
    assert count == [3 * (128 // 4), 128 // 4 - 2]


def test_markers_that_people_write_stay_text(coder):
    model = coder.service.model
    whole = asked(coder, input_prefix="a<|fim_middle|>b", input_suffix="<|fim_suffix|>", return_token_ids=True)
    gap = coder.ask(
        "/v1/completions", {**ALWAYS, "prompt": "a<|fim_middle|>b", "suffix": "c", "return_token_ids": True}
    )
    for ids in (gap.json["choices"][0]["prompt_token_ids"],):
        assert [ids.count(model.tokenizer.fim[role]) for role in ("fim_pre", "fim_suf", "fim_mid")] == [1, 1, 1]
    assert whole["prompt"].count("<|fim_middle|>") == 2


def test_openais_suffix_is_the_same(coder):
    whole = asked(coder, input_prefix="def f(", input_suffix="):\n")
    for stream in (False, True):
        body = {**ALWAYS, "prompt": "def f(", "suffix": "):\n", "echo": True, "stream": stream}
        reply = coder.ask("/v1/completions", body)
        choices = [e["choices"][0] for e in reply.events] if stream else reply.json["choices"]
        assert "".join(choice["text"] for choice in choices) == "def f(" + whole["content"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"input_prefix": "a"}, "input_suffix"),
        ({"input_suffix": "a"}, "input_prefix"),
        ({"input_prefix": "a", "input_suffix": "b", "prompt": ["c"]}, "prompt"),
        ({"input_prefix": {}, "input_suffix": "b"}, "input_prefix"),
        ({"input_prefix": "a", "input_suffix": "b", "input_extra": {}}, "input_extra"),
        ({"input_prefix": "a", "input_suffix": "b", "input_extra": [{}]}, "input_extra[0].text"),
        ({"input_prefix": "a", "input_suffix": "b", "input_extra": [{"filename": "x"}]}, "input_extra[0].text"),
        ({"input_prefix": "a", "input_suffix": "b", "input_extra": [{"filename": 1, "text": "x"}]},
         "input_extra[0].filename"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(coder, body, field):
    reply = coder.ask("/infill", body)
    assert (reply.status, reply.json["error"]["param"]) == (400, field)


def test_a_model_that_cannot_says_so(server):
    reply = server.ask("/infill", {"input_prefix": "a", "input_suffix": "b"})
    assert (reply.status, reply.json["error"]["type"]) == (501, "not_supported_error")
    assert (
        "prefix token is missing. suffix token is missing. middle token is missing." in reply.json["error"]["message"]
    )
    assert server.ask("/v1/completions", {"prompt": "a", "suffix": "b"}).status == 400
