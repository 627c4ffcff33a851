"""Chat templates: a conversation becomes the text that a model was trained on.

The template is a Jinja program out of the model's file; `sandbox` keeps it within limits. Texts of users are rendered
as they come: whoever encodes the result protects them first (see `protection`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cached_property
from types import CodeType
from typing import Final

import jinja2

from opsin.errors import ModelError, RequestError, TemplateError
from opsin.text.keys import read_int, read_text, read_texts
from opsin.text.sandbox import MAX_SECONDS, Budget, RefusalError, RenderEnvironment
from opsin.text.vocabulary import PREFIX

KEY: Final = "tokenizer.chat_template"
MAX_SOURCE: Final = 1 << 20
MAX_OUTPUT: Final = 1 << 26
_PROBE: Final = "needle in a haystack"
_TEXT_PART: Final = {"type": "text", "text": _PROBE}
_PROBE_SECONDS: Final = 0.2
_REASONING: Final = ("reasoning_content", "thinking", "reasoning")
_TOKENS: Final = {
    "bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding", "sep_token": "seperator",
    "mask_token": "mask",
}  # fmt: skip


class ContentForm(Enum):
    """How a template wants the content of a message."""

    TEXT = "text"
    PARTS = "parts"
    EITHER = "either"


class ChatTemplate:
    """The template of a model, with its named variants (`tool_use` and the like)."""

    def __init__(self, source: str, *, variants: Mapping[str, str] | None = None,
                 tokens: Mapping[str, str] | None = None) -> None:  # fmt: skip
        self.source = source
        self.variants = dict(variants or {})
        self._tokens = dict(tokens or {})
        self._compiled: dict[str, CodeType] = {}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, object]) -> ChatTemplate | None:
        """The file's template, or None where it has none. `tokenizer.chat_template.NAME` are its variants."""
        prefix = f"{KEY}."
        found = {key.removeprefix(prefix): read_text(metadata, key) for key in metadata if key.startswith(prefix)}
        variants = {name: text for name, text in found.items() if text is not None}
        source = read_text(metadata, KEY) if KEY in metadata else variants.get("default")
        if source is None:
            return None
        return cls(source, variants=variants, tokens=_read_tokens(metadata))

    def render(
        self, messages: Sequence[Mapping[str, object]], *, add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, object]] | None = None, **extra: object,
    ) -> str:  # fmt: skip
        """The conversation as text. `extra` are variables of the template (`enable_thinking`, `documents`).

        A list of parts as content goes to the template as it is, or as their joined text where the template wants
        text. Raises RequestError where the template refuses the conversation, ModelError where it fails by itself.
        """
        conversation = [self._fit(_to_plain(_alias_reasoning(message))) for message in messages]
        variables = {name: _to_plain(value) for name, value in extra.items()}
        return self._run(
            self._choose(tools),
            {
                **self._tokens, "tools": _to_plain(list(tools)) if tools is not None else None, "documents": None,
                **variables, "messages": conversation, "add_generation_prompt": add_generation_prompt,
            },
        )  # fmt: skip

    @cached_property
    def content_form(self) -> ContentForm:
        """Found by trying whether a text comes out where a text, or a list of one part, goes in."""
        text = self._probe(_PROBE)
        parts = self._probe([_TEXT_PART])
        if text and parts:
            return ContentForm.EITHER
        return ContentForm.PARTS if parts else ContentForm.TEXT

    def takes_parts(self) -> bool:
        """Whether a part `{"type": "image"}` beside a text leaves something in the text, such as `<image>`."""
        return self._takes_pictures

    @cached_property
    def _takes_pictures(self) -> bool:
        """Tried with a picture, without it, and with a part of a kind that no template knows."""
        picture = self._probe([{"type": "image"}, _TEXT_PART])
        others = (self._probe([_TEXT_PART]), self._probe([{"type": "nothing"}, _TEXT_PART]))
        return bool(picture) and all("".join(picture.split()) != "".join(other.split()) for other in others)

    def _probe(self, content: object) -> str:
        """What becomes of a user's message, if its text is in it and it was not just written out as data."""
        variables = {**self._tokens, "tools": None, "documents": None, "add_generation_prompt": True,
                     "messages": [{"role": "user", "content": content}]}  # fmt: skip
        try:
            text = self._run(self.source, variables, seconds=_PROBE_SECONDS)
        except (RequestError, ModelError):
            return ""
        return text if _PROBE in text and "'type'" not in text and '"type"' not in text else ""

    def _choose(self, tools: object) -> str:
        return self.variants["tool_use"] if tools and "tool_use" in self.variants else self.source

    def _fit(self, message: object) -> object:
        """The message with its content in the form that the template wants."""
        if not isinstance(message, dict) or not isinstance(content := message.get("content"), str | list):
            return message
        if isinstance(content, list) and self.content_form == ContentForm.TEXT:
            return {**message, "content": _join_parts(content)}
        if isinstance(content, str) and self.content_form == ContentForm.PARTS:
            return {**message, "content": [{"type": "text", "text": content}]}
        return message

    def _run(self, source: str, variables: Mapping[str, object], *, seconds: float = MAX_SECONDS) -> str:
        environment = RenderEnvironment(Budget(seconds))
        try:
            code = self._compile(environment, source)
            template = jinja2.Template.from_code(environment, code, environment.make_globals(None))
            return _collect(template, variables)
        except RefusalError as error:
            raise RequestError(f"the chat template refuses this conversation: {error}",
                               hint="change roles or contents of the messages") from error  # fmt: skip
        except RecursionError as error:
            raise TemplateError("the chat template recurses without end", hint="give another template") from error
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError,
                MemoryError, SyntaxError) as error:  # fmt: skip
            raise TemplateError(f"the chat template fails: {type(error).__name__}: {error}",
                             hint="give another template, or messages of the form it expects") from error  # fmt: skip

    def _compile(self, environment: RenderEnvironment, source: str) -> CodeType:
        if source not in self._compiled:
            if len(source) > MAX_SOURCE:
                raise ModelError(f"the chat template has {len(source)} characters", hint="give another template")
            self._compiled[source] = environment.compile(source)
        return self._compiled[source]


