"""Anthropic's messages: their bodies become those of conversations, and what is wrong is told in their shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

from msgspec import Meta

from opsin.errors import FieldError, OpsinError
from opsin.serve.errors import text_of
from opsin.serve.fields import Fields, one_of, read
from opsin.serve.framing import Framing, compact
from opsin.serve.template_fields import ThinkingFields
from opsin.serve.translated import Translated

_MOST = 256
_MEDIA_HINT: Final = 'send pictures as blocks: {"type": "image", "source": {"type": "base64", "data": "..."}}'
_ERRORS: Final = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error", 504: "timeout_error",
}  # fmt: skip
_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}
_OURS: Final = ("system", "tools", "tool_choice", "output_config", "metadata", "service_tier", "cache_control")
_Json = Mapping[str, Any]


class ImageSource(Fields, kw_only=True):
    """Where a picture is."""

    type: Annotated[str, one_of("base64", "url", "file", description="base64, url or file.")]
    media_type: Annotated[str | None, Meta(description="Of base64: image/png and the like.")] = None
    data: Annotated[str | None, Meta(description="Of base64: the file.")] = None
    url: Annotated[str | None, Meta(description="Of url: http or https.")] = None
    file_id: Annotated[str | None, Meta(description="Of file: one that was stored by POST /v1/files.")] = None


class AnthropicBlock(Fields, kw_only=True):
    """A part of a content: text, image, tool_use, tool_result, thinking or redacted_thinking."""

    media_hint = _MEDIA_HINT
    type: Annotated[
        str,
        one_of(
            *("text", "image", "tool_use", "tool_result", "thinking", "redacted_thinking"),
            description="What it is.",
            hint="give text, image, tool_use or tool_result: documents and what servers search are not read",
        ),
    ]
    text: Annotated[str | None, Meta(description="Of a text.")] = None
    source: ImageSource | None = None
    id: Annotated[str | None, Meta(description="Of a call.")] = None
    name: Annotated[str | None, Meta(description="Of a call: the tool's.")] = None
    input: Annotated[dict[str, Any] | None, Meta(description="Of a call: its arguments.")] = None
    tool_use_id: Annotated[str | None, Meta(description="Of a result: the call's.")] = None
    content: Annotated[
        str | list[dict[str, Any]] | None, Meta(description="Of a result: a text, or texts and pictures.")
    ] = None
    thinking: Annotated[str | None, Meta(description="Of thoughts.")] = None


class AnthropicMessage(Fields, kw_only=True):
    """A message."""

    media_hint = _MEDIA_HINT
    role: Annotated[
        str,
        one_of("user", "assistant", "system", description="Who says it.", hint="give user or assistant"),
    ]
    content: Annotated[str | list[AnthropicBlock], Meta(description="A text, or blocks.")]


class AnthropicTool(Fields, kw_only=True):
    """A function that may be called."""

    name: Annotated[str, Meta(description="What it is called by.")]
    description: Annotated[str | None, Meta(description="What it is for.")] = None
    input_schema: Annotated[dict[str, Any] | None, Meta(description="A JSON schema of its arguments.")] = None
    type: (
        Annotated[str, one_of("custom", description="custom: servers' tools are not here.", hint="leave it out")] | None
    ) = None


class AnthropicChoice(Fields, kw_only=True):
    """Whether tools are called."""

    type: Annotated[str, one_of("auto", "any", "tool", "none", description="auto, any, tool (by its name) or none.")]
    name: Annotated[str | None, Meta(description="Of tool.")] = None
    disable_parallel_tool_use: Annotated[bool | None, Meta(description="One call at most.")] = None


class OutputForm(Fields, kw_only=True):
    """What an answer is held to."""

    type: Annotated[str, one_of("json_schema", description="json_schema.")]
    schema: Annotated[dict[str, Any], Meta(description="The schema.")]


class OutputConfig(Fields, kw_only=True):
    """How an answer is made."""

    effort: Annotated[str | None, Meta(description="How hard to think; the template's words.")] = None
    format: OutputForm | None = None


class AnthropicFields(Fields, kw_only=True):
    """A conversation as Anthropic's clients send it. Sampling goes by llama-server's names."""

    media_hint = _MEDIA_HINT
    messages: Annotated[list[AnthropicMessage], Meta(min_length=1, description="From the first to the last.")]
    system: Annotated[str | list[AnthropicBlock] | None, Meta(description="What stands before them.")] = None
    tools: Annotated[list[AnthropicTool], Meta(max_length=_MOST, description="Functions.")] | None = None
    tool_choice: AnthropicChoice | None = None
    thinking: ThinkingFields | None = None
    output_config: OutputConfig | None = None


def error_of(error: OpsinError) -> _Json:
    """An error in Anthropic's shape."""
    kind = _ERRORS.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": text_of(error)}}


def _named_event(value: _Json) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (str(value["type"]).encode(), compact(value))


FRAMING: Final = Framing(_named_event, error_of, ping=_named_event({"type": "ping"}))


def translate(body: _Json) -> Translated:
    """A body as one of a conversation. Raises FieldError, naming the field."""
    asked = read(body, AnthropicFields)
    messages, places = _Messages(asked).told()
    told: dict[str, Any] = {name: value for name, value in body.items() if name not in _OURS}
    told |= {"messages": messages, "max_tokens": body.get("max_tokens") or 4096, **_tools(asked)}
    if asked.output_config is not None:
        told |= _config(asked.output_config)
    return Translated(told, places)


