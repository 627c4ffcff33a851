"""Prompts as they stand, checked: for llama-server's /completion and OpenAI's /v1/completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from opsin.api.infilling import Gap, Texts
from opsin.errors import FieldError
from opsin.media.budget import USUAL, PictureBudget
from opsin.serve.budget_fields import BudgetFields, budget_of
from opsin.serve.fields import Fields, read, unbuilt
from opsin.serve.prompt_fields import PromptFields

Id = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
Piece = str | list[int]
PictureFiles = Annotated[
    list[bytes],
    Meta(description="The pictures' files, in base64.", extra={"hint": "encode the files' bytes again"}),
]
_HINT = 'give a text, a list of ids, or {"prompt_string": "...", "multimodal_data": [...]}'
_RAW_PICTURES = 'send "prompt": {"prompt_string": "...", "multimodal_data": ["BASE64"]}'


class PromptWithMedia(BudgetFields, kw_only=True):
    """A text with markers, and the pictures that stand there."""

    media_hint: ClassVar[str] = _RAW_PICTURES
    prompt_string: Annotated[
        str, Meta(description="A text with /props's media_marker for each picture.", extra={"hint": _HINT})
    ]
    multimodal_data: PictureFiles | None = None


class Prompts(PromptFields, kw_only=True):
    """What to go on with: one prompt, or several. A list of ids, or of ids and texts, is one prompt."""

    media_hint: ClassVar[str] = _RAW_PICTURES
    prompt: Annotated[
        str | list[str | Id | list[str | Id] | PromptWithMedia] | PromptWithMedia,
        Meta(
            description="A text, a list of ids and texts, a text with pictures, or a list of such.",
            extra={"hint": _HINT},
        ),
    ]
    messages: Annotated[Any, unbuilt([])] = None
    suffix: Annotated[str, Meta(description="What stands behind the text that is asked for, of a model for code.")] = ""
    input_prefix: Annotated[Any, unbuilt("", send="it to /infill")] = None
    input_suffix: Annotated[Any, unbuilt("", send="it to /infill")] = None
    input_extra: Annotated[Any, unbuilt([], send="it to /infill")] = None
    add_special_tokens: Annotated[Any, unbuilt(True)] = None
    context: Annotated[Any, unbuilt([])] = None
    return_full_text: Annotated[Any, unbuilt(False)] = None


class OtherFile(Fields, kw_only=True):
    """A file beside the one that is written."""

    text: Annotated[str, Meta(description="What is in it.", extra={"hint": 'give {"filename": "...", "text": "..."}'})]
    filename: Annotated[str | None, Meta(description="How it is called.")] = None


class Infill(PromptFields, kw_only=True):
    """What surrounds the text that is asked for: llama-server's /infill."""

    input_prefix: Annotated[
        str | list[str | Id], Meta(description="What stands before it.", extra={"hint": "give a text"})
    ]
    input_suffix: Annotated[
        str | list[str | Id], Meta(description="What stands behind it.", extra={"hint": "give a text"})
    ]
    input_extra: Annotated[list[OtherFile], Meta(max_length=1000, description="Texts of other files.")] = []
    prompt: Annotated[str, Meta(description="Its beginning, which is gone on with.")] = ""
    messages: Annotated[Any, unbuilt([])] = None
    suffix: Annotated[Any, unbuilt("", send="input_suffix")] = None


@dataclass(frozen=True)
class RawPrompt:
    """Texts and ids, one after another, and the files of the pictures whose markers stand in the texts.

    `budget` says how finely these are looked at. Where there is a `gap`, it is filled in; the
    pieces are told, and no more.
    """

    pieces: tuple[Piece, ...]
    pictures: tuple[bytes, ...] = ()
    budget: PictureBudget = USUAL
    gap: Gap | None = None


def prompts_of(body: Mapping[str, Any]) -> tuple[RawPrompt, ...]:
    """The prompts of a body. Raises FieldError, naming the field."""
    fields = read(body, Prompts)
    prompt, budget = fields.prompt, budget_of(fields)
    if isinstance(prompt, list) and prompt and not any(isinstance(part, int) for part in prompt):
        found = tuple(_prompt(one, f"prompt[{number}]", budget) for number, one in enumerate(prompt))
    else:
        found = (_prompt(prompt, "prompt", budget),)
    return tuple(_before(one, fields.suffix) for one in found) if fields.suffix else found


def gaps_of(body: Mapping[str, Any]) -> tuple[RawPrompt, ...]:
    """The one gap of a body. Raises FieldError, naming the field."""
    fields = read(body, Infill)
    extra = tuple((file.filename or "tmp", file.text) for file in fields.input_extra)
    sides = [_side(fields.input_prefix, "input_prefix"), _side(fields.input_suffix, "input_suffix")]
    return (RawPrompt((), gap=Gap(sides[0], sides[1], fields.prompt, extra)),)


def _side(given: str | list[Any], name: str) -> Texts:
    return given if isinstance(given, str) else pieces_of(given, name)


def _before(prompt: RawPrompt, suffix: str) -> RawPrompt:
    """What comes between a prompt and this, which OpenAI calls its suffix."""
    if prompt.pictures:
        raise FieldError("suffix", "nothing is filled in before it behind pictures", hint="leave it out")
    return replace(prompt, gap=Gap(prompt.pieces, suffix))


def _prompt(prompt: object, name: str, budget: PictureBudget) -> RawPrompt:
    if isinstance(prompt, str):
        return RawPrompt((prompt,))
    if isinstance(prompt, PromptWithMedia):
        own = budget_of(prompt, f"{name}.").within(budget)
        return RawPrompt((prompt.prompt_string,), tuple(prompt.multimodal_data or ()), own)
    if not isinstance(prompt, list) or not prompt:
        raise FieldError(name, f"{prompt!r:.40} is no prompt", hint=_HINT)
    return RawPrompt(pieces_of(prompt, name))


def pieces_of(parts: Sequence[object], name: str) -> tuple[Piece, ...]:
    """Ids and texts in one list, neighbouring ids together. Raises FieldError for anything else."""
    pieces: list[Piece] = []
    for number, part in enumerate(parts):
        if isinstance(part, str):
            pieces.append(part)
        elif not isinstance(part, int):
            raise FieldError(f"{name}[{number}]", "is neither an id nor a text", hint=_HINT)
        elif pieces and isinstance(pieces[-1], list):
            pieces[-1].append(part)
        else:
            pieces.append([part])
    return tuple(pieces)
