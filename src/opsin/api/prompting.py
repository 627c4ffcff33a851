"""A conversation becomes a prompt: rendered by the template, pictures put where it wrote their markers, tokenized."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

from opsin.api.contents import PreparedMessages, flatten_contents
from opsin.api.continuing import continued
from opsin.api.messages import Message
from opsin.api.prompt_options import PLAIN, PromptOptions
from opsin.api.question import Question
from opsin.errors import RequestError, TemplateError
from opsin.spans import Kind, MediaSpan, Patches, Prompt, check_context
from opsin.text import (
    ChatTemplate,
    Tokenizer,
    Written,
    escape_special_tokens,
    join,
    split_at_marker,
    split_at_markers,
    written,
)
from opsin.text.calls import ReplyFormat

# Others must be words: a template's own tokens stand in its source as well.
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_COUNTED, _MESSAGE = 1 << 16, 64  # characters that are encoded in a moment, and what a message takes more
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})


class Prompting:
    """A tokenizer, a template, and how pictures are marked in it.

    Args:
        template: None for files without one; they get the contents as plain text.
        markers: what the template writes for a picture, and for a sound, as far as the model takes them.
        format: how replies are written.
    """

    def __init__(
        self, tokenizer: Tokenizer, template: ChatTemplate | None, markers: Mapping[Kind, str], format: ReplyFormat
    ) -> None:
        self.template, self._markers, self._format = template, markers, format
        if template is not None:
            _ = template.capabilities  # tried once, here, before there are threads
        # Of this process alone, for templates that leave contents as they are; no user can write it.
        self.own = f"<picture-{secrets.token_hex(8)}>"
        self.tokenizer = tokenizer.escaping(*markers.values(), self.own) if markers else tokenizer

    def question(
        self, conversation: PreparedMessages, options: PromptOptions = PLAIN, *, context: int | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Question:  # fmt: skip
        """A conversation's prompt. Raises RequestError where the template has no place for the pictures.

        `context`: tokens that the context holds; what is sure not to fit raises ContextError before it is rendered or
        encoded. `check` is called now and then: what it raises ends the work.
        """
        media = [patches for _, patches in conversation.media]
        self._check_texts(conversation, context)
        messages = [_marked(message) for message in conversation.messages]
        runs, text = self._runs(messages, [patches.kind for patches in media], options)
        check()
        self.refuse_too_long(runs, media, context)
        prompt = Prompt.of(self._spans(runs, media, first=True, check=check), options.salt)
        return Question.of(prompt, conversation.media, text)

    def write(self, conversation: PreparedMessages, options: PromptOptions = PLAIN) -> str:
        """What the template makes of a conversation, with `own` in place of each picture and sound."""
        messages = [_marked(message) for message in conversation.messages]
        return self.own.join(self._runs(messages, [patches.kind for _, patches in conversation.media], options)[0])

    def check_places(self, pieces: Sequence[str | Sequence[int]], pictures: int) -> None:
        """Raises RequestError where texts have not as many places as there are pictures."""
        count = sum(piece.count(self.own) for piece in pieces if isinstance(piece, str))
        if count != pictures:
            raise RequestError(
                f"the prompt has {count} places for {pictures} pictures", hint=f"write {self.own} for each"
            )

    def raw(
        self, pieces: Sequence[str | Sequence[int]], pictures: list[Patches], *, context: int | None = None,
        check: Callable[[], None] = lambda: None, salt: bytes = b"",
    ) -> Prompt:  # fmt: skip
        """Texts and ids one after another; each `own` in the texts is the place of a picture. More as `prompt`."""
        spans: list[MediaSpan | Sequence[int]] = []
        self.refuse_too_long(pieces, pictures, context)
        left, shown = iter(pictures), 0
        for number, piece in enumerate(pieces):
            if not isinstance(piece, str):
                spans.append(piece)
                continue
            runs = piece.split(self.own)
            here = [next(left) for _ in runs[1:]]
            spans += self._spans(runs, here, first=number == 0, check=check, shown=shown)
            shown += sum(patches.kind == "image" for patches in here)
        return Prompt.of(spans, salt)

    def content(
        self, parts: Sequence[Mapping[str, object]], pictures: list[Patches], *, context: int | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Prompt:  # fmt: skip
        """Prepared parts of a message one after another, without a template: texts are what people wrote."""
        said = [self.own if part["type"] != "text" else Written(cast(str, part["text"])) for part in parts]
        runs = split_at_marker(self._escaped(join("", said)), self.own, self.tokenizer)
        self.refuse_too_long(runs, pictures, context)
        return Prompt.of(self._spans(runs, pictures, first=True, check=check))

    def knows_role(self, role: str) -> bool:
        """Whether messages may have it: the roles of OpenAI's clients, and those that the template names."""
        if role in _ROLES or self.template is None:
            return role in _ROLES
        return _WORD.fullmatch(role) is not None and self.template.names(role)

    def _runs(
        self, messages: list[dict[str, object]], media: Sequence[Kind], options: PromptOptions
    ) -> tuple[list[str], str]:
        """The rendered text, escaped and cut where pictures and sounds belong, which are these; and as it is."""
        if not media:
            text = self._render(messages, options)
            return [self._escaped(text)], text
        can = self.template.capabilities if self.template is not None and self._markers else None
        if can is not None and all(can.takes(kind) for kind in set(media)):
            with suppress(TemplateError):  # it may know pictures of users alone
                text = self._render(messages, options)
                runs, found = split_at_markers(self._escaped(text), set(self._markers.values()), self.tokenizer)
                if found == [self._markers.get(kind) for kind in media]:
                    return runs, text
        text = self._render(flatten_contents(messages, self.own), options)
        runs = split_at_marker(self._escaped(text), self.own, self.tokenizer)
        if len(runs) != len(media) + 1:
            what = "pictures" if set(media) == {"image"} else "pictures and sounds"
            raise RequestError(
                f"the chat template has places for {len(runs) - 1} of {len(media)} {what}",
                hint=f"put {what} into messages of the user",
            )
        return runs, text

    def _render(self, messages: Sequence[Message], options: PromptOptions) -> str:
        """A text that knows what in it people wrote."""
        if options.continues is not None:
            once = replace(options, continues=None)
            return continued(
                messages, options.continues, lambda m, begins: self._render(m, replace(once, begins=begins))
            )
        messages = self._format.introduced(messages, options.tools)
        if self.template is None:
            return join("\n", (cast(str, m.get("content") or "") for m in flatten_contents(messages, self.own)))
        tools = cast(Sequence[Mapping[str, object]], written(options.tools)) or None
        variables: dict[str, Any] = {name: written(value) for name, value in options.variables.items()}
        fitting = self.template.fit(messages)
        return self.template.render(fitting, add_generation_prompt=options.begins, tools=tools, **variables)

    def _escaped(self, text: str) -> str:
        """A text in which nothing that people wrote becomes a special token or a place of a picture."""
        return escape_special_tokens(text, self.tokenizer)

    def _check_texts(self, conversation: PreparedMessages, context: int | None) -> None:
        """Refuse what no template could make fit: what users say stands in every prompt, but for space around it."""
        texts = [text for message in conversation.messages if message["role"] == "user" for text in _texts(message)]
        if context is None or sum(map(len, texts)) + _MESSAGE * len(conversation.messages) <= _COUNTED:
            return
        # Two messages may share a token.
        least = sum(max(0, self.tokenizer.fewest_tokens(text.strip()) - 1) for text in texts)
        check_context(max(least, len(conversation.messages)), context, at_least=True)

    def refuse_too_long(
        self, pieces: Sequence[str | Sequence[int]], pictures: Sequence[Patches], context: int | None, *,
        special: bool = True,
    ) -> None:  # fmt: skip
        """Refuse what is sure to be too long before it is encoded. Short ones are encoded, to tell the exact number."""
        if context is None or sum(map(len, pieces)) <= _COUNTED:
            return
        texts = sum(
            self.tokenizer.fewest_tokens(piece.replace(self.own, ""), special=special)
            if isinstance(piece, str)
            else len(piece)
            for piece in pieces  # a picture's place is no text
        )
        check_context(texts + sum(patches.rows for patches in pictures), context, at_least=True)

    def _spans(
        self, runs: list[str], pictures: list[Patches], *, first: bool, check: Callable[[], None], shown: int = 0
    ) -> list[MediaSpan | Sequence[int]]:
        """Texts between spans in one piece each: how words are cut depends on their neighbours.

        `shown`: pictures that stand before these.
        """
        spans: list[MediaSpan | Sequence[int]] = []
        text, absorbed, number = runs[0], "", shown
        for run, patches in zip(runs[1:], pictures, strict=True):
            text += patches.numbered.format(number)
            number += patches.kind == "image"
            for part in patches.parts:
                if isinstance(part, str):
                    text += part
                    continue
                self._add(spans, text, absorbed, first=first, check=check)
                spans.append(part)
                text = absorbed = ""
            text, absorbed = text + run, patches.absorbed
        self._add(spans, text, absorbed, first=first, check=check)
        return spans

    def _add(
        self, spans: list[MediaSpan | Sequence[int]], text: str, absorbed: str, *, first: bool,
        check: Callable[[], None],
    ) -> None:  # fmt: skip
        """The ids of a text. Those of `absorbed` behind a picture's last marker are on its canvas."""
        ids = self._ids(text, first=first and not spans, check=check)
        last = spans[-1] if spans else None
        if absorbed and isinstance(last, MediaSpan):
            own = self.tokenizer.encode(absorbed)
            others = (place for place, id in enumerate(ids[1:]) if [id] != own)
            spans[-1] = last.ended_by(next(others, len(ids[1:])))
        spans.append(ids)

    def _ids(self, text: str, *, first: bool, check: Callable[[], None]) -> list[int]:
        ids = self.tokenizer.encode(text, special=True, check=check)
        bos = self.tokenizer.bos
        if first and self.tokenizer.add_bos and bos is not None and ids[:1] != [bos]:
            ids = [bos, *ids]
        return ids


def _marked(message: dict[str, object]) -> dict[str, object]:
    """The message, whose texts know that people wrote them; but its role is one of a few, and part of some tokens."""
    content = message.get("content")
    if isinstance(content, list):
        content = [{**part, "text": Written(part["text"])} if part["type"] == "text" else part for part in content]
    others = {name: written(value) for name, value in message.items() if name not in ("role", "content")}
    return {"role": message["role"], **others, "content": written(content) if isinstance(content, str) else content}


def _texts(message: dict[str, object]) -> list[str]:
    """What a message says."""
    content = message.get("content")
    if isinstance(content, list):
        return [part["text"] for part in content if part["type"] == "text"]
    return [content] if isinstance(content, str) else []
