"""What people write into messages: texts, pictures and sounds in many forms, read into those that a template knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, cast

from opsin.api.fetching import Fetching
from opsin.api.messages import Message, check_messages
from opsin.api.senses import DEAF, Senses, kind_of
from opsin.api.videos import LaidOut, is_video, lay_out_videos
from opsin.errors import FieldError
from opsin.media.budget import USUAL, PictureBudget
from opsin.media.fetch import is_remote
from opsin.spans import Kind, Patches, check_context, counted
from opsin.text import join

if TYPE_CHECKING:
    from opsin.media.decode import Source
    from opsin.media.hearing import Heard

_PART_HINT = 'give a text, a picture, a sound, or {"type": "text", "image_url" or "input_audio", ...}'
# Types of parts with a place in them, as OpenAI, vLLM and transformers call them, and what lies there.
_KINDS: Final[Mapping[object, Kind]] = {
    "image_url": "image", "image": "image", "audio_url": "audio", "input_audio": "audio", "audio": "audio",
}  # fmt: skip
_URL: Final[Mapping[Kind, str]] = {"image": "image_url", "audio": "audio_url"}


@dataclass(frozen=True)
class PreparedMessages:
    """Messages whose contents are None, a text, or a list of `{"type": "text", ...}`, `{"type": "image"}` and "audio".

    Attributes:
        messages: in this form.
        media: those of the parts of the types "image" and "audio", in their order, with their names for errors.
    """

    messages: list[dict[str, object]]
    media: list[tuple[str, Patches]]

    def with_system(self, text: str) -> PreparedMessages:
        """The same, begun by this system message where there is none; "" is no message."""
        if not text or any(message["role"] in ("system", "developer") for message in self.messages):
            return self
        return replace(self, messages=[{"role": "system", "content": text}, *self.messages])


def read_messages(
    messages: Sequence[Message], senses: Senses | None, *, no_media_hint: str, knows_role: Callable[[str], bool],
    check: Callable[[], None] = lambda: None, context: int | None = None, budget: PictureBudget = USUAL,
) -> PreparedMessages:  # fmt: skip
    """Check messages, and prepare the media in them. `no_media_hint`: what to do where there is no part for pictures.

    `knows_role`: whether there is such a role. `check` is called before each part: what it raises ends the work.
    `context`: tokens that the prompt and its answer may have together. `budget`: of all pictures; each may say more.

    Raises RequestError, naming the part, for what is no message, no picture and no sound.
    """
    messages = checked = check_messages(messages, knows_role)
    if not any(isinstance(message["content"], list | tuple) for message in checked):
        return PreparedMessages(checked, [])  # texts alone
    if any(is_video(part) for _, part in _parts(messages)):
        messages = lay_out_videos(messages, senses, check, context, budget)
    kinds = [kind for _, part in _parts(messages) for kind in _kinds(part)]
    fetching, remote = None, [*_remote(messages, senses)]
    if senses is not None and remote:
        fetching = Fetching(senses.rules, remote, senses.budgets.files, check)
    with fetching or nullcontext():
        pictures = sum(_kind(part) == "image" for _, part in _parts(messages))
        reading = _Reading(senses, no_media_hint, check, fetching, context, kinds, budget, several=pictures > 1)
        return PreparedMessages([reading.message(*numbered) for numbered in enumerate(messages)], reading.media)


def _parts(messages: Sequence[Message]) -> Iterator[tuple[str, object]]:
    """All parts, with their names."""
    for number, message in enumerate(messages):
        content = message.get("content")
        if isinstance(content, list | tuple):
            yield from ((f"messages[{number}].content[{i}]", part) for i, part in enumerate(content))


def _remote(messages: Sequence[Message], senses: Senses | None) -> Iterator[tuple[str, str]]:
    """Names and URLs of what lies on other servers, as far as the model takes it."""
    for name, part in _parts(messages):
        url, kind = _source(part), _kind(part)
        if isinstance(url, str) and is_remote(url) and senses is not None and kind in senses.markers:
            yield name, url


def _kind(part: object) -> Kind | None:
    """What a part is of media; None for texts and videos, and for what is no part."""
    if isinstance(part, Mapping):
        return _KINDS.get(part.get("type"))
    return None if isinstance(part, str | LaidOut) else kind_of(part)


def _kinds(part: object) -> list[Kind]:
    """What stands in a prompt for a part: of a video so many pictures."""
    if isinstance(part, LaidOut):
        return [patches.kind for patches in part.parts if isinstance(patches, Patches)]
    kind = _kind(part)
    return [] if kind is None else [kind]


def _source(part: object) -> object:
    """What a part of OpenAI's kind says of where its picture or sound is; None for all others."""
    if not isinstance(part, Mapping) or _kind(part) is None:
        return None
    source = part.get(cast(str, part["type"]))
    if isinstance(source, Mapping):
        return source.get("url", source.get("data"))
    return source


