"""Tools: through the unmodified `openai` client, whole and streamed, with a model that writes what a test says."""

from __future__ import annotations

import json

import openai
import pytest
from running_server import calling_model, running
from scripted import scripted

TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and m.reasoning_content %}<think>\n"
    "{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content or '' }}{% for c in m.tool_calls or [] %}{{ '\n' }}"
    "<tool_call>\n{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ c.function.arguments | tojson }}}\n"
    "</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)  # fmt: skip
SPECIALS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
MESSAGES = [{"role": "user", "content": "weather?"}]
PARAMETERS = {
    "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"],
}  # fmt: skip
TOOL = {"type": "function", "function": {"name": "weather", "description": "Tells.", "parameters": PARAMETERS}}
OTHER = {"type": "function", "function": {"name": "noon"}}
ASK = {"model": "x", "messages": MESSAGES, "temperature": 0, "tools": [TOOL, OTHER], "max_tokens": 400}


def call(name="weather", arguments='{"city": "Bj\u00f6rk<b>", "days": 3}'):
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


@pytest.fixture(scope="module", params=[SPECIALS, ()], ids=["tokens", "spelt"])
def model(request, tmp_path_factory):
    """A model that calls tools between markers, which are tokens or not."""
    with calling_model(tmp_path_factory.mktemp("calling"), TEMPLATE, request.param) as made:
        yield made


@pytest.fixture(scope="module")
def calling(model):
    with running(lambda: model) as made:
        yield made


@pytest.fixture(scope="module")
def client(calling):
    with calling.openai() as made:
        yield made


def whole(client, **fields):
    """What it says, what it thought, its calls and why it ended."""
    choice = client.chat.completions.create(**{**ASK, **fields}).choices[0]
    made = [(one.function.name, one.function.arguments) for one in choice.message.tool_calls or []]
    return choice.message.content, getattr(choice.message, "reasoning_content", None), made, choice.finish_reason


def streamed(client, **fields):
    """The same of a stream; ids and names stand once, in front, and arguments come in pieces."""
    content, thoughts, calls, reasons = "", "", {}, []
    for chunk in client.chat.completions.create(**{**ASK, **fields}, stream=True):
        choice = chunk.choices[0]
        content += choice.delta.content or ""
        thoughts += getattr(choice.delta, "reasoning_content", None) or ""
        for one in choice.delta.tool_calls or []:
            if one.index not in calls:
                assert (one.index, one.type) == (len(calls), "function")
                assert one.id
                calls[one.index] = [one.function.name, "", 0]
            else:
                assert (one.id, one.function.name) == (None, None)
            calls[one.index][1] += one.function.arguments
            calls[one.index][2] += 1
        reasons += [choice.finish_reason] if choice.finish_reason else []
    assert all(pieces > 3 for _, arguments, pieces in calls.values() if len(arguments) > 20)
    return content or None, thoughts or None, [(name, arguments) for name, arguments, _ in calls.values()], reasons[0]


REPLIES = {
    "a call": (call(), None, None, ["weather"]),
    "two calls": (call() + "\n" + call("noon", "{}"), None, None, ["weather", "noon"]),
    "text before": ("I look.\n" + call(), "I look.", None, ["weather"]),
    "thoughts before": ("<think>\nLook <tool_call>?\n</think>\n\n" + call(), None, "Look <tool_call>?", ["weather"]),
    "no call": ("It rains.", "It rains.", None, []),
}


@pytest.mark.parametrize("reply", REPLIES)
@pytest.mark.parametrize("read", [whole, streamed])
def test_calls_stand_apart_from_text_and_thoughts(model, client, read, reply):
    text, content, thoughts, names = REPLIES[reply]
    with scripted(model, text):
        told = read(client)
    assert told[:2] == (content, thoughts)
    assert [name for name, _ in told[2]] == names
    assert told[3] == ("tool_calls" if names else "stop")
    if "weather" in names:
        assert json.loads(told[2][0][1]) == {"city": "Bj\u00f6rk<b>", "days": 3}


