"""Fields that a conversation's template reads: whether and how hard to think, and whatever else it knows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

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
        tokens: of thoughts at most; None where nothing is said, -1 for no limit.
        told: whether they are told.
    """

    wanted: bool | None = None
    tokens: int | None = None
    told: bool = True


def thoughts_of(fields: TemplateFields) -> AskedThoughts:
    """Whether to think, how much, and whether it is told."""
    thinking = fields.thinking.budget_tokens if isinstance(fields.thinking, ThinkingFields) else None
    reasoning = fields.reasoning or ReasoningFields()
    tokens = thinking if thinking is not None else reasoning.max_tokens
    return AskedThoughts(thinks_of(fields), tokens, told=not reasoning.exclude)


def variables_of(fields: TemplateFields) -> dict[str, object]:
    """Variables of the template. Raises FieldError for one that none can have, or that is of the wrong kind.

    What nobody says is told as llama-server tells it: that the model may think, and what day it is.
    """
    today = datetime.now()
    return {
        "enable_thinking": True,
        "date_string": today.strftime("%d %b %Y"),
        "datetime": today.strftime("%b %d %Y"),
        "functions": "[]",  # of templates that know tools by no other name: these are told of them in a system message
        **_asked_variables(fields),
    }


def _asked_variables(fields: TemplateFields) -> dict[str, object]:
    found = dict(fields.chat_template_kwargs or {})
    for name, value in found.items():
        path = f"chat_template_kwargs.{name:.80}"
        if not _VARIABLE.fullmatch(name):
            raise FieldError(path, "is no name of a variable", hint="give letters, digits and underscores")
        if name in OURS:
            raise FieldError(path, "the template gets this from elsewhere", hint="send it beside the variables")
        if name == "enable_thinking" and not isinstance(value, bool | None):
            raise FieldError(path, f"{value!r:.80} is not true or false")
    thinks, effort = thinks_of(fields), effort_of(fields)
    if thinks is not None:
        found |= {"enable_thinking": thinks, "thinking": thinks}  # templates ask under one of these names
    if effort is not None and effort != "none":
        found["reasoning_effort"] = effort
    return found


def effort_of(fields: TemplateFields) -> str | None:
    """How hard to think, if anybody says so."""
    if fields.reasoning_effort is not None:
        return fields.reasoning_effort
    if fields.reasoning is not None and fields.reasoning.effort is not None:
        return fields.reasoning.effort
    return fields.think if isinstance(fields.think, str) else None


def thinks_of(fields: TemplateFields) -> bool | None:
    """Whether to think; None where the template decides. Raises FieldError for fields that contradict each other."""
    asked = {
        "enable_thinking": fields.enable_thinking,
        "think": fields.think if isinstance(fields.think, bool | None) else fields.think != "none",
        "thinking": _asked_of(fields.thinking),
        "reasoning": None if fields.reasoning is None else fields.reasoning.enabled,
        "chat_template_kwargs": _variable(fields.chat_template_kwargs or {}),
    }
    if effort_of(fields) == "none":
        return False
    said = [name for name, value in asked.items() if value is not None]
    for name in said[1:]:
        if asked[name] != asked[said[0]]:
            raise FieldError(name, f"says the opposite of {said[0]}", hint="send one of them")
    return asked[said[0]] if said else None


def _asked_of(thinking: ThinkingFields | bool | None) -> bool | None:
    if not isinstance(thinking, ThinkingFields):
        return thinking
    return {"enabled": True, "disabled": False}.get(thinking.type)


def _variable(variables: Mapping[str, object]) -> bool | None:
    value = variables.get("enable_thinking")
    return value if isinstance(value, bool) else None
