"""OpenAI's responses: their items become a conversation's messages. What was stored is gone on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, cast

from msgspec import Meta

from opsin.errors import FieldError
from opsin.serve.conversation import InputAudio
from opsin.serve.fields import Fields, one_of, read, unbuilt
from opsin.serve.template_fields import ReasoningFields
from opsin.serve.translated import Translated

_Json = Mapping[str, Any]
_TEXTS: Final = ("input_text", "output_text", "text")
_MEDIA_HINT: Final = 'send pictures as parts: {"type": "input_image", "image_url": "data:image/png;base64,..."}'
_PICTURE_HINT: Final = "send a URL, data with base64, or the file_id of a stored picture"
_LOGPROBS: Final = "message.output_text.logprobs"
_OURS: Final = frozenset((
    "input", "instructions", "previous_response_id", "store", "tools", "tool_choice", "text", "reasoning", "include",
    "stream_options", "metadata", "truncation", "user", "top_logprobs", "max_tool_calls", "background", "conversation",
    "prompt",
))  # fmt: skip


class ResponsePart(Fields, kw_only=True):
    """A part of a content: a text, a refusal, a sound, or a picture by its URL."""

    media_hint = _MEDIA_HINT
    type: Annotated[
        str,
        one_of(
            *("input_text", "output_text", "text", "refusal", "input_image", "input_audio", "input_file"),
            *("summary_text", "reasoning_text"),
            description="input_text, output_text, refusal, input_image, input_audio or input_file.",
            hint="give input_text, input_image or input_audio",
        ),
    ]
    text: Annotated[str | None, Meta(description="Of a text.")] = None
    refusal: Annotated[str | None, Meta(description="Of a refusal.")] = None
    image_url: Annotated[str | None, Meta(description="Of a picture: http, https, or data with base64.")] = None
    detail: Annotated[str | None, Meta(description="How finely to look at it: low, high or auto.")] = None
    input_audio: Annotated[InputAudio | None, Meta(description="Of a sound: its file.")] = None
    file_id: Annotated[str | None, Meta(description="Of a picture that was stored by POST /v1/files.")] = None
    file_url: Annotated[str | None, Meta(description="Of an input_file: http or https.")] = None
    file_data: Annotated[str | None, Meta(description="Of an input_file: data with base64.")] = None
    filename: Annotated[str | None, Meta(description="Of an input_file: its name, which is not looked at.")] = None


class ResponseItem(Fields, kw_only=True):
    """A message, a call, its result, or what was thought."""

    media_hint = _MEDIA_HINT
    type: Annotated[
        str,
        one_of(
            *("message", "function_call", "function_call_output", "reasoning"),
            description="message, function_call, function_call_output or reasoning.",
        ),
    ] = "message"
    role: Annotated[str | None, Meta(description="Of a message.")] = None
    content: str | list[ResponsePart] | None = None
    call_id: Annotated[str | None, Meta(description="Of a call, and of its result.")] = None
    name: Annotated[str | None, Meta(description="Of a call: the function's.")] = None
    arguments: Annotated[str | None, Meta(description="Of a call: JSON.")] = None
    output: Annotated[str | list[ResponsePart] | None, Meta(description="Of a result.")] = None
    summary: list[ResponsePart] | None = None


class ResponseTool(Fields, kw_only=True):
    """A function that may be called."""

    type: Annotated[str, one_of("function", description="function: there are no others here.")]
    name: Annotated[str, Meta(description="What it is called by.")]
    description: Annotated[str | None, Meta(description="What it is for.")] = None
    parameters: Annotated[dict[str, Any] | None, Meta(description="A JSON schema of its arguments.")] = None


class TextForm(Fields, kw_only=True):
    """The form of an answer."""

    type: Annotated[str, one_of("text", "json_object", "json_schema", description="text, json_object or json_schema.")]
    schema: Annotated[dict[str, Any] | None, Meta(description="Of json_schema.")] = None


class TextFields(Fields, kw_only=True):
    """How an answer's text is."""

    format: TextForm | None = None
    verbosity: Annotated[Any, unbuilt("medium")] = None


