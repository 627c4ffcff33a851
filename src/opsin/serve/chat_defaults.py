"""What an operator says of thoughts and of the template's variables, for conversations that say nothing of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_THINKS: Final = ("enable_thinking", "think", "thinking", "reasoning", "reasoning_effort")
_TOKENS: Final = (
    "thinking_budget_tokens", "thinking_token_budget", "reasoning_budget", "reasoning_budget_tokens", "thinking",
    "reasoning",
)  # fmt: skip
_BESIDE: Final = {"enable_thinking": _THINKS, "reasoning_effort": _THINKS, "thinking_budget_tokens": _TOKENS}
_VARIABLES: Final = "chat_template_kwargs"


def fill(body: Mapping[str, Any], defaults: Mapping[str, Any]) -> Mapping[str, Any]:
    """A conversation's body with what holds where it says nothing. Fields that mean the same count as one."""
    if not defaults:
        return body
    said = {name for name, value in body.items() if value is not None}
    own = body.get(_VARIABLES)
    variables = own if isinstance(own, Mapping) else {}
    thinks = not said.isdisjoint(_THINKS) or "enable_thinking" in variables
    filled = {
        name: value
        for name, value in defaults.items()
        if said.isdisjoint(_BESIDE.get(name, (name,))) and not (name in _THINKS and thinks)
    }
    if _VARIABLES in defaults and (own is None or isinstance(own, Mapping)):
        usual = {name: value for name, value in defaults[_VARIABLES].items() if not (name in _THINKS and thinks)}
        filled[_VARIABLES] = {**usual, **variables}
    return {**body, **filled}
