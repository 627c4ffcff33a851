"""The fields of OpenAI's chat requests, through its unmodified client: each is honoured, or refused by name."""

from __future__ import annotations

import openai
import pytest
from running_server import running
from test_chat import LIVELY, MESSAGES
from tiny import SPECIALS, tiny_llama

import opsin

EXTRA = {name: LIVELY[name] for name in ("top_k", "min_p")} | {"ignore_eos": True}
ASK = {"model": "x", "messages": MESSAGES, "seed": 5, "temperature": 9.0, "top_p": 1.0, "max_tokens": 12}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
TOOLS_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role + '\n' + (m.content or '') }}{% for call in m.tool_calls or [] %}"
    "<call>{{ call.function.name }}({{ call.function.arguments }})#{{ call.id }}{% endfor %}{{ m.name or '' }}"
    "{{ m.tool_call_id or '' }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


def create(client, **fields):
    extra = {**EXTRA, **fields.pop("extra_body", {})}
    return client.chat.completions.create(**{**ASK, **fields}, extra_body=extra)


def text(client, **fields):
    return create(client, **fields).choices[0].message.content


def test_a_seed_repeats_and_another_one_does_not(client):
    assert text(client) == text(client) != text(client, seed=6)
    assert len({text(client, seed=None) for _ in range(4)}) > 1


def test_both_names_of_the_longest_answer_are_known(client):
    assert create(client, max_tokens=3).usage.completion_tokens == 3
    assert create(client, max_tokens=openai.NOT_GIVEN, max_completion_tokens=5).usage.completion_tokens == 5
    assert create(client, max_tokens=3).choices[0].finish_reason == "length"


def test_any_of_a_list_of_stop_texts_ends_an_answer(client):
    whole = text(client, max_tokens=24)
    early, late = whole[6:9], whole[12:15]
    stopped = create(client, max_tokens=24, stop=[late, early, "never said"])
    assert stopped.choices[0].message.content == whole[: min(whole.index(early), whole.index(late))]
    assert stopped.choices[0].finish_reason == "stop"
    assert text(client, max_tokens=24, stop=[]) == whole


def test_several_choices_are_streamed_side_by_side_with_one_usage(client):
    whole = create(client, n=3)
    texts, usages = [""] * 3, []
    for chunk in create(client, n=3, stream=True, stream_options={"include_usage": True}):
        usages += [chunk.usage] if chunk.usage else []
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]
    assert len(set(texts)) == 3
    assert [usage.completion_tokens for usage in usages] == [36]
    assert chunk.choices == []  # the usage comes last


def test_no_usage_where_none_was_asked_for(client):
    for options in (None, {"include_usage": False}):
        assert [c for c in create(client, stream=True, stream_options=options) if c.usage] == []


