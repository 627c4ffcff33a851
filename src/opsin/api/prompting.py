"""A conversation becomes a prompt: rendered by the template, pictures put where it wrote their markers, tokenized."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from opsin.api.contents import Conversation, plain
from opsin.errors import RequestError
from opsin.spans import MediaSpan, Patches, Prompt
from opsin.text import ChatTemplate, Tokenizer, protect_values, split_at_marker


class Prompting:
    """A tokenizer, a template, and how pictures are marked in it.

    Args:
        template: None for files without one; they get the contents as plain text.
        marker: what the template writes for a picture; None for a model of text.
    """

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None, marker: str | None) -> None:
        self.template, self._marker = template, marker
        # Of this process alone, for templates that leave contents as they are; no user can write it.
        self.own = f"<picture-{secrets.token_hex(8)}>"
        self.tokenizer = tokenizer if marker is None else tokenizer.guarding(marker, self.own)

    def prompt(self, conversation: Conversation) -> Prompt:
        """Raises RequestError where the template has no place for the pictures."""
        pictures = [patches for _, patches in conversation.pictures]
        messages = [self._protected(message) for message in conversation.messages]
        return Prompt.of(self._spans(self._runs(messages, len(pictures)), pictures, first=True))

    def write(self, conversation: Conversation) -> str:
        """What the template makes of a conversation, with `own` in place of each picture."""
        messages = [self._protected(message) for message in conversation.messages]
        return self.own.join(self._runs(messages, len(conversation.pictures)))

    def check_places(self, pieces: Sequence[str | Sequence[int]], pictures: int) -> None:
        """Raises RequestError where texts have not as many places as there are pictures."""
        count = sum(piece.count(self.own) for piece in pieces if isinstance(piece, str))
        if count != pictures:
            raise RequestError(
                f"the prompt has {count} places for {pictures} pictures", hint=f"write {self.own} for each"
            )

    def raw(self, pieces: Sequence[str | Sequence[int]], pictures: list[Patches]) -> Prompt:
        """Texts and ids one after another; each `own` in the texts is the place of a picture."""
        spans: list[MediaSpan | Sequence[int]] = []
        left = iter(pictures)
        for number, piece in enumerate(pieces):
            if not isinstance(piece, str):
                spans.append(piece)
                continue
            runs = piece.split(self.own)
            here = [next(left) for _ in runs[1:]]
            spans += self._spans(runs, here, first=number == 0)
        return Prompt.of(spans)

    def _protected(self, message: dict[str, object]) -> dict[str, object]:
        """The message, in which nothing that people wrote becomes a special token or a place of a picture."""
        content = message.get("content")
        others = {name: value for name, value in message.items() if name != "content"}
        if isinstance(content, list):
            content = [
                part if part["type"] == "image" else {**part, "text": self._safe(part["text"])} for part in content
            ]
        elif isinstance(content, str):
            content = self._safe(content)
        if others.get("role") == "developer" and self.template is not None and "developer" not in self.template.source:
            others["role"] = "system"  # what a developer says was called so when the template was written
        return {name: protect_values(value, self.tokenizer) for name, value in others.items()} | {"content": content}

    def _safe(self, text: str) -> str:
        return self.tokenizer.guard.protect(text)

    def _runs(self, messages: list[dict[str, object]], pictures: int) -> list[str]:
        """The rendered text, cut where pictures belong."""
        if not pictures:
            return [self._render(messages)]
        if self._marker and self.template is not None and self.template.takes_parts():
            runs = split_at_marker(self._render(messages), self._marker, self.tokenizer)
            if len(runs) == pictures + 1:
                return runs
        runs = split_at_marker(self._render(plain(messages, self.own)), self.own, self.tokenizer)
        if len(runs) != pictures + 1:
            raise RequestError(
                f"the chat template has places for {len(runs) - 1} of {pictures} pictures",
                hint="put pictures into messages of the user",
            )
        return runs

    def _render(self, messages: list[dict[str, object]]) -> str:
        if self.template is None:
            return "\n".join(str(m.get("content") or "") for m in plain(messages, self.own))
        return self.template.render(messages)

    def _spans(self, runs: list[str], pictures: list[Patches], *, first: bool) -> list[MediaSpan | Sequence[int]]:
        """Texts between spans in one piece each: how words are cut depends on their neighbours."""
        spans: list[MediaSpan | Sequence[int]] = []
        text = runs[0]
        for run, patches in zip(runs[1:], pictures, strict=True):
            for part in patches.parts:
                if isinstance(part, str):
                    text += part
                    continue
                spans += [self._ids(text, first=first and not spans), part]
                text = ""
            text += run
        spans.append(self._ids(text, first=first and not spans))
        return spans

    def _ids(self, text: str, *, first: bool) -> list[int]:
        ids = self.tokenizer.encode(text, special=True)
        bos = self.tokenizer.bos
        if first and self.tokenizer.add_bos and bos is not None and ids[:1] != [bos]:
            ids = [bos, *ids]
        return ids
