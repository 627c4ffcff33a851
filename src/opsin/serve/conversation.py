"""A conversation as OpenAI's clients send it. What its messages are is known where they are read (`opsin.api`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

from msgspec import Meta

from opsin.api import Message
from opsin.api.continuing import Continues, said_in
from opsin.api.prompt_options import PromptOptions
from opsin.api.tools import Tools
from opsin.errors import FieldError
from opsin.media.budget import WORDS, PictureBudget
from opsin.serve.body import Owned
from opsin.serve.budget_fields import BudgetFields, budget_of
from opsin.serve.fields import Fields, read, unbuilt
from opsin.serve.prompt_fields import salt_of
from opsin.serve.stored_files import TenantFiles
from opsin.serve.template_fields import AskedThoughts, thoughts_of, variables_of
from opsin.serve.tool_fields import ToolFields, tools_of
from opsin.serve.video_fields import FRAME_WORDS, FilmFields, InputVideo, VideoUrl

_CALL: Final = {
    "type": "object",
    "required": ["name", "arguments"],
    "properties": {"name": {"type": "string"}, "arguments": {"type": ["object", "string"]}},
}
_CALLS: Final = {
    "type": ["array", "null"],
    "items": {"type": "object", "required": ["function"], "properties": {"function": _CALL}},
}
_PLACES: Final = ("text", "image_url", "input_audio", "audio_url")
_VIDEOS: Final = ("video_url", "input_video")
_PARTS_TO_CONTINUE: Final[Mapping[str, Continues]] = {"content": "content", "reasoning_content": "thoughts"}
# It stands beside a template's own words, where a line break would begin a message of somebody else.
_NAME = Meta(
    pattern=r"^[\w. -]{1,64}(?![\s\S])",
    description="Who speaks.",
    extra={"hint": "give letters, digits, dots and dashes"},
)


def _of_kind(kind: str, value: list[str], *without: str) -> dict[str, Any]:
    """A part of one kind, with its value under the same name."""
    said = {"type": {"enum": [kind]}, kind: {"type": value}}
    return {"required": [*said], "properties": said | {name: {"type": "null"} for name in without}}


class ImageUrl(BudgetFields, kw_only=True):
    """Where a picture is."""

    url: Annotated[str | None, Meta(description="http, https, or data with base64.")] = None
    resized_height: Annotated[Any, unbuilt()] = None
    resized_width: Annotated[Any, unbuilt()] = None


class AudioUrl(Fields, kw_only=True):
    """Where a sound is."""

    url: Annotated[str, Meta(description="http, https, or data with base64.")]


class InputAudio(Fields, kw_only=True):
    """A sound that is sent along."""

    data: Annotated[str, Meta(description="Base64 of a file: WAV, FLAC, OGG, Opus, MP3, M4A, MP4 or WebM.")]
    format: Annotated[str | None, Meta(description="Its kind, which its first bytes tell as well.")] = None


class FilePlace(Fields, kw_only=True):
    """A picture or a sound that is stored, or is sent along."""

    file_id: Annotated[str | None, Meta(description="Of a file that was stored by POST /v1/files.")] = None
    file_data: Annotated[str | None, Meta(description="Data with base64.")] = None
    filename: Annotated[str | None, Meta(description="Its name, which is not looked at.")] = None


class Part(FilmFields, kw_only=True):
    """A part of a content: a text, a refusal, a picture, a sound, or a video."""

    together: ClassVar[Mapping[str, Any]] = {
        "anyOf": [
            _of_kind("text", ["string"], "image_url", *WORDS, *FRAME_WORDS, *_VIDEOS),
            _of_kind("refusal", ["string"], "image_url", *WORDS, *FRAME_WORDS, *_VIDEOS),
            _of_kind("image_url", ["string", "object"], "text", *FRAME_WORDS, *_VIDEOS),
            _of_kind("file", ["object"], "text", "image_url", *FRAME_WORDS, *_VIDEOS),
            _of_kind("input_audio", ["object"], "text", "image_url", *FRAME_WORDS, *_VIDEOS),
            _of_kind("audio_url", ["string", "object"], "text", "image_url", *FRAME_WORDS, *_VIDEOS),
            _of_kind("video_url", ["string", "object"], "text", "image_url", "input_video"),
            _of_kind("input_video", ["object"], "text", "image_url", "video_url"),
        ]
    }
    type: Annotated[
        str | None, Meta(description='"text", "refusal", "file", "image_url" and so on, as the field beside it.')
    ] = None
    text: Annotated[str | None, Meta(description="Of a text.")] = None
    refusal: Annotated[str | None, Meta(description="Of a refusal.")] = None
    image_url: Annotated[ImageUrl | str | None, Meta(description="Of a picture: its URL.")] = None
    uuid: (
        Annotated[
            str, Meta(max_length=256, description="Of a picture: a name, by which it is sent again without its URL.")
        ]
        | None
    ) = None
    file: Annotated[FilePlace | None, Meta(description="Of a picture or a sound: where it is stored.")] = None
    input_audio: Annotated[InputAudio | None, Meta(description="Of a sound: its file.")] = None
    audio_url: Annotated[AudioUrl | str | None, Meta(description="Of a sound: its URL.")] = None
    video_url: Annotated[VideoUrl | str | None, Meta(description="Of a video: its URL.")] = None
    input_video: Annotated[InputVideo | None, Meta(description="Of a video: its file, or its URL.")] = None
    resized_height: Annotated[Any, unbuilt()] = None
    resized_width: Annotated[Any, unbuilt()] = None


class ChatMessage(Fields, kw_only=True):
    """A message. Other fields than these go to the model's template, too."""

    together: ClassVar[Mapping[str, Any]] = {
        "anyOf": [
            {"required": ["content"]},
            {"required": ["tool_calls"], "properties": {"role": {"enum": ["assistant"]}}},
            {"required": ["function_call"], "properties": {"role": {"enum": ["assistant"]}}},
            {"required": ["refusal"], "properties": {"role": {"enum": ["assistant"]}}},
        ]
    }
    role: Annotated[
        str,
        Meta(
            description="Who says it. A template may know others, too.",
            extra_json_schema={"enum": ["user", "assistant", "system", "developer", "tool", "function"]},
            extra={"hint": "give user, assistant or system"},
        ),
    ]
    content: Annotated[
        str | list[Part] | None,
        Meta(
            description="What is said.",
            extra={"hint": 'give a text, or a list of {"type": "text"} and {"type": "image_url"}'},
        ),
    ] = None
    name: Annotated[str, _NAME] | None = None
    tool_calls: Annotated[Any, Meta(description="Calls that the assistant made.", extra_json_schema=_CALLS)] = None
    tool_call_id: Annotated[Any, Meta(description="The call whose result this is.")] = None
    function_call: Annotated[Any, Meta(description="A call in OpenAI's first form.")] = None
    refusal: Annotated[Any, Meta(description="What the assistant said in place of a content.")] = None
    prefix: Annotated[bool, Meta(description="Of the last one: go on with it, as is done anyway.")] = False
    partial: Annotated[bool, Meta(description="The same.")] = False
    text: Annotated[Any, unbuilt("")] = None


