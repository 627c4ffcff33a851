"""Fields about what a model thinks before it answers."""

from __future__ import annotations

from typing import Annotated, Any

from opsin.serve.fields import unbuilt
from opsin.serve.grammar_fields import GrammarFields


class ThoughtFields(GrammarFields, kw_only=True):
    """How much is thought, and where thoughts are told."""

    thinking_budget_tokens: Annotated[Any, unbuilt(-1)] = None
    thinking_token_budget: Annotated[Any, unbuilt()] = None
    reasoning_budget: Annotated[Any, unbuilt(-1)] = None
    reasoning_budget_tokens: Annotated[Any, unbuilt(-1)] = None
    reasoning_format: Annotated[Any, unbuilt("none", "auto")] = None
    thinking_forced_open: Annotated[Any, unbuilt(False)] = None
    include_reasoning: Annotated[Any, unbuilt(True)] = None