def _config(config: OutputConfig) -> dict[str, Any]:
    told: dict[str, Any] = {} if config.effort is None else {"reasoning_effort": config.effort}
    if config.format is not None:
        told["response_format"] = {"type": "json_schema", "json_schema": {"schema": config.format.schema}}
    return told


def _tools(asked: AnthropicFields) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if asked.tools:
        about = [(tool, {"description": tool.description} if tool.description else {}) for tool in asked.tools]
        told["tools"] = [
            {"type": "function", "function": {"name": tool.name, **more, "parameters": tool.input_schema or {}}}
            for tool, more in about
        ]
    if (choice := asked.tool_choice) is not None:
        if choice.type == "tool":
            told["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
        elif asked.tools or choice.type == "any":
            told["tool_choice"] = _CHOICES[choice.type]
        if choice.disable_parallel_tool_use is not None:
            told["parallel_tool_calls"] = not choice.disable_parallel_tool_use
    return told


class _Messages:
    """Messages on their way: results of tools become messages of their own, what one says in a row becomes one."""

    def __init__(self, asked: AnthropicFields) -> None:
        self._messages: list[dict[str, Any]] = []
        self._places: dict[str, str] = {}
        if asked.system:
            self._add("system", "system", asked.system)
        for number, message in enumerate(asked.messages):
            self._add(f"messages[{number}]", message.role, message.content)

    def told(self) -> tuple[list[dict[str, Any]], Mapping[str, str]]:
        """They, and where what stands in them was in the body."""
        for message in self._messages:
            if "reasoning_content" in message:
                message["reasoning_content"] = "".join(message["reasoning_content"])
        return self._messages, self._places

    def _add(self, path: str, role: str, content: str | Sequence[AnthropicBlock]) -> None:
        blocks = [AnthropicBlock(type="text", text=content)] if isinstance(content, str) else content
        path = path if path == "system" else f"{path}.content"
        for number, block in enumerate(blocks):
            place = path if isinstance(content, str) else f"{path}[{number}]"
            if block.type == "tool_result":
                self._result(block, place)
            elif block.type == "tool_use":
                self._call(self._last(role, path), block, place)
            elif block.type == "thinking":
                self._last(role, path).setdefault("reasoning_content", []).append(block.thinking or "")
            elif block.type != "redacted_thinking":
                self._part(self._last(role, path), block, place)
        if not blocks:
            self._last(role, path)

    def _last(self, role: str, path: str) -> dict[str, Any]:
        """The message that is said: the last one, where it is of the same role."""
        if not self._messages or self._messages[-1]["role"] != role:
            self._places[f"messages[{len(self._messages)}]"] = path.removesuffix(".content")
            self._messages.append({"role": role, "content": []})
        return self._messages[-1]

    def _part(self, message: dict[str, Any], block: AnthropicBlock, place: str) -> None:
        path = f"messages[{len(self._messages) - 1}].content[{len(message['content'])}]"
        self._places |= {path: place, f"{path}.file": f"{place}.source"}
        message["content"].append(_part(block, place))

    def _call(self, message: dict[str, Any], block: AnthropicBlock, place: str) -> None:
        if not block.name:
            raise FieldError(f"{place}.name", "there is none", hint="give the tool's name")
        function = {"name": block.name, "arguments": block.input or {}}
        message.setdefault("tool_calls", []).append({"id": block.id or "", "type": "function", "function": function})

    def _result(self, block: AnthropicBlock, place: str) -> None:
        """A message of its own. What it holds is blocks again."""
        message = {"role": "tool", "tool_call_id": block.tool_use_id or "", "content": []}
        self._places[f"messages[{len(self._messages)}]"] = place
        self._messages.append(message)
        inner = [{"type": "text", "text": block.content}] if isinstance(block.content, str) else block.content or []
        for number, part in enumerate(_blocks(inner, f"{place}.content")):
            self._part(message, part, f"{place}.content[{number}]")


def _blocks(parts: Sequence[_Json], path: str) -> Iterator[AnthropicBlock]:
    for number, part in enumerate(parts):
        try:
            yield read(part, AnthropicBlock)
        except FieldError as error:
            raise error.below(f"{path}[{number}].") from None


def _part(block: AnthropicBlock, place: str) -> dict[str, Any]:
    """A text or a picture as a part of OpenAI's kind."""
    if block.type == "text":
        if block.text is None:
            raise FieldError(f"{place}.text", "there is none")
        return {"type": "text", "text": block.text}
    if block.type != "image":
        raise FieldError(f"{place}.type", f"{block.type} cannot stand here", hint="give text or image")
    source = block.source
    if source is None:
        raise FieldError(f"{place}.source", "there is none", hint='give {"type": "base64", "data": "..."}')
    if source.type == "file":
        return {"type": "file", "file": {"file_id": source.file_id}}
    url = source.url if source.type == "url" else f"data:{source.media_type or 'image/png'};base64,{source.data or ''}"
    if not url:
        raise FieldError(f"{place}.source.url", "there is none")
    return {"type": "image_url", "image_url": {"url": url}}
