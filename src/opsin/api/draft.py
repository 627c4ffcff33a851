"""A smaller model that guesses for another one: read from its file, and checked against that one."""

from __future__ import annotations

from pathlib import Path

from opsin.api.files import find
from opsin.engine.draft_model import DraftModel
from opsin.engine.pages import pages_for
from opsin.engine.runner import Limits, Runner
from opsin.errors import ModelError
from opsin.gguf.roles import PROJECTOR, find_other
from opsin.models import is_known, load_decoder
from opsin.nn.batch import MEMORY
from opsin.nn.module import FileReader
from opsin.nn.next_token import WithoutNextToken
from opsin.ops import PageType
from opsin.ops.device import Device, Notice
from opsin.text import Tokenizer

_HINT = "give a smaller model of the same family"


def load_drafter(
    path: str | Path, device: Device, tokenizer: Tokenizer, *, rows: int, sequences: int, pages: PageType,
    notice: Notice | None = None,
) -> DraftModel:  # fmt: skip
    """A draft model for whoever has this tokenizer. Its cache has `rows` rows for all sequences together.

    Raises FileError or ModelError for a file that is none, or none for this model.
    """
    files = find(path, None, vision=False, notice=notice)
    file, _ = files.open(vision=False)
    with file:
        other = find_other(file, is_known=is_known(file))
        if other is None and file.get_str("general.architecture") == PROJECTOR:
            other = "a part for pictures or sound", _HINT
        if other is not None:
            raise ModelError(f"{file.path} is {other[0]}, and cannot guess for another model", hint=_HINT)
        _check(file.path, tokenizer, Tokenizer.from_metadata(file.metadata))
        decoder = load_decoder(file, WithoutNextToken(FileReader(file, device.eager())))
    if decoder.states or MEMORY in decoder.groups or decoder.vocabulary == 0:
        raise ModelError(
            f"{file.path} cannot guess for another model: it has recurrent layers, remembers media or does not write",
            hint=_HINT,
        )
    limits = Limits(
        rows=max(512, sequences), outputs=max(64, sequences), sequences=sequences, context=min(rows, decoder.context),
        pages=pages_for(rows) + sequences, memory=1,
    )  # fmt: skip
    return DraftModel(Runner(device, decoder, limits, pages))


def _check(path: Path, tokenizer: Tokenizer, draft: Tokenizer) -> None:
    """Both must mean the same by each id that both have; further ones may stand behind."""
    ours, theirs = tokenizer.pieces(), draft.pieces()
    different = next((id for id, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    if different is not None:
        raise ModelError(
            f"{path} cannot guess for this model: token {different} is {theirs[different]!r:.40} there and "
            f"{ours[different]!r:.40} here", hint=_HINT,
        )  # fmt: skip