class Conversation(ToolFields, kw_only=True):
    """Messages, the last of which is to be answered."""

    messages: Annotated[
        list[ChatMessage],
        Meta(
            min_length=1,
            description="From the first to the last.",
            extra={"hint": 'give [{"role": "user", "content": "..."}]'},
        ),
    ]
    add_generation_prompt: Annotated[bool, Meta(description="Begin an answer after the last message.")] = True
    continue_final_message: Annotated[
        bool | str,
        Meta(
            description="Go on with the last message, which is the assistant's: true, content or reasoning_content.",
            extra={"hint": "give true, content or reasoning_content"},
        ),
    ] = False
    add_special_tokens: Annotated[Any, unbuilt(False)] = None
    prompt: Annotated[Any, unbuilt("", [])] = None
    safe_prompt: Annotated[Any, unbuilt(False)] = None


@dataclass(frozen=True)
class Prefill:
    """A text of the assistant's that is gone on with: its content, or its thoughts."""

    text: str
    is_thought: bool = False


@dataclass(frozen=True)
class AskedConversation:
    """What makes a prompt.

    Attributes:
        messages: as the client wrote them, of checked shape.
        budget: how finely to look at all their pictures.
        options: what else the template is told.
        tools: those of the options, and which of them may be called.
        thoughts: whether and how much to think, as far as the conversation's fields say so.
        in_first_form: whether its tools are OpenAI's first `functions`.
        prefill: what is gone on with, and whether it is content or thoughts; None where an answer is begun.
    """

    messages: Owned[Sequence[Message]]
    budget: PictureBudget
    options: PromptOptions
    tools: Tools
    thoughts: AskedThoughts
    in_first_form: bool
    prefill: Prefill | None = None