class ResponsesFields(Fields, kw_only=True):
    """What to answer. Sampling goes by the names of chats."""

    media_hint = _MEDIA_HINT
    input: Annotated[
        str | Annotated[list[ResponseItem], Meta(min_length=1)],
        Meta(description="A text, or items from the first to the last."),
    ]
    instructions: Annotated[str | None, Meta(description="A system message before all.")] = None
    previous_response_id: Annotated[str | None, Meta(description="Go on after this one, which was stored.")] = None
    store: Annotated[bool, Meta(description="Whether this can be gone on with.")] = True
    tools: Annotated[list[ResponseTool], Meta(max_length=256, description="Functions.")] | None = None
    tool_choice: Annotated[
        str | dict[str, Any] | None, Meta(description="As in a chat, or a function by its name.")
    ] = None
    text: TextFields | None = None
    reasoning: ReasoningFields | None = None
    include: Annotated[list[str] | None, Meta(description=f"{_LOGPROBS}; others do nothing.")] = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20, description="How many rivals of each token are told.")] = 0
    metadata: Annotated[dict[str, Any] | None, Meta(description="Is told again.")] = None
    background: Annotated[Any, unbuilt(False)] = None
    conversation: Annotated[Any, unbuilt(send="previous_response_id")] = None
    prompt: Annotated[Any, unbuilt()] = None
    max_tool_calls: Annotated[Any, unbuilt()] = None
    truncation: Annotated[Any, unbuilt("disabled")] = None


def translate(body: _Json, before: Sequence[_Json] = ()) -> Translated:
    """A body as one of a conversation, after the messages `before`. Raises FieldError, naming the field."""
    asked = read(body, ResponsesFields)
    first = [] if asked.instructions is None else [{"role": "system", "content": asked.instructions}]
    messages = _Messages([*first, *cast(Sequence[dict[str, Any]], before)])
    if isinstance(asked.input, str):
        messages.say("user", asked.input, "input")
    else:
        for number, item in enumerate(asked.input):
            messages.add(item, f"input[{number}]")
    told: dict[str, Any] = {name: value for name, value in body.items() if name not in _OURS}
    if _LOGPROBS in (asked.include or ()) or asked.top_logprobs:
        told |= {"logprobs": True, "top_logprobs": asked.top_logprobs}
    told |= {**_tools(asked), **_form(asked.text), **_thoughts(asked.reasoning)}
    return Translated({**told, "messages": messages.told()}, messages.places)


def _tools(asked: ResponsesFields) -> dict[str, Any]:
    told: dict[str, Any] = {} if asked.tool_choice is None else {"tool_choice": asked.tool_choice}
    if asked.tools:
        told["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool.name, "description": tool.description or "", "parameters": tool.parameters or {},
                },
            }
            for tool in asked.tools
        ]  # fmt: skip
    return told


def _form(text: TextFields | None) -> dict[str, Any]:
    if text is None or text.format is None or text.format.type == "text":
        return {}
    kind = text.format.type
    more = {} if kind == "json_object" else {"json_schema": {"schema": text.format.schema}}
    return {"response_format": {"type": kind, **more}}


def _thoughts(reasoning: ReasoningFields | None) -> dict[str, Any]:
    return {} if reasoning is None or reasoning.effort is None else {"reasoning_effort": reasoning.effort}