def _collect(template: jinja2.Template, variables: Mapping[str, object]) -> str:
    pieces: list[str] = []
    size = 0
    for piece in template.generate(variables):
        size += len(piece)
        if size > MAX_OUTPUT:
            raise TemplateError(
                f"the chat template writes more than {MAX_OUTPUT} characters", hint="give another template"
            )
        pieces.append(piece)
    return "".join(pieces)


def _read_tokens(metadata: Mapping[str, object]) -> dict[str, str]:
    """Texts of the special tokens that templates write by name; a token that the file does not name is left out."""
    texts = read_texts(metadata, f"{PREFIX}tokens")
    found = {}
    for name, role in _TOKENS.items():
        id = read_int(metadata, f"{PREFIX}{role}_token_id")
        if id is not None and 0 <= id < len(texts):
            found[name] = texts[id]
    return found


def _alias_reasoning(message: Mapping[str, object]) -> Mapping[str, object]:
    """Templates read what an assistant thought under different names; each finds it under its own."""
    thought = next((message[name] for name in _REASONING if message.get(name) is not None), None)
    if thought is None:
        return message
    return {"thinking": thought, **message, "reasoning_content": thought}


def _to_plain(value: object) -> object:
    """A copy out of plain JSON types: templates come from strangers, and get no objects with methods."""
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return value if type(value) is kind else kind(value)
    if isinstance(value, Mapping):
        return {str(key): _to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(item) for item in value]
    return f"<{type(value).__name__}>"


def _join_parts(parts: Sequence[object]) -> str:
    texts = []
    for part in parts:
        if not isinstance(part, Mapping) or not isinstance(text := part.get("text"), str):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise RequestError(f"the chat template has no place for content of the kind {kind!r}",
                               hint="give text only, or a model that takes such content")  # fmt: skip
        texts.append(text)
    return "\n".join(texts)
