"""Fields that a conversation's template reads: whether and how hard to think, and whatever else it knows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

from msgspec import Meta

from opsin.api.prompt_options import OURS
from opsin.errors import FieldError
from opsin.serve.fields import Fields, one_of, unbuilt
from opsin.serve.prompt_fields import PromptFields

_Effort = Annotated[
    str,
    Meta(
        pattern=r"^\w{1,32}(?![\s\S])",
        description="How hard to think: none for not at all; other words are the template's.",
        extra={"hint": "give none, low, medium or high"},
    ),
]
_Tokens = Annotated[int, Meta(ge=-1, le=1 << 31, description="Tokens of thoughts; -1 for no limit.")]
_THINKS: Final[Mapping[str, bool]] = {"enabled": True, "disabled": False}
_VARIABLE = re.compile(r"[A-Za-z_]\w{0,63}", re.ASCII)


class ThinkingFields(Fields, kw_only=True):
    """Whether to think, as Anthropic has it."""

    type: Annotated[
        str,
        one_of(
            *("enabled", "disabled", "adaptive", "auto"),
            description="enabled, disabled, or adaptive and auto for the model's own way.",
            hint="give enabled, disabled or auto",
        ),
    ]
    budget_tokens: _Tokens | None = None


class ReasoningFields(Fields, kw_only=True):
    """Whether and how hard to think, as OpenAI and OpenRouter have it."""

    effort: _Effort | None = None
    enabled: Annotated[bool | None, Meta(description="Whether to think.")] = None
    max_tokens: _Tokens | None = None
    exclude: Annotated[bool | None, Meta(description="Whether thoughts are left out of what is told.")] = None
    summary: Annotated[Any, unbuilt("auto")] = None
    generate_summary: Annotated[Any, unbuilt("auto")] = None


class TemplateFields(PromptFields, kw_only=True):
    """What the template is told beside the messages. A template of the request's own is not taken: it is a program."""

    chat_template: Annotated[Any, unbuilt("")] = None
    chat_template_kwargs: Annotated[dict[str, Any] | None, Meta(description="Variables of the template.")] = None
    enable_thinking: Annotated[bool | None, Meta(description="Whether to think, where the template lets choose.")] = (
        None
    )
    think: Annotated[bool | str | None, Meta(description="The same as Ollama has it: true, false, or an effort.")] = (
        None
    )
    thinking: Annotated[ThinkingFields | bool | None, Meta(description="The same as Anthropic has it.")] = None
    reasoning: ReasoningFields | None = None
    reasoning_effort: _Effort | None = None


@dataclass(frozen=True)
class AskedThoughts:
    """What a conversation's fields say of thoughts.

    Attributes:
        wanted: whether to think; None where the template decides.
        effort: how hard, in a word; None where nothing is said.
        tokens: of thoughts at most; None where nothing is said, -1 for no limit.
        told: whether they are told.
    """

    wanted: bool | None = None
    effort: str | None = None
    tokens: int | None = None
    told: bool = True


def thoughts_of(fields: TemplateFields) -> AskedThoughts:
    """What is asked of thoughts. Raises FieldError for fields that contradict each other."""
    thinking = fields.thinking if isinstance(fields.thinking, ThinkingFields) else None
    reasoning = fields.reasoning or ReasoningFields()
    efforts = (fields.reasoning_effort, reasoning.effort, fields.think if isinstance(fields.think, str) else None)
    effort = next((one for one in efforts if one is not None), None)
    wanted = False if effort == "none" else _wanted(fields, reasoning)
    tokens = reasoning.max_tokens if thinking is None or thinking.budget_tokens is None else thinking.budget_tokens
    return AskedThoughts(wanted, effort, tokens, told=not reasoning.exclude)


def _wanted(fields: TemplateFields, reasoning: ReasoningFields) -> bool | None:
    variable = (fields.chat_template_kwargs or {}).get("enable_thinking")
    asked = {
        "enable_thinking": fields.enable_thinking,
        "think": fields.think != "none" if isinstance(fields.think, str) else fields.think,
        "thinking": _THINKS.get(thinking.type) if isinstance(thinking := fields.thinking, ThinkingFields) else thinking,
        "reasoning": reasoning.enabled,
        "chat_template_kwargs": variable if isinstance(variable, bool) else None,
    }
    said = [name for name, value in asked.items() if value is not None]
    for name in said[1:]:
        if asked[name] != asked[said[0]]:
            raise FieldError(name, f"says the opposite of {said[0]}", hint="send one of them")
    return asked[said[0]] if said else None


def variables_of(fields: TemplateFields, thoughts: AskedThoughts) -> dict[str, object]:
    """Variables of the template. Raises FieldError for one that none can have, or that is of the wrong kind.

    What nobody says is told as llama-server tells it: that the model may think, and what day it is.
    """
    today = datetime.now()
    found: dict[str, object] = {
        "enable_thinking": True,
        "date_string": today.strftime("%d %b %Y"),
        "datetime": today.strftime("%b %d %Y"),
        "functions": "[]",  # of templates that know tools by no other name: these are told of them in a system message
    }
    for name, value in (fields.chat_template_kwargs or {}).items():
        path = f"chat_template_kwargs.{name:.80}"
        if not _VARIABLE.fullmatch(name):
            raise FieldError(path, "is no name of a variable", hint="give letters, digits and underscores")
        if name in OURS:
            raise FieldError(path, "the template gets this from elsewhere", hint="send it beside the variables")
        if name == "enable_thinking" and not isinstance(value, bool | None):
            raise FieldError(path, f"{value!r:.80} is not true or false")
        found[name] = value
    if thoughts.wanted is not None:
        found |= {"enable_thinking": thoughts.wanted, "thinking": thoughts.wanted}  # templates ask under one of these
    if thoughts.effort not in (None, "none"):
        found["reasoning_effort"] = thoughts.effort
    return found