class _Messages:
    """Messages on their way: an assistant's thoughts, text and calls in a row are one."""

    def __init__(self, before: list[dict[str, Any]]) -> None:
        self.messages: list[dict[str, Any]] = before
        self.places: dict[str, str] = {}
        self._own = len(self.messages)  # what was stored stays as it is
        self._thoughts: dict[int, list[str]] = {}  # by the numbers of messages

    def told(self) -> list[dict[str, Any]]:
        """All of them."""
        for number, thoughts in self._thoughts.items():
            self.messages[number]["reasoning_content"] = "\n".join(thoughts)
        return self.messages

    def add(self, item: ResponseItem, path: str) -> None:
        if item.type == "message":
            if item.role is None:
                raise FieldError(f"{path}.role", "there is none", hint="give user, assistant, system or developer")
            if item.content is None:
                raise FieldError(f"{path}.content", "there is none", hint="give a text, or a list of parts")
            self.say(item.role, item.content, path)
        elif item.type == "function_call":
            if not item.name or not item.call_id:
                raise FieldError(f"{path}.{'call_id' if item.name else 'name'}", "there is none")
            function = {"name": item.name, "arguments": item.arguments or "{}"}
            call = {"id": item.call_id, "type": "function", "function": function}
            self._assistant(path).setdefault("tool_calls", []).append(call)
        elif item.type == "function_call_output":
            self.say("tool", item.output or "", path, "output")
            self.messages[-1]["tool_call_id"] = item.call_id or ""
        else:
            self._assistant(path)
            parts = [*(item.content if isinstance(item.content, list) else ()), *(item.summary or ())]
            self._thoughts.setdefault(len(self.messages) - 1, []).extend(part.text or "" for part in parts)

    def say(self, role: str, content: str | Sequence[ResponsePart], path: str, field: str = "content") -> None:
        if role == "assistant" and self.messages and self._is_open(self.messages[-1]):
            message, number = self.messages[-1], len(self.messages) - 1
        else:
            message, number = {"role": role}, len(self.messages)
            self.messages.append(message)
        self.places[f"messages[{number}]"] = path
        if isinstance(content, str):
            message["content"] = content
            return
        message["content"] = [_part(part, f"{path}.{field}[{place}]") for place, part in enumerate(content)]
        for place in range(len(content)):
            own, theirs = f"messages[{number}].content[{place}]", f"{path}.{field}[{place}]"
            self.places |= {own: theirs, f"{own}.file": theirs}

    def _assistant(self, path: str) -> dict[str, Any]:
        """The assistant's message that is being said."""
        if len(self.messages) == self._own or self.messages[-1]["role"] != "assistant":
            self.places[f"messages[{len(self.messages)}]"] = path
            self.messages.append({"role": "assistant", "content": None})
        return self.messages[-1]

    def _is_open(self, message: _Json) -> bool:
        """Whether it has thoughts, and nothing said yet."""
        said = message["role"] == "assistant" and message.get("content") is None and "tool_calls" not in message
        return said and len(self.messages) > self._own


def _part(part: ResponsePart, place: str) -> dict[str, Any]:
    """A part as chats have it."""
    if part.type in _TEXTS:
        return {"type": "text", "text": part.text or ""}
    if part.type == "refusal":
        return {"type": "refusal", "refusal": part.refusal or ""}
    if part.type == "input_audio":
        if part.input_audio is None:
            raise FieldError(f"{place}.input_audio", "there is none", hint='give {"data": "...", "format": "wav"}')
        return {"type": "input_audio", "input_audio": {"data": part.input_audio.data}}
    if part.type not in ("input_image", "input_file"):
        raise FieldError(f"{place}.type", f"{part.type} cannot stand here", hint="give input_text or input_image")
    detail = {} if part.detail in (None, "original") else {"detail": part.detail}
    if part.file_id is not None:
        return {"type": "file", "file": {"file_id": part.file_id}, **detail}
    is_file = part.type == "input_file"
    url = (part.file_url or part.file_data) if is_file else part.image_url
    if not url:
        raise FieldError(f"{place}.{'file_id' if is_file else 'image_url'}", "there is none", hint=_PICTURE_HINT)
    return {"type": "image_url", "image_url": {"url": url, **detail}}