def _budget(part: Mapping[str, object], name: str) -> PictureBudget:
    """What a part says of how finely its picture is looked at, beside the picture's place or with it."""
    budget, kind = PictureBudget.read(part, name), str(part["type"])
    source = part[kind]
    return PictureBudget.read(source, f"{name}.{kind}").within(budget) if isinstance(source, Mapping) else budget


@dataclass
class _Reading:
    """Messages on their way into the form of templates.

    `kinds` are those of all media in them, in their order; `several` says whether there are more pictures than one.
    """

    senses: Senses | None
    no_media_hint: str
    check: Callable[[], None]
    fetching: Fetching | None
    context: int | None
    kinds: Sequence[Kind]
    budget: PictureBudget
    several: bool
    media: list[tuple[str, Patches]] = field(default_factory=list)
    rows: int = 0

    def message(self, number: int, message: Message) -> dict[str, object]:
        content = message.get("content")
        if not isinstance(content, list | tuple):
            return dict(message)
        parts: list[dict[str, object]] = []
        for i, part in enumerate(content):
            name = f"messages[{number}].content[{i}]"
            if isinstance(part, LaidOut):
                parts += [self._shown(p, name) if isinstance(p, Patches) else self._part(p, name) for p in part.parts]
            else:
                parts.append(self._part(part, name))
        return {**message, "content": parts}

    def _part(self, part: object, name: str) -> dict[str, object]:
        """A part in the form of templates. A picture or a sound goes into the list."""
        self.check()
        if isinstance(part, str):
            return {"type": "text", "text": part}
        kind = _kind(part)
        if isinstance(part, Mapping) and kind is None:
            text = part.get("text")
            if isinstance(text, str) and part.get("type", "text") == "text":
                return {"type": "text", "text": text}
            if part.get("type") == "refusal" and isinstance(part.get("refusal"), str):
                return {"type": "text", "text": part["refusal"]}
            raise FieldError(name, f"is of the type {part.get('type')!r:.80}", hint=_PART_HINT)
        assert kind is not None
        return self._shown(self._sound(part, name) if kind == "audio" else self._picture(part, name), name)

    def _shown(self, patches: Patches, name: str) -> dict[str, object]:
        """Prepared media goes into the list."""
        kind = patches.kind
        self.media.append((name, patches))
        self.rows += patches.rows
        if self.context is not None:
            which = counted(name, len(self.media) - 1, self.kinds)
            check_context(self.rows, self.context, at_least=True, picture=which, kind=kind, param=name)
        return {"type": kind}

    def _picture(self, part: object, name: str) -> Patches:
        if self.senses is None or self.senses.vision is None:
            takes = "text only" if self.senses is None else "sound and text only"
            hint = self.no_media_hint or "load a model that sees, and the mmproj file of that"
            raise FieldError(name, f"is a picture, and this model takes {takes}", hint=hint)
        vision, budget = self.senses.vision, self.budget
        source = part
        if isinstance(part, Mapping):
            source = self._place(part, name, "image")
            budget = _budget(part, name).within(self.budget)
            if isinstance(source, str):  # never a path here: such parts may come from strangers
                if not is_remote(source):
                    return vision.fetch(source, name, budget, several=self.several)
                source = self._fetched()
        return vision.prepare(cast("Source", source), name, budget=budget, several=self.several)

    def _sound(self, part: object, name: str) -> Patches:
        if self.senses is None or self.senses.audio is None:
            raise FieldError(name, "is a sound, and this model does not hear", hint=DEAF)
        audio = self.senses.audio
        if not isinstance(part, Mapping):
            return audio.prepare(cast("Heard | Patches", part), name)
        source = self._place(part, name, "audio")
        if not isinstance(source, str):
            return audio.prepare(cast("Heard", source), name)
        if is_remote(source):
            return audio.prepare(self._fetched(), name)
        if part["type"] == "input_audio" and not source.startswith("data:"):
            source = f"data:;base64,{source}"
        return audio.fetch(source, name)

    def _fetched(self) -> bytes:
        assert self.fetching is not None
        return self.fetching.take()

    def _place(self, part: Mapping[str, object], name: str, kind: Kind) -> object:
        """Where what a part of OpenAI's kind shows is. Raises FieldError where it does not say."""
        source = _source(part)
        if source is None:
            type = _URL[kind]
            hint = f'give {{"type": "{type}", "{type}": {{"url": "..."}}}}'
            raise FieldError(name, f"there is no {part['type']}", hint=hint)
        return source


def flatten_contents(messages: Sequence[Message], marker: str) -> list[dict[str, object]]:
    """The same messages with texts as contents, for templates that know no parts; `marker` stands for media."""
    return [{**message, "content": _joined(message.get("content"), marker)} for message in messages]


def _joined(content: object, marker: str) -> object:
    if not isinstance(content, list):
        return content
    return join("\n", (part["text"] if part["type"] == "text" else marker for part in content))
