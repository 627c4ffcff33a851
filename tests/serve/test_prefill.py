"""Conversations that end with the assistant are gone on with, by templates of many kinds."""

from __future__ import annotations

import pytest
from running_server import running
from test_chat import LIVELY, MESSAGES
from tiny import tiny_llama

import opsin

HELLO = {"role": "assistant", "content": "Hello, my  "}
BEGUN = [*MESSAGES, HELLO]
PROMPT = "<|im_start|>user\nthe rain in Spain<|im_end|>\n<|im_start|>assistant\n"
ALWAYS = {**LIVELY, "ignore_eos": True, "max_tokens": 6}


def prompt(server, messages, **fields):
    reply = server.ask("/apply-template", {"messages": messages, **fields})
    assert reply.status == 200, reply.body
    return reply.json["prompt"].replace("\u2060", "")


def test_the_last_turn_is_begun_and_not_closed(server):
    assert prompt(server, BEGUN) == PROMPT + "Hello, my  "
    explicit = {"continue_final_message": True, "add_generation_prompt": False}
    assert (
        prompt(server, BEGUN, **explicit)
        == prompt(server, BEGUN, add_generation_prompt=False)
        == PROMPT + "Hello, my  "
    )
    parts = [{"type": "text", "text": "Hello,"}, {"type": "text", "text": "my"}]
    assert prompt(server, [*MESSAGES, {**HELLO, "content": parts}]) == PROMPT + "Hello,\n\nmy"
    for name in ("prefix", "partial"):
        assert prompt(server, [*MESSAGES, {**HELLO, name: True}]) == PROMPT + "Hello, my  "
    assert prompt(server, [*MESSAGES, {**HELLO, "content": ""}]) == PROMPT
    assert prompt(server, MESSAGES, add_generation_prompt=False) == PROMPT.removesuffix("<|im_start|>assistant\n")


def test_words_that_markers_hold_too_are_found_where_somebody_said_them(server):
    for word in ("end", "im_end", "|", "s", "<|im_end|>", "assistant"):
        messages = [{"role": "user", "content": word}, {"role": "assistant", "content": word}]
        reply = server.ask("/apply-template", {"messages": messages}).json["prompt"]
        ids = server.ask("/tokenize", {"content": reply}).json["tokens"]
        text = server.ask("/detokenize", {"tokens": ids}).json["content"]
        assert text == f"<|im_start|>user\n{word}<|im_end|>\n<|im_start|>assistant\n{word}"
        assert ids.count(ids[0]) == 2  # and nobody's words are markers


def test_the_answer_goes_on_where_the_text_stops(server, text_model):
    raw = server.ask("/completion", {"prompt": prompt(server, BEGUN), **ALWAYS}).json
    whole = server.chat(messages=BEGUN, **ALWAYS).json
    assert whole["usage"]["prompt_tokens"] == raw["tokens_evaluated"]
    assert whole["choices"][0]["message"]["content"] == "Hello, my  " + raw["content"]
    for echo in (False, True):
        events = server.chat(messages=BEGUN, **ALWAYS, stream=True, echo=echo).events
        text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
        assert text == "Hello, my  " * echo + raw["content"]


@pytest.mark.parametrize(
    ("messages", "fields", "param"),
    [
        (BEGUN, {"continue_final_message": True}, "add_generation_prompt"),
        (BEGUN, {"continue_final_message": True, "add_generation_prompt": True}, "add_generation_prompt"),
        (MESSAGES, {"continue_final_message": True, "add_generation_prompt": False}, "messages"),
        ([*BEGUN, HELLO], {}, "messages"),
        (BEGUN, {"continue_final_message": "tools", "add_generation_prompt": False}, "continue_final_message"),
        (BEGUN, {"continue_final_message": "reasoning_content", "add_generation_prompt": False}, "messages"),
        ([{**HELLO, "prefix": True}, *MESSAGES], {}, "messages[0].prefix"),
        ([*MESSAGES, {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f"}}]}], {}, "messages"),
        ([*MESSAGES, {**HELLO, "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}], {}, "messages"),
    ],
)
def test_what_cannot_be_gone_on_with_is_refused(server, messages, fields, param):
    for path in ("/v1/chat/completions", "/apply-template"):
        reply = server.ask(path, {"messages": messages, **fields})
        assert (reply.status, reply.json["error"]["param"]) == (400, param)


def test_openais_client_goes_on_with_a_text(server):
    with server.openai() as client:
        extra = {"ignore_eos": True, "continue_final_message": True, "add_generation_prompt": False}
        made = client.chat.completions.create(model="x", messages=BEGUN, max_tokens=3, extra_body=extra)
        assert made.choices[0].message.content.startswith("Hello, my  ")


THINKS = (
    "{% for m in messages %}<|im_start|>{{ m.role + '\n' }}{% if m.role == 'assistant' %}<think>\n"
    "{{ m.reasoning_content or '' }}\n</think>\n\n{% endif %}{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
SHOUTS = (
    "{% for m in messages %}{{ m.role }}: {{ m.content | replace('l', 'L') }};{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
SPACED = "{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>{% endfor %}"
THOUGHT = {"role": "assistant", "content": "", "reasoning_content": "Well"}


@pytest.mark.parametrize(
    ("template", "last", "expected"),
    [
        (THINKS, HELLO, "<|im_start|>assistant\n<think>\n\n</think>\n\nHello, my  "),
        (THINKS, {**HELLO, "reasoning_content": "Well"}, "<think>\nWell\n</think>\n\nHello, my  "),
        (THINKS, THOUGHT, "<|im_start|>assistant\n<think>\nWell"),
        (SHOUTS, HELLO, ";assistant: Hello, my  "),
        (SPACED, HELLO, "</s>[assistant] Hello, my  "),
    ],
)
def test_a_turn_is_begun_as_the_template_writes_it(tmp_path, template, last, expected):
    path = tiny_llama(tmp_path / "t.gguf", metadata={"tokenizer.chat_template": template})
    with opsin.load(path, threads=1, context=128, sequences=1) as model, running(lambda: model) as server:
        assert prompt(server, [*MESSAGES, last]).endswith(expected)
        if last is THOUGHT:
            message = server.chat(messages=[*MESSAGES, last], **ALWAYS).json["choices"][0]["message"]
            assert message["reasoning_content"].startswith("Well")


def test_an_operator_may_have_answers_begun_anew(text_model, server):
    turn = PROMPT + "Hello, my  <|im_end|>\n<|im_start|>assistant\n"
    with running(lambda: text_model, prefill=False) as made:
        assert prompt(made, BEGUN) == turn
        assert prompt(made, [*BEGUN, HELLO]).count("Hello, my") == 2
        whole = made.chat(messages=BEGUN, **ALWAYS).json["choices"][0]["message"]["content"]
        raw = made.ask("/completion", {"prompt": turn, **ALWAYS}).json["content"]
        assert whole == raw
        for wish in ({"continue_final_message": True, "add_generation_prompt": False}, {}):
            last = HELLO if wish else {**HELLO, "prefix": True}
            assert prompt(made, [*MESSAGES, last], **wish) == PROMPT + "Hello, my  "
