"""The unmodified `openai` client."""

from __future__ import annotations

import openai
import pytest

MESSAGES = [{"role": "user", "content": "the rain in Spain"}]


def test_it_lists_models(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "opsin"


def test_it_asks_whole_and_streamed(client):
    whole = client.chat.completions.create(model="any", messages=MESSAGES, temperature=0, max_tokens=20)
    assert whole.choices[0].message.content
    assert whole.usage.prompt_tokens > 0
    text, usage = "", None
    for chunk in client.chat.completions.create(
        model="any", messages=MESSAGES, temperature=0, max_tokens=20, stream=True,
        stream_options={"include_usage": True},
    ):  # fmt: skip
        text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        usage = chunk.usage or usage
    assert text == whole.choices[0].message.content
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_it_reads_log_probabilities(client):
    choice = client.chat.completions.create(
        model="any", messages=MESSAGES, temperature=0, max_tokens=3, logprobs=True, top_logprobs=2
    ).choices[0]
    assert len(choice.logprobs.content[0].top_logprobs) == 2


def test_it_raises_its_own_errors(client):
    with pytest.raises(openai.BadRequestError, match="messages"):
        client.chat.completions.create(model="any", messages=[])
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
