"""Functions that a model may call: how they are declared, and whether it must call one."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from opsin.errors import RequestError

Mode = Literal["auto", "none", "required"]
Declaration = Mapping[str, object]
_HINT = 'give functions, or {"type": "function", "function": {"name": "...", "parameters": {...}}}'
_KINDS: Final = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}
_NAME: Final = re.compile(r"[a-zA-Z0-9_.:/-]{1,128}")
_ARGUMENT: Final = re.compile(r"^\s*:?(?:param )?(\w+)(?: \([^)]*\))?:\s*(.+)$")


@dataclass(frozen=True)
class Tools:
    """What may be called in one answer.

    Attributes:
        declared: functions as OpenAI declares them: {"type": "function", "function": {"name", "parameters", ...}}.
        mode: whether none, any, or at least one of them is called.
        names: those that may be called now; None for all.
        parallel: whether several may be called at once; None as the template can show them.
    """

    declared: tuple[Declaration, ...] = ()
    mode: Mode = "auto"
    names: tuple[str, ...] | None = None
    parallel: bool | None = None

    @classmethod
    def of(
        cls, tools: Sequence[Declaration | Callable[..., object]], choice: str = "auto", *, parallel: bool | None = None
    ) -> Tools:
        """Of declarations, and of functions of Python by their signatures.

        `choice` is a mode, or the name of a tool, which is called once, unless `parallel` says otherwise.
        """
        if not isinstance(tools, list | tuple):
            raise RequestError(f"tools of the type {type(tools).__name__}", hint=_HINT)
        declared = tuple(_declaration(number, tool) for number, tool in enumerate(tools))
        names = [name_of(tool) for tool in declared]
        if choice in ("auto", "none", "required"):
            if choice == "required" and not names:
                raise RequestError("tool_choice: there are no tools", hint="declare what shall be called")
            return cls(declared, choice, parallel=parallel)  # type: ignore[arg-type]
        if choice not in names:
            raise RequestError(f"tool_choice={choice!r:.80}", hint="give auto, none, required, or a tool's name")
        return cls(declared, "required", (choice,), bool(parallel))

    @property
    def callable(self) -> tuple[Declaration, ...]:
        """Declarations of those that may be called now."""
        if self.mode == "none":
            return ()
        return tuple(tool for tool in self.declared if self.names is None or name_of(tool) in self.names)


NO_TOOLS: Final = Tools()


def name_of(declared: Declaration) -> object:
    """The name of a declared function."""
    function = declared.get("function")
    return function.get("name") if isinstance(function, Mapping) else None


def _declaration(number: int, tool: object) -> Declaration:
    if isinstance(tool, Mapping):
        name = name_of(tool)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise RequestError(f"tools[{number}] has no name that can be called: {name!r:.80}", hint=_HINT)
        return tool
    if not callable(tool):
        raise RequestError(f"tools[{number}] is of the type {type(tool).__name__}", hint=_HINT)
    return declared(tool)


def declared(function: Callable[..., object]) -> Declaration:
    """A function by its signature and docstring: types of its parameters, what it is for, what each of them is."""
    text = inspect.getdoc(function) or ""
    told = {found[1]: found[2] for line in text.splitlines() if (found := _ARGUMENT.match(line))}
    kinds = get_type_hints(function)
    properties, required = {}, []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise RequestError(f"{function!r:.80}: *{name} cannot be declared", hint="give it plain parameters")
        properties[name] = {**_schema(kinds.get(name)), **({"description": told[name]} if name in told else {})}
        if parameter.default is parameter.empty:
            required.append(name)
    about = text.partition("\n\n")[0].strip()
    made: dict[str, object] = {"name": getattr(function, "__name__", "function")}
    made |= {"description": about} if about else {}
    return {
        "type": "function",
        "function": {**made, "parameters": {"type": "object", "properties": properties, "required": required}},
    }


def _schema(kind: Any) -> dict[str, object]:
    """A JSON schema of a type; {} for one that says nothing."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return {"enum": list(inner)}
    if origin in (Union, UnionType):
        schemas = [_schema(one) for one in inner if one is not NoneType]
        return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    if origin in (list, tuple, set, Sequence) and inner:
        return {"type": "array", "items": _schema(inner[0])}
    name = _KINDS.get(origin or kind)
    return {"type": name} if name else {}
