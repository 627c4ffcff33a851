"""What the server tells of a model, also while the model is not in memory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from opsin.api import Model
from opsin.api.facts import Facts
from opsin.api.infilling import missing_tokens
from opsin.hub.bundled import is_bundled
from opsin.text.capabilities import Capabilities


@dataclass(frozen=True)
class ModelCard:
    """Facts of one model.

    Attributes:
        name: what it calls itself: its file's without the ending, or a store's.
        file: the name of its file.
        modified: when that was written, in ISO 8601.
        context: tokens that a prompt and its answer may have together, and
        trained_context: that it was trained for.
        width: of an embedding.
        sequences: answers that run at once.
        guesses: what guesses tokens ahead, as `Model` calls it.
        vocabulary_size: ids.
        writes, sees, hears, thinks, infills: what it can do.
        bundled: whether it is the one that comes with opsin.
        template: how chats are written, in Jinja; "" where there is none, and
        can: what that can take.
        bos, eos: texts of these tokens; "" where there is none.
        picture_marker: what stands for a picture in its prompts.
    """

    name: str
    file: str
    modified: str
    context: int
    trained_context: int
    width: int
    sequences: int
    guesses: tuple[str, ...]
    vocabulary_size: int
    writes: bool
    sees: bool
    hears: bool
    thinks: bool
    infills: bool
    bundled: bool
    template: str
    can: Capabilities | None
    bos: str
    eos: str
    picture_marker: str
    facts: Facts

    @classmethod
    def of(cls, model: Model) -> ModelCard:
        """Of a model that reads text."""
        modified = datetime.fromtimestamp(model.path.stat().st_mtime, UTC).isoformat().replace("+00:00", "Z")
        return cls(
            name=model.name,
            file=model.path.name,
            modified=modified,
            context=model.context,
            trained_context=model.trained_context,
            width=model.width,
            sequences=model.sequences,
            guesses=model.guesses,
            vocabulary_size=model.tokenizer.vocabulary_size,
            writes=model.writes,
            sees=model.has_vision,
            hears=model.has_audio,
            thinks=model.text.replies.thinks,
            infills=not missing_tokens(model.tokenizer),
            bundled=is_bundled(model.path),
            template=model.template.source if model.template is not None else "",
            can=model.template.capabilities if model.template is not None else None,
            bos=_token(model, model.tokenizer.bos),
            eos=_token(model, model.tokenizer.eos),
            picture_marker=model.picture_marker,
            facts=model.facts,
        )


def _token(model: Model, id: int | None) -> str:
    return "" if id is None else model.tokenizer.piece(id, special=True).decode("utf-8", "replace")
