"""What an operator says of thoughts and of the template holds for conversations that say nothing of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from running_server import Running, running

import opsin
from opsin.errors import FieldError
from opsin.serve.chat import check_chat_defaults
from opsin.serve.chat_defaults import fill

TEMPLATE = (
    "{% for m in messages %}{{ m.content }}{% endfor %}|{{ enable_thinking }}|{{ reasoning_effort }}|{{ style }}"
    "|{% if enable_thinking %}<think>{% endif %}"
)
USUAL = {
    "enable_thinking": False, "reasoning_effort": "low", "thinking_budget_tokens": 9, "reasoning_format": "none",
    "chat_template_kwargs": {"style": "plain", "enable_thinking": False},
}  # fmt: skip


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ({}, set(USUAL)),
        ({"enable_thinking": None}, set(USUAL)),
        ({"think": True}, {"thinking_budget_tokens", "reasoning_format", "chat_template_kwargs"}),
        ({"reasoning_effort": "high"}, {"thinking_budget_tokens", "reasoning_format", "chat_template_kwargs"}),
        ({"thinking": {"type": "enabled"}}, {"reasoning_format", "chat_template_kwargs"}),
        ({"reasoning_budget": 3}, set(USUAL) - {"thinking_budget_tokens"}),
        ({"reasoning_format": "auto"}, set(USUAL) - {"reasoning_format"}),
        ({"chat_template_kwargs": {"enable_thinking": True}}, {"thinking_budget_tokens", "reasoning_format"}),
    ],
)
def test_what_means_the_same_counts_as_said(said, left):
    filled = fill(said, USUAL)
    assert {name for name in USUAL if filled.get(name) == USUAL[name] or name == "chat_template_kwargs"} >= left
    assert all(filled[name] == value for name, value in said.items() if value and name != "chat_template_kwargs")
    thinks = {"think", "thinking", "reasoning_effort", "chat_template_kwargs"} & said.keys()
    assert ("enable_thinking" in filled) == (not thinks)


def test_variables_are_laid_over_each_other():
    filled = fill({"chat_template_kwargs": {"style": "rich", "more": 1}}, USUAL)["chat_template_kwargs"]
    assert filled == {"style": "rich", "more": 1, "enable_thinking": False}
    assert fill({"think": True}, USUAL)["chat_template_kwargs"] == {"style": "plain"}
    assert fill({"chat_template_kwargs": "x"}, USUAL)["chat_template_kwargs"] == "x"  # whoever reads it refuses it


@pytest.fixture(scope="module")
def told(quantised_file) -> Iterator[Running]:
    usual = {"enable_thinking": False, "chat_template_kwargs": {"style": "plain"}}
    with (
        opsin.load(quantised_file, threads=2, context=256, sequences=2, template=TEMPLATE) as model,
        running(lambda: model, chat_defaults=usual) as made,
    ):
        yield made


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ({}, "hi|False||plain|"),
        ({"chat_template_kwargs": {"style": "rich"}}, "hi|False||rich|"),
        ({"enable_thinking": True}, "hi|True||plain|<think>"),
        ({"reasoning_effort": "high"}, "high"),
    ],
)
def test_templates_and_counts_are_made_with_them(told, said, written):
    body = {"messages": [{"role": "user", "content": "hi"}], **said}
    prompt = told.ask("/apply-template", body).json["prompt"]
    assert written in prompt
    count = told.ask("/v1/chat/completions/input_tokens", body).json["input_tokens"]
    assert count == told.chat(**body, max_tokens=1).json["usage"]["prompt_tokens"]


def test_the_given_template_is_told(told):
    assert told.ask("/props").json["chat_template"] == TEMPLATE


@pytest.mark.parametrize(
    "usual", [{"reasoning_format": "xml"}, {"thinking_budget_tokens": -5}, {"reasoning_effort": "!"}]
)
def test_what_no_conversation_could_say_is_refused_by_name(usual):
    with pytest.raises(FieldError, match=f"^{next(iter(usual))}: "):
        check_chat_defaults(usual)