def test_streamed_log_probabilities_are_those_of_the_whole(client):
    whole = create(client, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    chunks = create(client, logprobs=True, top_logprobs=2, stream=True)
    streamed = [entry for c in chunks if c.choices[0].logprobs for entry in c.choices[0].logprobs.content]
    assert [(entry.token, entry.bytes) for entry in streamed] == [(entry.token, entry.bytes) for entry in whole]
    assert len(whole) == 12
    assert create(client).choices[0].logprobs is None


def test_a_developer_is_a_system_to_a_template_that_knows_none(client, text_model):
    said = [{"role": "developer", "content": "be brief"}, *MESSAGES]
    system = [{"role": "system", "content": "be brief"}, *MESSAGES]
    assert text_model.chat_prompt(said) == text_model.chat_prompt(system)
    assert text(client, messages=said) == text(client, messages=system)


def test_a_template_that_names_developers_gets_them(tmp_path):
    template = (
        "{% for m in messages %}{% if m.role == 'developer' %}D{% endif %}{{ m.role }} {{ m.content }}{% endfor %}"
    )
    path = tiny_llama(tmp_path / "d.gguf", metadata={"tokenizer.chat_template": template})
    with opsin.load(path, threads=1, context=128, sequences=1) as model:
        assert model.write([{"role": "developer", "content": "x"}]) == "Ddeveloper x"


@pytest.mark.parametrize(
    "field",
    [
        {"user": "somebody"}, {"metadata": {"a": "b"}}, {"store": False}, {"service_tier": "auto"},
        {"parallel_tool_calls": True}, {"reasoning_effort": "low"}, {"extra_body": {"nobody_knows": [1, {"a": None}]}},
        {"response_format": {"type": "text"}}, {"tool_choice": "none"}, {"tool_choice": "auto"}, {"tools": []},
        {"logit_bias": {}}, {"presence_penalty": 0.0}, {"modalities": ["text"]},
    ],
)  # fmt: skip
def test_fields_that_ask_for_nothing_and_those_that_nobody_knows_change_nothing(client, field):
    assert text(client, **field) == text(client)


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ({"tools": [TOOL, TOOL]}, "tools[1].function.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "look"}}}, "tool_choice"),
        ({"functions": [{}]}, "functions[0].name"),
        ({"function_call": {"name": "look"}}, "function_call"),
        ({"response_format": {"type": "sound"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}, "audio"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"web_search_options": {"search_context_size": "low"}}, "web_search_options"),
        ({"extra_body": {"chat_template": "{{ messages }}"}}, "chat_template"),
        ({"extra_body": {"continue_final_message": "x"}}, "continue_final_message"),
        ({"extra_body": {"guided_json": {"not": {}}}}, "guided_json"),
        ({"n": 17}, "n"),
        ({"n": 0}, "n"),
        ({"stop": ["a"] * 65}, "stop"),
        ({"stop": ["a" * 33_000, "b" * 33_000]}, "stop"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"max_tokens": -2}, "max_tokens"),
        ({"seed": 1.5}, "seed"),
        ({"logit_bias": {"5": True}}, "logit_bias"),
        ({"presence_penalty": "much"}, "presence_penalty"),
        ({"extra_body": {"repeat_penalty": 0}}, "repeat_penalty"),
        ({"extra_body": {"samplers": ["tfs_z"]}}, "samplers"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_done_is_refused_by_name(client, field, name, stream):
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, stream=stream, **field)
    assert caught.value.param == name
    assert name in caught.value.message


@pytest.fixture(scope="module")
def calling(tmp_path_factory):
    """A model whose template writes calls of tools."""
    path = tmp_path_factory.mktemp("calling") / "tools.gguf"
    tiny_llama(path, specials=("<call>",), metadata={"tokenizer.chat_template": TOOLS_TEMPLATE})
    with opsin.load(path, threads=1, context=512, sequences=2) as model, running(lambda: model) as made:
        yield made


HISTORY = [
    {"role": "user", "content": "w?"},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"city": "Paris"}'}}]},
    {"role": "tool", "tool_call_id": "c", "content": "42"},
]  # fmt: skip


@pytest.mark.parametrize("null", [{"content": None}, {}, {"content": ""}])
def test_calls_without_a_text_are_answered(server, calling, null):
    """Also by a template that knows no calls: they are text then, and none is lost."""
    for asked in (server, calling):
        messages = [HISTORY[0], {**{k: v for k, v in HISTORY[1].items() if k != "content"}, **null}, HISTORY[2]]
        reply = asked.chat(messages=messages, max_tokens=1)
        assert reply.status == 200, reply.json
        text = asked.ask("/apply-template", {"messages": messages}).json["prompt"]
        assert all(word in text for word in ("Paris", "42"))
        assert "None" not in text


@pytest.mark.parametrize("special", [*SPECIALS, "<call>"])
@pytest.mark.parametrize("place", ["arguments", "name", "id", "content", "result", "result_id"])
def test_special_tokens_in_calls_of_tools_stay_text(calling, place, special):
    def messages(word):
        words = {"arguments": "x", "name": "x", "id": "x", "content": "x", "result": "x", "result_id": "x", place: word}
        call = {"id": words["id"], "type": "function",
                "function": {"name": words["name"], "arguments": words["arguments"]}}  # fmt: skip
        return [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": words["content"], "tool_calls": [call]},
            {"role": "tool", "content": words["result"], "tool_call_id": words["result_id"]},
        ]

    model = calling.service.model
    plain, wrong = (model.chat_prompt(messages(word)).spans[0].ids for word in ("x", f'{{"a": "{special}"}}'))
    controls = {model.tokenize(text, special=True)[0] for text in (*SPECIALS, "<call>")}
    assert [id for id in wrong if id in controls] == [id for id in plain if id in controls]
    assert special in model.tokenizer.decode(wrong)
    reply = calling.chat(messages=messages(special), max_tokens=1)
    assert reply.status == 200
    assert reply.json["usage"]["prompt_tokens"] == model.count(messages(special))
