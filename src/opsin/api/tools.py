"""Functions that a model may call: how they are declared, and whether it must call one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Mode = Literal["auto", "none", "required"]


@dataclass(frozen=True)
class Tools:
    """What may be called in one answer.

    Attributes:
        declared: functions as OpenAI declares them: {"type": "function", "function": {"name", "parameters", ...}}.
        mode: whether none, any, or at least one of them is called.
        names: those that may be called now; None for all.
        parallel: whether several may be called at once; None as the template can show them.
    """

    declared: tuple[Mapping[str, object], ...] = ()
    mode: Mode = "auto"
    names: tuple[str, ...] | None = None
    parallel: bool | None = None

    @property
    def callable(self) -> tuple[Mapping[str, object], ...]:
        """Declarations of those that may be called now."""
        if self.mode == "none":
            return ()
        return tuple(tool for tool in self.declared if self.names is None or name_of(tool) in self.names)


NO_TOOLS: Final = Tools()


def name_of(declared: Mapping[str, object]) -> object:
    """The name of a declared function."""
    function = declared.get("function")
    return function.get("name") if isinstance(function, Mapping) else None