@pytest.mark.parametrize("read", [whole, streamed])
def test_an_answer_that_is_cut_tells_what_there_is_of_its_call(model, client, read):
    with scripted(model, call()):
        _, _, calls, reason = read(client, max_tokens=len(model.tokenize(call()[:70], special=True)))
    assert reason == "length"
    assert calls[0][0] == "weather"
    assert calls[0][1].startswith('{"city"')


def test_several_answers_have_calls_and_ids_of_their_own(model, client):
    with scripted(model, call()):
        choices = client.chat.completions.create(**ASK, n=2, seed=1).choices
    ids = [choice.message.tool_calls[0].id for choice in choices]
    assert [choice.finish_reason for choice in choices] == ["tool_calls"] * 2
    assert len(set(ids)) == 2


def test_log_probabilities_come_beside_calls(model, client):
    with scripted(model, call()):
        answer = client.chat.completions.create(**ASK, logprobs=True)
        tokens = sum(
            len(chunk.choices[0].logprobs.content)
            for chunk in client.chat.completions.create(**ASK, logprobs=True, stream=True)
            if chunk.choices[0].logprobs
        )
    assert len(answer.choices[0].logprobs.content) == tokens == answer.usage.completion_tokens


def test_a_stop_text_ends_a_call_as_it_ends_a_text(model, client):
    with scripted(model, call()):
        _, _, calls, reason = whole(client, stop=["days"])
    assert reason == "tool_calls"
    assert calls == [("weather", '{"city": "Bj\u00f6rk<b>", "')]


def test_nothing_is_called_where_nothing_may_be(model, client):
    with scripted(model, call()):
        content, _, calls, reason = whole(client, tool_choice="none")
    assert (calls, reason) == ([], "stop")
    assert '"name": "weather"' in content


def test_openais_first_form(model, client):
    fields = {"tools": openai.NOT_GIVEN, "functions": [TOOL["function"]]}
    with scripted(model, call()):
        choice = client.chat.completions.create(**{**ASK, **fields}).choices[0]
        chunks = [*client.chat.completions.create(**{**ASK, **fields}, stream=True)]
    assert (choice.finish_reason, choice.message.function_call.name) == ("function_call", "weather")
    assert choice.message.tool_calls is None
    parts = [chunk.choices[0].delta.function_call for chunk in chunks if chunk.choices[0].delta.function_call]
    assert parts[0].name == "weather"
    assert "".join(part.arguments for part in parts) == choice.message.function_call.arguments
    assert chunks[-1].choices[0].finish_reason == "function_call"


def test_what_was_answered_goes_into_the_next_question(model, client, calling):
    with scripted(model, "<think>\nLook.\n</think>\n\nI look.\n" + call()):
        message = client.chat.completions.create(**ASK).choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "rain"}
    history = [*MESSAGES, message.model_dump(exclude_none=True), result]
    with scripted(model, "It rains."):
        assert whole(client, messages=history)[0] == "It rains."
    prompt = calling.ask("/apply-template", {"messages": history, "tools": [TOOL]}).json["prompt"]
    prompt = prompt.replace("\ufdd0", "")
    assert "<think>\nLook.\n</think>\n\nI look.\n<tool_call>" in prompt
    assert '"arguments": {"city": "Bj\u00f6rk<b>", "days": 3}' in prompt
    assert "rain" in prompt


def test_python_calls(model):
    def weather(city: str, days: int = 1):
        """Tells."""

    with scripted(model, "I look.\n" + call()):
        answer = model.chat("weather?", tools=[weather], temperature=0)
        assert (answer.text, answer.is_calling) == ("I look.", True)
    [made] = answer.tool_calls
    assert (made.name, made.read()) == ("weather", {"city": "Bj\u00f6rk<b>", "days": 3})
    result = {"role": "tool", "tool_call_id": made.id, "content": "rain"}
    assert "rain" in model.write([{"role": "user", "content": "weather?"}, answer.message, result])