def conversation(
    body: Mapping[str, Any], *, prefill: bool = True, files: TenantFiles | None = None
) -> AskedConversation:
    """The conversation of a body. Raises FieldError, naming the field.

    `prefill`: a last message of the assistant's is gone on with, unless it says otherwise. `files` are those that its
    pictures may be named by, and whose they are.
    """
    fields = read(body, Conversation)
    parts = [
        (f"messages[{number}].content[{place}].", part)
        for number, message in enumerate(fields.messages) if isinstance(message.content, list)
        for place, part in enumerate(message.content)
    ]  # fmt: skip
    for path, part in parts:
        _check_part(part, path)
    messages: Sequence[Message] = body["messages"]
    if files is not None and parts:
        messages = files.resolved(messages)
    tools = tools_of(fields, body)
    continues = _continues(fields, prefill)
    salt = salt_of(fields.cache_salt, "" if files is None else files.tenant)
    thoughts = thoughts_of(fields)
    variables = variables_of(fields, thoughts)
    options = PromptOptions(tools.declared, variables, fields.add_generation_prompt, continues, salt)
    begun = None if continues is None else _prefill(messages[-1], continues)
    return AskedConversation(
        Owned(messages), budget_of(fields), options, tools, thoughts, bool(fields.functions), begun
    )


def _prefill(message: Message, continues: Continues) -> Prefill:
    name, text = said_in(message, continues)
    return Prefill(text, name != "content")


def _continues(fields: Conversation, prefill: bool) -> Continues | None:
    """What of the last message is gone on with, by llama-server's rules: the assistant's is where `prefill` is."""
    asked, roles = fields.continue_final_message, [message.role for message in fields.messages]
    if isinstance(asked, str) and asked not in _PARTS_TO_CONTINUE:
        raise FieldError("continue_final_message", f"{asked!r:.80} is no part", hint="give true, or reasoning_content")
    for number, message in enumerate(fields.messages[:-1]):
        if message.prefix or message.partial:
            name = "prefix" if message.prefix else "partial"
            raise FieldError(f"messages[{number}].{name}", "only the last one is gone on with", hint="leave it out")
    if asked:
        if fields.add_generation_prompt:
            what = "is true, and so is continue_final_message"
            raise FieldError("add_generation_prompt", what, hint="send add_generation_prompt: false")
        return _PARTS_TO_CONTINUE[asked] if isinstance(asked, str) else "last"
    last = fields.messages[-1]
    if last.role != "assistant" or not (prefill or last.prefix or last.partial):
        return None
    if roles[-2:] == ["assistant", "assistant"]:
        raise FieldError("messages", "the last two are the assistant's", hint="make one of them")
    return "last"


def _has_no_url(place: ImageUrl | str | None) -> bool:
    return isinstance(place, ImageUrl) and place.url is None


def _check_video(part: Part, path: str) -> None:
    """The same of videos, and of what only they have."""
    strays = [name for name in _VIDEOS if name != part.type]
    strays += ["text", "image_url"] if part.type in _VIDEOS else [*FRAME_WORDS]
    for stray in strays:
        if (value := getattr(part, stray)) or value is False:
            raise FieldError(path + stray, "nothing is read from here", hint="send it as a part of its own")
    for place in (part.video_url, part.input_video):
        if isinstance(place, VideoUrl):
            budget_of(place, f"{path}{part.type}.")


def _check_part(part: Part, path: str) -> None:
    """Raises FieldError for what would be lost, since a part of this type does not hold it, or contradicts itself."""
    _check_video(part, path)
    for stray in _PLACES:
        if stray != part.type and (stray != "text" or part.type in _PLACES) and getattr(part, stray):
            raise FieldError(path + stray, "nothing is read from here", hint="send it as a part of its own")
    if part.type == "file" and part.file is None:
        raise FieldError(f"{path}file", "there is none", hint='give {"file_id": "..."}, of a file that was stored')
    if part.file is not None and part.type != "file":
        raise FieldError(f"{path}file", "nothing is read from here", hint='give the part the type "file"')
    if part.type == "image_url" and part.uuid is None and _has_no_url(part.image_url):
        raise FieldError(f"{path}image_url.url", "there is none", hint="send http, https, or data with base64")
    if part.type not in ("image_url", "file", *_VIDEOS):
        for word in WORDS:
            if getattr(part, word) is not None:
                raise FieldError(
                    path + word, "this part is no picture", hint="say it of one, or of all beside messages"
                )
    budget_of(part, path)
    if isinstance(part.image_url, ImageUrl):
        budget_of(part.image_url, f"{path}image_url.")
