"""A prompt that is asked, with what is told about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from opsin.api.answer import PictureUse
from opsin.spans import MediaSpan, Patches, Prompt, TextSpan, check_context, counted


@dataclass(frozen=True)
class Question:
    """A prompt, what is told of its media, and its text: what the template wrote, or what stands in it.

    The text knows what in it people wrote.
    """

    prompt: Prompt
    pictures: tuple[PictureUse, ...] = ()
    text: str = ""

    @property
    def last_id(self) -> int | None:
        """The token that an answer goes on; None behind a picture."""
        spans = self.prompt.spans
        return spans[-1].ids[-1] if spans and isinstance(spans[-1], TextSpan) else None

    def __repr__(self) -> str:
        return f"<Question: {len(self.prompt)} tokens, {len(self.pictures)} pictures>"

    @property
    def tokens(self) -> int:
        """Of the prompt, with pictures that stand beside it."""
        return len(self.prompt) + sum(picture.beside for picture in self.pictures)

    @classmethod
    def of(cls, prompt: Prompt, pictures: Sequence[tuple[str, Patches]], text: str = "") -> Question:
        """A prompt of this text, and what is told of its pictures, which have these names."""
        ends = [start + len(span) for start, span in prompt.placed() if isinstance(span, MediaSpan)]
        uses: list[PictureUse] = []
        place = 0
        for name, p in pictures:
            place += len([span for span in p.spans if span.rows or span.memory])
            uses += _uses(name, p, ends[place - 1] if place else 0)
        return cls(prompt, tuple(uses), text)

    def check_pictures(self, context: int) -> None:
        """Raises ContextError for the first picture that does not fit any more."""
        for number, picture in enumerate(self.pictures):
            which = counted(picture.name, number, [use.kind for use in self.pictures])
            check_context(
                picture.end, context, picture=which, kind=picture.kind, param=picture.name,
                prompt_tokens=len(self.prompt),
            )  # fmt: skip


def _uses(name: str, p: Patches, end: int) -> Iterator[PictureUse]:
    """What is told of a picture or a sound that ends there; of a film that is heard, of its frames and its sound."""
    rows, beside = p.embedded - (0 if p.sound is None else p.sound.rows), p.embedded - p.rows
    yield PictureUse(name, p.original, p.size, rows, p.notes, end, p.area, p.kind, p.seconds, beside)
    if p.sound is not None:
        yield from _uses(name, p.sound, end)
