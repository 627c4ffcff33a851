"""lm_eval: generation and multiple choice, against chats and completions."""

from __future__ import annotations

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI


@pytest.fixture(scope="module")
def completions(text_address):
    return LocalCompletionsAPI(
        base_url=f"{text_address}/completions", model="any", tokenizer_backend="remote", tokenized_requests=True
    )


def test_generation(completions):
    asked = Instance("generate_until", {}, ("The sky is", {"until": ["\n"], "max_gen_toks": 8}), 0)
    assert completions.generate_until([asked])[0]


def test_multiple_choice(completions):
    asked = [Instance("loglikelihood", {}, ("The capital of France is", end), 0) for end in (" Paris", " a spoon")]
    (right, _), (wrong, _) = completions.loglikelihood(asked)
    assert right > wrong
    assert right < 0


def test_chats(text_address):
    model = LocalChatCompletion(base_url=f"{text_address}/chat/completions", model="any")
    asked = Instance("generate_until", {}, ("The sky is", {"until": ["\n"], "max_gen_toks": 8}), 0)
    chat = model.apply_chat_template([{"role": "user", "content": "The sky is"}])
    assert model.generate_until([Instance("generate_until", {}, (chat, asked.args[1]), 0)])[0]
