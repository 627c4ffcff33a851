"""What people write into messages: texts and pictures in many forms, read into those that a template knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from opsin.api.byte_budget import ByteBudget
from opsin.api.fetching import Fetching
from opsin.api.messages import Message, check_messages
from opsin.errors import FieldError
from opsin.media.budget import USUAL, PictureBudget
from opsin.media.fetch import FetchRules, is_remote
from opsin.spans import Patches, check_context
from opsin.text import join

if TYPE_CHECKING:
    from opsin.api.vision import Vision
    from opsin.media.decode import Source

_PART_HINT = 'give a text, a picture, or {"type": "text" or "image_url", ...}'


@dataclass(frozen=True)
class PreparedMessages:
    """Messages whose contents are None, a text, or a list of `{"type": "text", ...}` and `{"type": "image"}`.

    Attributes:
        messages: in this form.
        pictures: those of the parts of the type "image", in their order, with their names for errors.
    """

    messages: list[dict[str, object]]
    pictures: list[tuple[str, Patches]]

    def with_system(self, text: str) -> PreparedMessages:
        """The same, begun by this system message where there is none; "" is no message."""
        if not text or any(message["role"] in ("system", "developer") for message in self.messages):
            return self
        return replace(self, messages=[{"role": "system", "content": text}, *self.messages])


def read_messages(
    messages: Sequence[Message], vision: Vision | None, *, no_vision_hint: str, knows_role: Callable[[str], bool],
    check: Callable[[], None] = lambda: None, context: int | None = None, budget: PictureBudget = USUAL,
) -> PreparedMessages:  # fmt: skip
    """Check messages, and prepare the pictures in them. `no_vision_hint`: what to do where there is no part for them.

    `knows_role`: whether there is such a role. `check` is called before each part: what it raises ends the work.
    `context`: tokens that the prompt and its answer may have together. `budget`: of all pictures; each may say more.

    Raises RequestError, naming the part, for what is no message or no picture.
    """
    messages = check_messages(messages, knows_role)
    rules, files = (vision.rules, vision.budgets.files) if vision is not None else (FetchRules(), ByteBudget(0))
    with Fetching(rules, _remote(messages) if vision is not None else (), files, check) as fetching:
        reading = _Reading(
            vision, no_vision_hint, check, fetching, context, sum(not _is_text(part) for _, part in _parts(messages)),
            budget,
        )  # fmt: skip
        return PreparedMessages([reading.message(*numbered) for numbered in enumerate(messages)], reading.pictures)


def _parts(messages: Sequence[Message]) -> Iterator[tuple[str, object]]:
    """All parts, with their names."""
    for number, message in enumerate(messages):
        content = message.get("content")
        if isinstance(content, list | tuple):
            yield from ((f"messages[{number}].content[{i}]", part) for i, part in enumerate(content))


def _remote(messages: Sequence[Message]) -> Iterator[tuple[str, str]]:
    """Names and URLs of the pictures that lie on other servers."""
    for name, part in _parts(messages):
        url = _source(part)
        if isinstance(url, str) and is_remote(url):
            yield name, url


def _is_text(part: object) -> bool:
    return isinstance(part, str) or (isinstance(part, Mapping) and not _is_picture(part))


def _is_picture(part: object) -> bool:
    return isinstance(part, Mapping) and part.get("type") in ("image_url", "image")


def _source(part: object) -> object:
    """What a part of OpenAI's kind says of where its picture is; None for all others."""
    if not isinstance(part, Mapping) or not _is_picture(part):
        return None
    source = part.get(cast(str, part["type"]))
    return source.get("url") if isinstance(source, Mapping) else source


def _budget(part: Mapping[str, object], name: str) -> PictureBudget:
    """What a part says of how finely its picture is looked at, beside the picture's place or with it."""
    budget, kind = PictureBudget.read(part, name), str(part["type"])
    source = part[kind]
    return PictureBudget.read(source, f"{name}.{kind}").within(budget) if isinstance(source, Mapping) else budget


@dataclass
class _Reading:
    """Messages on their way into the form of templates."""

    vision: Vision | None
    no_vision_hint: str
    check: Callable[[], None]
    fetching: Fetching
    context: int | None
    count: int
    budget: PictureBudget
    pictures: list[tuple[str, Patches]] = field(default_factory=list)
    rows: int = 0

    def message(self, number: int, message: Message) -> dict[str, object]:
        content = message.get("content")
        if not isinstance(content, list | tuple):
            return dict(message)
        parts = [self._part(part, f"messages[{number}].content[{i}]") for i, part in enumerate(content)]
        return {**message, "content": parts}

    def _part(self, part: object, name: str) -> dict[str, object]:
        """A part in the form of templates. A picture goes into the list."""
        self.check()
        if isinstance(part, str):
            return {"type": "text", "text": part}
        if isinstance(part, Mapping):
            text = part.get("text")
            if isinstance(text, str) and part.get("type", "text") == "text":
                return {"type": "text", "text": text}
            if part.get("type") == "refusal" and isinstance(part.get("refusal"), str):
                return {"type": "text", "text": part["refusal"]}
            if not _is_picture(part):
                raise FieldError(name, f"is of the type {part.get('type')!r:.80}", hint=_PART_HINT)
        if self.vision is None:
            raise FieldError(name, "is a picture, and this model takes text only", hint=self.no_vision_hint)
        patches = self._picture(part, name, self.vision)
        self.pictures.append((name, patches))
        self.rows += patches.rows
        if self.context is not None:
            which = f"{name}, picture {len(self.pictures)} of {self.count},"
            check_context(self.rows, self.context, at_least=True, picture=which, param=name)
        return {"type": "image"}

    def _picture(self, part: object, name: str, vision: Vision) -> Patches:
        if not isinstance(part, Mapping):
            return vision.prepare(cast("Source", part), name, budget=self.budget)
        source = _source(part)
        if source is None:
            hint = 'give {"type": "image_url", "image_url": {"url": "..."}}'
            raise FieldError(name, f"there is no {part['type']}", hint=hint)
        budget = _budget(part, name).within(self.budget)
        if not isinstance(source, str):
            return vision.prepare(cast("Source", source), name, budget=budget)
        if is_remote(source):
            return vision.prepare(self.fetching.take(), name, budget=budget)
        return vision.fetch(source, name, budget)  # a string is never a path here: such parts may come from strangers


def flatten_contents(messages: Sequence[Message], marker: str) -> list[dict[str, object]]:
    """The same messages with texts as contents, for templates that know no parts; `marker` stands for a picture."""
    return [{**message, "content": _joined(message.get("content"), marker)} for message in messages]


def _joined(content: object, marker: str) -> object:
    if not isinstance(content, list):
        return content
    return join("\n", (marker if part["type"] == "image" else part["text"] for part in content))
