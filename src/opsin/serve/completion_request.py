"""A request to go on with prompts as they stand, checked: llama-server's /completion and OpenAI's /v1/completions."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opsin.api import Sampling
from opsin.serve.errors import FieldError
from opsin.serve.fields import Fields
from opsin.serve.refused import PROMPT, RAW, refuse, refuse_media
from opsin.serve.wanted import MOST_LOGPROBS, Wanted, wanted

Piece = str | list[int]
_HINT = 'give a text, a list of ids, or {"prompt_string": "...", "multimodal_data": [...]}'


@dataclass(frozen=True)
class RawPrompt:
    """Texts and ids, one after another, and the files of the pictures whose markers stand in the texts."""

    pieces: tuple[Piece, ...]
    pictures: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class CompletionRequest:
    """What to go on with, and what is wanted of it."""

    prompts: tuple[RawPrompt, ...]
    wanted: Wanted


def completion_request(body: Mapping[str, Any], *, answers: int, base: Sampling) -> CompletionRequest:
    """Read a body. `answers` is how many a request may ask for, `base` what it may leave open of sampling.

    Raises FieldError, naming the field.
    """
    fields = Fields(body)
    refuse_media(body, raw=True)
    refuse(fields, RAW, PROMPT)
    logprobs = fields.whole("logprobs", "n_probs", low=0, high=MOST_LOGPROBS)
    asked = wanted(fields, answers=answers, logprobs=logprobs or None, base=base)
    prompts = prompts_of(body.get("prompt"))
    if len(prompts) * asked.choices > answers:
        raise FieldError("prompt", f"{len(prompts)} prompts with {asked.choices} answers each", hint="ask for fewer")
    return CompletionRequest(prompts, asked)


def prompts_of(prompt: object) -> tuple[RawPrompt, ...]:
    """One prompt, or a list of some. A list of ids, or of ids and texts, is one prompt."""
    if isinstance(prompt, list) and prompt and not any(_is_id(part) for part in prompt):
        return tuple(_prompt(one, f"prompt[{number}]") for number, one in enumerate(prompt))
    return (_prompt(prompt, "prompt"),)


def _prompt(prompt: object, name: str) -> RawPrompt:
    if isinstance(prompt, str):
        return RawPrompt((prompt,))
    if isinstance(prompt, dict):
        refuse_media(prompt, f"{name}.", but=("multimodal_data",), raw=True)
        text, data = prompt.get("prompt_string"), prompt.get("multimodal_data")
        if not isinstance(text, str) or not isinstance(data, list | None):
            raise FieldError(name, "has no prompt_string, or multimodal_data that is no list", hint=_HINT)
        return RawPrompt(
            (text,), tuple(_bytes(one, f"{name}.multimodal_data[{i}]") for i, one in enumerate(data or ()))
        )
    if not isinstance(prompt, list) or not prompt:
        raise FieldError(name, f"{prompt!r:.40} is no prompt", hint=_HINT)
    return RawPrompt(pieces_of(prompt, name))


def pieces_of(parts: Sequence[object], name: str) -> tuple[Piece, ...]:
    """Ids and texts in one list, neighbouring ids together. Raises FieldError for anything else."""
    pieces: list[Piece] = []
    for number, part in enumerate(parts):
        if isinstance(part, str):
            pieces.append(part)
        elif not _is_id(part):
            raise FieldError(f"{name}[{number}]", f"{part!r:.40} is neither an id nor a text", hint=_HINT)
        elif pieces and isinstance(pieces[-1], list):
            pieces[-1].append(int(part))  # type: ignore[call-overload]
        else:
            pieces.append([int(part)])  # type: ignore[call-overload]
    return tuple(pieces)


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31


def _bytes(value: object, name: str) -> bytes:
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise FieldError(name, f"its base64 is damaged: {error}", hint="encode the file's bytes again") from None
    raise FieldError(name, f"{value!r:.40} is no base64", hint="encode the file's bytes")
