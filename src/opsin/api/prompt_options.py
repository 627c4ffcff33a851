"""What a conversation's prompt is made with, beside its messages: tools, and variables of the template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from opsin.api.continuing import Continues
from opsin.errors import FieldError

# What the template is given by us: no variable of people's may take its place.
OURS: Final = frozenset({"self", "messages", "tools", "add_generation_prompt"})


@dataclass(frozen=True)
class PromptOptions:
    """Nothing of this is looked at before the template reads it.

    Attributes:
        tools: functions that may be called, as OpenAI declares them.
        variables: of the template, such as enable_thinking or documents; values as JSON has them.
        begins: whether an answer is begun after the last message.
        continues: what of the last message, which is the assistant's, is gone on with, in place of an answer.
        salt: prompts of another one find nothing of this one in any cache.
    """

    tools: tuple[Mapping[str, object], ...] = ()
    variables: Mapping[str, object] = field(default_factory=dict)
    begins: bool = True
    continues: Continues | None = None
    salt: bytes = b""

    def __post_init__(self) -> None:
        for name in self.variables:
            if name in OURS:
                raise FieldError(name, "the template gets this from elsewhere", hint="give it beside the variables")


PLAIN: Final = PromptOptions()
