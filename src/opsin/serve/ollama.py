"""Ollama's chats and generations: their bodies become those of conversations and prompts."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from msgspec import Meta

from opsin.errors import FieldError, OpsinError
from opsin.media.inline import begins_sound
from opsin.serve.errors import text_of
from opsin.serve.fields import Fields, one_of, read
from opsin.serve.framing import Framing, compact
from opsin.serve.translated import Translated

_Json = Mapping[str, Any]
_Number = Annotated[float, Meta(description="As llama-server's of the same name.")]
_Whole = Annotated[float, Meta(ge=-(2**63), le=2.0**64, description="A whole number: what is behind the point is cut.")]
_Images = Annotated[list[str], Meta(max_length=256, description="Pictures' files, in base64.")]
_Format = Annotated[str | dict[str, Any], Meta(description='"json", or a JSON schema that the answer obeys.')]
_Alive = Annotated[int | float | str, Meta(description="0, where nothing is said: one of several models goes.")]
_Think = Annotated[bool | str, Meta(description="Whether to think, or how hard: low, medium, high.")]
_Top = Annotated[int, Meta(ge=0, le=20, description="How many rivals of each token are told.")]
_NO_TIME: Final = re.compile(r"0+(ns|us|ms|s|m|h)?")
_WHOLE: Final = ("num_predict", "top_k", "seed", "repeat_last_n")
_NUMBERS: Final = (
    "temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty",
)  # fmt: skip


class OllamaOptions(Fields, kw_only=True):
    """How tokens are chosen. Others of Ollama's options are about its machine and do nothing here, nor num_ctx."""

    num_predict: _Whole | None = None
    top_k: _Whole | None = None
    seed: _Whole | None = None
    repeat_last_n: _Whole | None = None
    temperature: _Number | None = None
    top_p: _Number | None = None
    min_p: _Number | None = None
    typical_p: _Number | None = None
    repeat_penalty: _Number | None = None
    presence_penalty: _Number | None = None
    frequency_penalty: _Number | None = None
    stop: Annotated[str | list[str], Meta(description="Texts that end the answer.")] | None = None


class OllamaFields(Fields, kw_only=True):
    """What chats and generations have in common."""

    media_hint = 'send pictures as "images": ["BASE64"]'
    model: Annotated[str | None, Meta(description="Which of several. Is left aside where there is one.")] = None
    stream: Annotated[bool, Meta(description="A line for each piece.")] = True
    format: _Format | None = None
    options: OllamaOptions | None = None
    think: _Think | None = None
    keep_alive: _Alive | None = None
    logprobs: Annotated[bool, Meta(description="Tell how likely tokens were.")] = False
    top_logprobs: _Top = 0


class OllamaMessage(Fields, kw_only=True):
    """A message."""

    media_hint = OllamaFields.media_hint
    role: Annotated[str, Meta(description="user, assistant, system or tool.")]
    content: Annotated[str, Meta(description="What is said.")] = ""
    thinking: Annotated[str | None, Meta(description="What was thought before it.")] = None
    images: _Images | None = None
    tool_calls: Annotated[list[dict[str, Any]], Meta(max_length=256, description="Of the assistant.")] | None = None
    tool_name: Annotated[str | None, Meta(description="Of a result: the tool's name.")] = None
    tool_call_id: Annotated[str | None, Meta(description="Of a result: the call's id.")] = None


class OllamaChatFields(OllamaFields, kw_only=True):
    """A conversation. Without messages it only asks for the model to be there."""

    messages: Annotated[list[OllamaMessage], Meta(description="From the first to the last.")] = []
    tools: Annotated[list[dict[str, Any]], Meta(max_length=256, description="As OpenAI declares them.")] | None = None


class OllamaGenerateFields(OllamaFields, kw_only=True):
    """A prompt. Without one it only asks for the model to be there."""

    prompt: Annotated[str, Meta(description="What a user says, or with raw the whole prompt.")] = ""
    suffix: Annotated[str, Meta(description="What stands behind the text that is asked for.")] = ""
    system: Annotated[str, Meta(description="What stands before it.")] = ""
    raw: Annotated[bool, Meta(description="The prompt is read as it stands, without a template.")] = False
    images: _Images | None = None
    context: Annotated[list[int], Meta(max_length=0, description="Not taken: send /api/chat the messages.")] | None = (
        None
    )
    template: Annotated[str, one_of("", description="Not taken.", hint="start the server with --chat-template")] = ""


def ends_at_once(alive: float | str | None) -> bool:
    """Whether a model shall go when its answers have ended: 0, or no time in Go's words, as "0s"."""
    return alive == 0 or (isinstance(alive, str) and _NO_TIME.fullmatch(alive.strip()) is not None)


def error_of(error: OpsinError) -> _Json:
    """An error in Ollama's shape."""
    return {"error": text_of(error)}


FRAMING: Final = Framing(
    lambda value: compact(value) + b"\n", error_of, ping=b"", done=b"", media_type="application/x-ndjson"
)  # a blank line would break the official clients: nothing fills silence


