"""Fields about what a model thinks before it answers."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from opsin.serve.fields import one_of, unbuilt
from opsin.serve.grammar_fields import GrammarFields

MOST_WORDS = 4096  # characters
_Tokens = Annotated[
    int, Meta(ge=-1, le=1 << 31, description="Tokens of thoughts, after which they are ended; -1 for no limit.")
]


class ThoughtFields(GrammarFields, kw_only=True):
    """How much is thought, and where thoughts are told."""

    thinking_budget_tokens: _Tokens | None = None
    thinking_token_budget: _Tokens | None = None
    reasoning_budget: _Tokens | None = None
    reasoning_budget_tokens: _Tokens | None = None
    reasoning_budget_message: Annotated[
        str, Meta(max_length=MOST_WORDS, description="What thoughts end with that became too long.")
    ] = ""
    reasoning_format: (
        Annotated[
            str,
            one_of(
                *("none", "auto", "deepseek", "deepseek-legacy"),
                description="Where thoughts are told: auto and deepseek in reasoning_content, none in the content, "
                "deepseek-legacy in the content of a stream and else in reasoning_content.",
                hint="give none, auto, deepseek or deepseek-legacy",
            ),
        ]
        | None
    ) = None
    include_reasoning: Annotated[bool | None, Meta(description="Whether thoughts are told.")] = None
    thinking_forced_open: Annotated[Any, unbuilt(False)] = None


def thought_tokens_of(fields: ThoughtFields, beside: int | None = None) -> int | None:
    """Tokens of thoughts at most; None for no limit. `beside` is what holds where these fields say nothing."""
    asked = (
        fields.thinking_budget_tokens, fields.reasoning_budget_tokens, fields.thinking_token_budget,
        fields.reasoning_budget, beside,
    )  # fmt: skip
    most = next((tokens for tokens in asked if tokens is not None), None)
    return None if most == -1 else most
