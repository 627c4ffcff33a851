"""Tokens join to the content also where a SentencePiece model's first word has a space before it."""

from __future__ import annotations

import pytest
from running_server import running
from test_api_first_space import spaced_llama
from test_chat import MESSAGES

import opsin


@pytest.fixture(scope="module")
def spaced(tmp_path_factory):
    with opsin.load(spaced_llama(tmp_path_factory.mktemp("spaces")), threads=1, context=64) as model:
        the = model.tokenizer.encode("the")[0]
        with running(lambda: model, defaults={"logit_bias": [[the, 100]], "n_predict": 2}) as made:
            yield made


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_of_a_conversation_join_to_its_content(spaced, stream):
    reply = spaced.chat(messages=MESSAGES, logprobs=True, top_logprobs=3, stream=stream)
    choices = [event["choices"][0] for event in (reply.events if stream else [reply.json]) if event["choices"]]
    said = "".join((choice["delta" if stream else "message"].get("content") or "") for choice in choices)
    told = [entry for choice in choices if choice["logprobs"] for entry in choice["logprobs"]["content"]]
    assert said == "the the" == "".join(entry["token"] for entry in told)
    assert bytes(byte for entry in told for byte in entry["bytes"]) == said.encode()
    rivals = [rival["token"] for rival in told[0]["top_logprobs"]]
    assert rivals and not any(token.startswith(" ") for token in rivals)  # each as it would be told in this place


def test_tokens_of_a_prompt_that_is_gone_on_with_keep_the_space(spaced):
    told = spaced.ask("/completion", {"prompt": "in", "n_probs": 1}).json
    assert told["content"] == " the the" == "".join(entry["token"] for entry in told["completion_probabilities"])
