"""What a request tells the template beside messages: tools, thoughts, variables. And what the prompt makes of it."""

from __future__ import annotations

from datetime import datetime

import pytest
from running_server import running
from tiny import SPECIALS, tiny_llama

import opsin

CHAT, COUNT, TEMPLATE = "/v1/chat/completions", "/v1/chat/completions/input_tokens", "/apply-template"
MESSAGES = [{"role": "user", "content": "hi"}]
SOURCE = (
    "{% for tool in tools or [] %}<|im_start|>{{ tool | tojson }}<|im_end|>{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role + '\n' + m.content }}<|im_end|>\n{% endfor %}"
    "{{ [enable_thinking, thinking, reasoning_effort, note] }}<|im_start|>assistant\n"
)
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {}}}}}
FUNCTION = TOOL["function"]


@pytest.fixture(scope="module")
def telling(tmp_path_factory):
    """A model whose template writes out what it is told."""
    path = tiny_llama(tmp_path_factory.mktemp("telling") / "t.gguf", metadata={"tokenizer.chat_template": SOURCE})
    with opsin.load(path, threads=1, context=1024, sequences=2) as model, running(lambda: model) as made:
        yield made


def told(server, **fields):
    """The variables that the template sees, as it writes them."""
    reply = server.ask(TEMPLATE, {"messages": MESSAGES, **fields})
    assert reply.status == 200, reply.json
    return reply.json["prompt"].split("<|im_end|>\n")[1].partition("<|im_start|>")[0].replace("\ufdd0", "")


NOTHING = "[True, , , ]"  # what nobody says, as llama-server tells it


@pytest.mark.parametrize(
    ("fields", "seen"),
    [
        ({}, NOTHING),
        ({"enable_thinking": True}, "[True, True, , ]"),
        ({"enable_thinking": False}, "[False, False, , ]"),
        ({"think": False}, "[False, False, , ]"),
        ({"think": "high"}, "[True, True, high, ]"),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, "[True, True, , ]"),
        ({"thinking": {"type": "disabled"}}, "[False, False, , ]"),
        ({"thinking": {"type": "adaptive"}}, NOTHING),
        ({"thinking": False}, "[False, False, , ]"),
        ({"reasoning": {"effort": "low"}}, "[True, , low, ]"),
        ({"reasoning": {"enabled": False}}, "[False, False, , ]"),
        ({"reasoning_effort": "high"}, "[True, , high, ]"),
        ({"reasoning_effort": "none"}, "[False, False, , ]"),
        ({"reasoning_effort": "none", "enable_thinking": True}, "[False, False, , ]"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "[False, False, , ]"),
        ({"chat_template_kwargs": {"note": "mine", "thinking": True}}, "[True, True, , mine]"),
        ({"chat_template_kwargs": {}}, NOTHING),
        ({"chat_template_kwargs": {"reasoning_effort": "low"}, "reasoning_effort": "high"}, "[True, , high, ]"),
    ],
)
def test_a_template_is_told_whether_and_how_hard_to_think(telling, fields, seen):
    listed = told(telling, **fields).replace("Undefined", "").replace("'", "")
    assert listed == seen


def test_a_template_is_told_what_day_it_is_unless_a_request_says_another(tmp_path):
    source = "{% for m in messages %}{{ m.content }}{% endfor %}; {{ date_string }}; {{ datetime }}{{ functions }}"
    path = tiny_llama(tmp_path / "t.gguf", metadata={"tokenizer.chat_template": source})
    with opsin.load(path, threads=1, context=256, sequences=1) as model, running(lambda: model) as server:
        _, first, second = server.ask(TEMPLATE, {"messages": MESSAGES}).json["prompt"].split("; ")
        asked = {"messages": MESSAGES, "chat_template_kwargs": {"date_string": "26 Jul 2024"}}
        other = server.ask(TEMPLATE, asked).json["prompt"]
    assert second.endswith("[]")
    assert datetime.strptime(first, "%d %b %Y") == datetime.strptime(second[:-2], "%b %d %Y")
    assert other.split("; ")[1] == "26 Jul 2024"


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"chat_template_kwargs": {"enable_thinking": "true"}}, "chat_template_kwargs.enable_thinking"),
        ({"chat_template_kwargs": "x"}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
        ({"chat_template_kwargs": {"self": 1}}, "chat_template_kwargs.self"),
        ({"chat_template_kwargs": {"a b": 1}}, "chat_template_kwargs.a b"),
        ({"enable_thinking": "yes"}, "enable_thinking"),
        ({"enable_thinking": True, "think": False}, "think"),
        ({"thinking": {"type": "hard"}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": -2}}, "thinking.budget_tokens"),
        ({"reasoning": {"effort": "very hard"}}, "reasoning.effort"),
        ({"reasoning_effort": 5}, "reasoning_effort"),
        ({"reasoning_effort": "a\n"}, "reasoning_effort"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [TOOL, {"type": "function", "function": {"name": "a b"}}]}, "tools[1].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a\n"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a" * 129}}]}, "tools[0].function.name"),
        ({"functions": [{"name": "a", "parameters": []}]}, "functions[0].parameters"),
        ({"tools": [TOOL, TOOL]}, "tools[1].function.name"),
        ({"tools": [TOOL], "functions": [FUNCTION]}, "functions"),
        ({"functions": [FUNCTION, FUNCTION]}, "functions[1].name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": "perhaps"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "hear"}}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "x", "tools": []}}},
         "tool_choice.mode"),
        ({"tools": [TOOL], "function_call": {"name": "hear"}}, "function_call"),
        ({"tools": [TOOL], "parallel_tool_calls": "yes"}, "parallel_tool_calls"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", [CHAT, COUNT, TEMPLATE])
def test_what_cannot_be_taken_is_named(telling, path, fields, name):
    reply = telling.ask(path, {"messages": MESSAGES, "max_tokens": 1, **fields})
    assert (reply.status, reply.json["error"].get("param")) == (400, name), reply.json


def test_tools_stand_in_the_prompt_and_in_what_is_counted(telling):
    texts, counts = [], []
    for fields in ({}, {"tools": []}, {"tools": [TOOL]}, {"functions": [FUNCTION]}):
        texts.append(telling.ask(TEMPLATE, {"messages": MESSAGES, **fields}).json["prompt"])
        counts.append(telling.ask(COUNT, {"messages": MESSAGES, **fields}).json["input_tokens"])
    assert texts[0] == texts[1]
    assert '"name": "look"' in texts[2].replace("\ufdd0", "")
    assert texts[2] == texts[3]
    assert counts[0] == counts[1] < counts[2] == counts[3]


@pytest.mark.parametrize("special", SPECIALS)
def test_special_tokens_in_tools_and_variables_stay_text(telling, special):
    model = telling.service.model

    def fields(word):
        function = {"name": "look", "description": word, "parameters": {"type": "object", "properties": {word: {}}}}
        return {"tools": [{"type": "function", "function": function}], "chat_template_kwargs": {"note": word}}

    def ids(word):
        text = telling.ask(TEMPLATE, {"messages": MESSAGES, **fields(word)}).json["prompt"]
        return model.tokenize(text, special=True)

    controls = {model.tokenize(text, special=True)[0] for text in SPECIALS}
    assert [id for id in ids(special) if id in controls] == [id for id in ids("x") if id in controls]
    assert model.detokenize(ids(special)).count(special) == 3
    assert telling.ask(COUNT, {"messages": MESSAGES, **fields(special)}).json["input_tokens"] == len(ids(special))
