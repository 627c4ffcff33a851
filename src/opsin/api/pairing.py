"""Which part for pictures and sound belongs to a text model.

The one that a person chose, the model's own, or of those that lie beside it the best that fits. Only headers are read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from opsin.api.files import Files
from opsin.api.senses import Senses
from opsin.errors import ModelError, OpsinError
from opsin.hub.file_names import BEST_FOR_VISION, kinship
from opsin.models import Decoder
from opsin.text import Tokenizer


@dataclass(frozen=True)
class Pair:
    """What was found.

    Attributes:
        senses: the part for pictures and sound, if there is one.
        no_media_hint: where there is none, what to do about it. Names no file, because strangers read it.
        notes: what the person who loads should know.
    """

    senses: Senses | None
    no_media_hint: str = ""
    notes: tuple[str, ...] = ()


def pair(files: Files, open_media: Callable[[Path], Senses], decoder: Decoder, tokenizer: Tokenizer, *,
         own: bool) -> Pair:  # fmt: skip
    """The part for media of a text model; `own` where its file says that it holds one.

    Raises ModelError where a person chose one that does not belong, or the model's own does not.
    """
    if files.chosen or own:
        path = files.vision[0] if files.chosen else files.text
        senses = open_media(path)
        reason = senses.find_misfit(decoder, tokenizer)
        if reason is not None:
            raise ModelError(f"{path} does not fit {files.text}: {reason}", hint="give the model's own mmproj file")
        return Pair(senses, notes=senses.notes)
    if not files.vision:
        return Pair(None, "give the mmproj file of this model, or load one that sees")
    return _best(files, open_media, decoder, tokenizer)


def _best(files: Files, open_media: Callable[[Path], Senses], decoder: Decoder, tokenizer: Tokenizer) -> Pair:
    fitting: list[Senses] = []
    misfits: dict[Path, str] = {}
    hint = ""
    for path in files.vision:
        try:
            senses = open_media(path)
        except OpsinError as error:
            misfits[path] = str(error)
            hint = hint or "the file for pictures beside it is damaged, or of a kind that is not supported"
            continue
        reason = senses.find_misfit(decoder, tokenizer)
        if reason is None:
            fitting.append(senses)
        else:
            misfits[path] = f"{path} does not fit: {reason}"
            hint = f"the file for pictures beside it does not fit: {reason}"
    if not fitting:
        return Pair(None, hint, tuple(f"pictures are left out: {reason}" for reason in misfits.values()))
    taken, *others = sorted(fitting, key=lambda senses: _order(files.text, senses))
    passed = [f"not taken for pictures: {reason}" for reason in misfits.values()]
    return Pair(taken, notes=(*taken.notes, *_choice(taken, others, passed), *passed))


def _choice(taken: Senses, others: list[Senses], passed: list[str]) -> list[str]:
    """Says what was taken, where there was more than one file."""
    if not others and not passed:
        return []
    rest = ", ".join(f"{other.path.name} ({other.format.name})" for other in others[:4])
    rest += f" and {len(others) - 4} more" if len(others) > 4 else ""
    told = f"; it fits as {rest} would" if rest else ""
    return [f"pictures go through {taken.path.name} ({taken.format.name}){told}; --mmproj or mmproj= chooses another"]


def _order(text: Path, senses: Senses) -> tuple[int, int, float]:
    """Smaller for what is taken rather."""
    kind = senses.format
    rank = BEST_FOR_VISION.index(kind.name) if kind.name in BEST_FOR_VISION else len(BEST_FOR_VISION)
    return -kinship(text.name, senses.path.name), rank, -kind.block_bytes / kind.block_elements