def translate_chat(body: _Json) -> Translated:
    """A chat as a conversation. Raises FieldError, naming the field."""
    asked = read(body, OllamaChatFields)
    calls = _OpenCalls()
    messages = [_message(message, number, calls) for number, message in enumerate(asked.messages)]
    tools = {} if not asked.tools else {"tools": asked.tools}
    return Translated({**_common(asked), **tools, "messages": messages}, _places(asked.messages))


def translate_generation(body: _Json) -> Translated:
    """A generation as a conversation of one message. Raises FieldError, naming the field."""
    asked = read(body, OllamaGenerateFields)
    said = OllamaMessage(role="user", content=asked.prompt, images=asked.images)
    messages = [{"role": "system", "content": asked.system}] if asked.system else []
    places = {f"messages[{len(messages)}].content[{i}]": f"images[{i}]" for i in range(len(asked.images or ()))}
    return Translated({**_common(asked), "messages": [*messages, _message(said, 0, _OpenCalls())]}, places)


def raw_prompt(asked: OllamaGenerateFields) -> _Json:
    """A raw generation as the body of a completion. Raises FieldError for pictures, which have no place there."""
    if asked.images:
        raise FieldError("images", "a raw prompt has no place for them", hint="leave raw out")
    if asked.system:
        raise FieldError("system", "stands beside raw", hint="write it into the prompt")
    return {**_common(asked), "prompt": asked.prompt}


def gap(asked: OllamaGenerateFields) -> _Json:
    """A generation with a suffix as the body of /infill."""
    return {**_common(asked), "input_prefix": asked.prompt, "input_suffix": asked.suffix}


def _common(asked: OllamaFields) -> dict[str, Any]:
    told: dict[str, Any] = {"stream": asked.stream, **_options(asked.options or OllamaOptions())}
    if asked.think is not None:
        told["think"] = asked.think
    if asked.logprobs:
        told |= {"logprobs": True, "top_logprobs": asked.top_logprobs}
    if isinstance(asked.format, str) and asked.format not in ("", "json"):
        raise FieldError("format", f"{asked.format!r:.80} is no form", hint='give "json" or a JSON schema')
    if asked.format == "json":
        told["response_format"] = {"type": "json_object"}
    elif asked.format:
        told["response_format"] = {"type": "json_schema", "json_schema": {"schema": asked.format}}
    return told


def _options(options: OllamaOptions) -> dict[str, Any]:
    told: dict[str, Any] = {name: getattr(options, name) for name in _NUMBERS}
    told |= {name: None if getattr(options, name) is None else int(getattr(options, name)) for name in _WHOLE}
    most = told.pop("num_predict")
    told |= {"max_tokens": most if most is None else max(-1, most), "stop": options.stop}
    return {name: value for name, value in told.items() if value is not None}


class _OpenCalls:
    """Calls that have no result yet: results name the tool alone, and come in the order of its calls."""

    def __init__(self) -> None:
        self._ids: dict[object, deque[str]] = {}

    def add(self, call: _Json) -> None:
        function = call.get("function")
        name = function.get("name") if isinstance(function, Mapping) else None
        if isinstance(name, str):
            self._ids.setdefault(name, deque()).append(str(call["id"]))

    def answer(self, name: str | None) -> str | None:
        """The id of the call of this tool whose turn it is; of any tool, where the result has no name."""
        tool = next(iter(self._ids), None) if name is None else name
        waiting = self._ids.get(tool)
        if waiting is None:
            return None
        id = waiting.popleft()
        if not waiting:
            del self._ids[tool]
        return id


def _message(message: OllamaMessage, number: int, calls: _OpenCalls) -> dict[str, Any]:
    told: dict[str, Any] = {"role": message.role.lower(), "content": message.content}
    if message.images:
        told["content"] = [*map(_medium, message.images), {"type": "text", "text": message.content}]
    if message.thinking:
        told["reasoning_content"] = message.thinking
    if message.tool_calls:
        told["tool_calls"] = [
            {"type": "function", **call, "id": call.get("id") or f"call_{number}_{place}"}
            for place, call in enumerate(message.tool_calls)
        ]
        for call in told["tool_calls"]:
            calls.add(call)
    if told["role"] == "tool":
        told["tool_call_id"] = message.tool_call_id or calls.answer(message.tool_name)
        told |= {} if message.tool_name is None else {"name": message.tool_name}
    return {name: value for name, value in told.items() if value is not None}


def _medium(image: str) -> dict[str, Any]:
    """A part of OpenAI's kind: Ollama's clients send sounds among the pictures."""
    if begins_sound(image):
        return {"type": "input_audio", "input_audio": {"data": image}}
    url = image if image.startswith("data:") else f"data:image/png;base64,{image}"
    return {"type": "image_url", "image_url": {"url": url}}


def _places(messages: Sequence[OllamaMessage]) -> dict[str, str]:
    return {
        f"messages[{number}].content[{place}]": f"messages[{number}].images[{place}]"
        for number, message in enumerate(messages)
        for place in range(len(message.images or ()))
    }
