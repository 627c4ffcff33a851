"""Fields that declare functions which a model may call, and say whether it must."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from opsin.api.tools import NO_TOOLS, Mode, Tools
from opsin.errors import FieldError
from opsin.serve.fields import Fields, one_of, read
from opsin.serve.template_fields import TemplateFields

_MOST = 256
_MODES: dict[str, Mode] = {"auto": "auto", "none": "none", "required": "required", "any": "required"}
_CHOICE_HINT = 'give "auto", "none", "required", or {"type": "function", "function": {"name": "..."}}'
_Name = Annotated[
    str,
    Meta(
        pattern=r"^[a-zA-Z0-9_.:/-]{1,128}(?![\s\S])",
        description="What it is called by.",
        extra={"hint": "give up to 128 letters, digits, underscores, dashes, dots, colons and slashes"},
    ),
]
_Kind = Annotated[
    str,
    one_of("function", description="function: there are no others here."),
]


class FunctionFields(Fields, kw_only=True):
    """A function that may be called."""

    name: _Name
    description: Annotated[str | None, Meta(description="What it is for.")] = None
    parameters: Annotated[
        dict[str, Any] | None,
        Meta(
            description="A JSON schema of its arguments.", extra={"hint": 'give {"type": "object", "properties": ...}'}
        ),
    ] = None
    strict: Annotated[bool | None, Meta(description="Calls keep to the schema anyway.")] = None


class ToolDeclaration(Fields, kw_only=True):
    """A tool: a function."""

    type: _Kind
    function: FunctionFields


class Named(Fields, kw_only=True):
    """The name of a declared function."""

    name: _Name


class NamedTool(Fields, kw_only=True):
    """One of the tools, by its name."""

    type: _Kind = "function"
    function: Named | None = None
    name: _Name | None = None


class AllowedTools(Fields, kw_only=True):
    """Those of the tools that may be called now."""

    mode: Annotated[
        str,
        one_of("auto", "required", description="auto or required.", hint="give auto or required"),
    ] = "auto"
    tools: Annotated[list[NamedTool], Meta(min_length=1, max_length=_MOST, description="By their names.")]


_Tools = Annotated[list[ToolDeclaration], Meta(max_length=_MOST, description="Functions that may be called.")]
_Functions = Annotated[list[FunctionFields], Meta(max_length=_MOST, description="tools in OpenAI's first form.")]


class ToolFields(TemplateFields, kw_only=True):
    """Functions, and whether one of them must be called."""

    tools: _Tools | None = None
    tool_choice: Annotated[
        str | dict[str, Any] | None,
        Meta(
            description="auto, none, required (at least one call), a function by its name, or allowed_tools.",
            extra={"hint": _CHOICE_HINT},
        ),
    ] = None
    parallel_tool_calls: Annotated[bool | None, Meta(description="Whether several may be called at once.")] = None
    functions: _Functions | None = None
    function_call: Annotated[
        str | dict[str, Any] | None,
        Meta(description="tool_choice in OpenAI's first form.", extra={"hint": _CHOICE_HINT}),
    ] = None


def tools_of(fields: ToolFields, body: Mapping[str, Any]) -> Tools:
    """What may be called. Raises FieldError for names that stand twice or nowhere."""
    if fields.functions and fields.tools:
        raise FieldError("functions", "stands beside tools", hint="send one of them")
    first = bool(fields.functions)
    place, given = ("functions", fields.functions) if first else ("tools", fields.tools)
    names = [tool.name if isinstance(tool, FunctionFields) else tool.function.name for tool in given or ()]
    for number, name in enumerate(names):
        if name in names[:number]:
            path = f"{place}[{number}].name" if first else f"{place}[{number}].function.name"
            raise FieldError(path, f"{name} stands twice", hint="declare each function once")
    declared = [{"type": "function", "function": tool} if first else tool for tool in body.get(place) or ()]
    field = "tool_choice" if fields.tool_choice is not None else "function_call"
    choice = fields.tool_choice if fields.tool_choice is not None else fields.function_call
    if choice is None and not names:
        return NO_TOOLS
    mode, allowed = _choice(field, choice)
    for name in allowed or ():
        if name not in names:
            raise FieldError(field, f"there is no tool {name}", hint="name one of those that are declared")
    if mode == "required" and not names:
        raise FieldError(field, "there are no tools", hint="declare what shall be called")
    parallel = False if first else fields.parallel_tool_calls
    if parallel is None and _names_one(choice):
        parallel = False
    return Tools(tuple(declared), mode, allowed, parallel)


def _names_one(choice: str | Mapping[str, Any] | None) -> bool:
    return isinstance(choice, Mapping) and choice.get("type") != "allowed_tools"


def _choice(field: str, choice: str | Mapping[str, Any] | None) -> tuple[Mode, tuple[str, ...] | None]:
    """Whether to call, and which."""
    if choice is None:
        return "auto", None
    if isinstance(choice, str):
        if choice not in _MODES:
            raise FieldError(field, f"{choice!r:.80} is no choice", hint=_CHOICE_HINT)
        return _MODES[choice], None
    try:
        if choice.get("type") == "allowed_tools":
            allowed = read(choice.get("allowed_tools") or choice, AllowedTools)
            return _MODES[allowed.mode], tuple(_named(tool) for tool in allowed.tools)
        return "required", (_named(read(choice, NamedTool)),)
    except FieldError as error:
        raise error.below(f"{field}.") from None


def _named(tool: NamedTool) -> str:
    name = tool.function.name if tool.function is not None else tool.name
    if name is None:
        raise FieldError("function", "there is none", hint=_CHOICE_HINT)
    return name
