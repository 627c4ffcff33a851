"""Thoughts apart from answers, and no longer than they may be: through the unmodified `openai` client, and Python."""

from __future__ import annotations

import openai
import pytest
from running_server import running
from scripted import scripted
from tiny import tiny_llama

import opsin

SOURCE = (
    "{% for m in messages %}<|im_start|>{{ m.role + '\n' }}{% if m.reasoning_content %}<think>\n"
    "{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
MESSAGES = [{"role": "user", "content": "why?"}]
ASK = {"model": "x", "messages": MESSAGES, "temperature": 0}
REPLY = "<think>\nWell, <b>.\n</think>\n\nSo \u00e9.\n"
THOUGHT, ANSWER = "Well, <b>.", "So \u00e9.\n"


@pytest.fixture(scope="module", params=[(), ("<think>", "</think>")], ids=["spelt", "tokens"])
def model(request, tmp_path_factory):
    """A model that thinks between markers, which are tokens or not."""
    path = tmp_path_factory.mktemp("thinking") / "t.gguf"
    tiny_llama(path, specials=request.param, metadata={"tokenizer.chat_template": SOURCE})
    with opsin.load(path, threads=1, context=512, sequences=4) as made:
        yield made


@pytest.fixture(scope="module")
def thinking(model):
    with running(lambda: model) as made:
        yield made


@pytest.fixture(scope="module")
def client(thinking):
    with thinking.openai() as made:
        yield made


def asked(client, stream=False, **extra):
    """Thoughts and content."""
    if not stream:
        message = client.chat.completions.create(**ASK, extra_body=extra).choices[0].message
        return getattr(message, "reasoning_content", None), message.content
    deltas = [chunk.choices[0].delta for chunk in client.chat.completions.create(**ASK, stream=True, extra_body=extra)]
    thoughts = [delta.reasoning_content for delta in deltas if getattr(delta, "reasoning_content", None)]
    return "".join(thoughts) or None, "".join(delta.content or "" for delta in deltas)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "thoughts", "content"),
    [
        ({}, THOUGHT, ANSWER),
        ({"reasoning_format": "auto"}, THOUGHT, ANSWER),
        ({"reasoning_format": "deepseek"}, THOUGHT, ANSWER),
        ({"reasoning_format": "none"}, None, REPLY),
        ({"include_reasoning": False}, None, ANSWER),
        ({"reasoning": {"exclude": True}}, None, ANSWER),
    ],
)
def test_thoughts_stand_apart_from_the_answer(model, client, stream, fields, thoughts, content):
    with scripted(model, REPLY):
        assert asked(client, stream, **fields) == (thoughts, content)


def test_deepseek_legacy_leaves_thoughts_in_the_content_of_streams(model, client):
    with scripted(model, REPLY):
        assert asked(client, False, reasoning_format="deepseek-legacy") == (THOUGHT, ANSWER)
        assert asked(client, True, reasoning_format="deepseek-legacy") == (None, REPLY)


def test_thoughts_are_counted(model, client):
    with scripted(model, REPLY):
        usage = client.chat.completions.create(**ASK).usage
        assert 0 < usage.completion_tokens_details.reasoning_tokens < usage.completion_tokens
    with scripted(model, "So."):
        assert client.chat.completions.create(**ASK).usage.completion_tokens_details.reasoning_tokens == 0


@pytest.mark.parametrize(
    "field",
    [
        {"thinking_budget_tokens": 4}, {"reasoning_budget_tokens": 4}, {"thinking_token_budget": 4},
        {"reasoning_budget": 4}, {"reasoning": {"max_tokens": 4}},
        {"thinking": {"type": "enabled", "budget_tokens": 4}},
    ],
)  # fmt: skip
def test_thoughts_are_ended_after_so_many_tokens(model, client, field):
    with scripted(model, "<think>\nWell</think>So."):
        thoughts, content = asked(client, **field)
    assert thoughts == "Wel"  # the end of the line is one of the four
    assert content.startswith("l")  # the script goes on


def test_thoughts_that_are_ended_have_a_last_word(model, client):
    words = {"thinking_budget_tokens": 4, "reasoning_budget_message": " <think> Enough."}
    for stream in (False, True):
        with scripted(model, "<think>\nWell</think>So."):
            thoughts, content = asked(client, stream, **words)
        assert (thoughts, content[0]) == ("Wel <think> Enough.", "l")
    with scripted(model, REPLY):
        assert asked(client, **{**words, "thinking_budget_tokens": -1}) == (THOUGHT, ANSWER)
    with scripted(model, "So."):  # none are wanted: none are ended
        assert asked(client, enable_thinking=False, reasoning_budget_message="Enough.") == (None, "So.")


def test_no_thoughts_are_wanted(model, client):
    for field in ({"thinking_budget_tokens": 0}, {"thinking": {"type": "enabled", "budget_tokens": 0}}):
        with scripted(model, "<think>Well"):
            assert asked(client, **field) == (None, "Well")
    with scripted(model, "So."):
        assert asked(client, enable_thinking=False) == (None, "So.")


def test_a_budget_beyond_the_thoughts_changes_nothing(model, client):
    for most in (-1, 1000):
        with scripted(model, REPLY):
            assert asked(client, thinking_budget_tokens=most) == (THOUGHT, ANSWER)


@pytest.mark.parametrize(
    ("field", "value"),
    [("reasoning_format", "other"), ("thinking_budget_tokens", -2), ("reasoning_budget", "x"), ("reasoning_format", 5)],
)
def test_what_cannot_be_taken_is_named(client, field, value):
    with pytest.raises(openai.BadRequestError) as caught:
        asked(client, **{field: value})
    assert caught.value.param == field


def test_a_prompt_that_stands_as_it_is_has_a_budget_too(model, thinking):
    prompt = thinking.ask("/apply-template", {"messages": MESSAGES}).json["prompt"] + "<think>\n"
    with scripted(model, "Well, so"):
        body = {"prompt": prompt, "temperature": 0, "thinking_budget_tokens": 4}
        assert thinking.ask("/completion", body).json["content"].replace("</think>", "") == "Well, so"


def test_histories_hold_thoughts_as_the_template_wants_them(thinking):
    messages = [*MESSAGES, {"role": "assistant", "content": "So.", "reasoning_content": "Well."}, *MESSAGES]
    prompt = thinking.ask("/apply-template", {"messages": messages}).json["prompt"]
    assert "<think>\nWell.\n</think>\n\nSo." in prompt.replace("\ufdd0", "")


def test_python_tells_thoughts_apart(model):
    with scripted(model, REPLY):
        answer = model.chat(MESSAGES, temperature=0)
        assert "".join(answer) == ANSWER
        assert (answer.text, answer.thoughts, answer.tool_calls) == (ANSWER, THOUGHT, [])
        assert answer.message == {"role": "assistant", "content": ANSWER, "reasoning_content": THOUGHT}
