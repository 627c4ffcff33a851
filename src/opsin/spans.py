"""A prompt as spans of text and media whose lengths are known before anything is computed."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b


@dataclass(frozen=True)
class Patches:
    """What an encoder eats: host arrays, ready; opaque here."""

    parts: tuple[object, ...]


@dataclass(frozen=True)
class TextSpan:
    """A run of vocabulary ids."""

    ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def identity(self, first: int, last: int) -> bytes:
        """What makes rows first..last what they are."""
        return b"T" + array("I", self.ids[first:last]).tobytes()


@dataclass(frozen=True)
class MediaSpan:
    """Rows made from one picture or sound.

    Attributes:
        digest: of the content and of how it was prepared.
        rows: places in the sequence.
        positions: how far it moves the position counter.
        grid: rows and columns, for positions of two axes.
        atomic: its rows see each other, so they are computed in one step.
        memory: rows kept beside the sequence, for cross-attention.
    """

    digest: bytes
    rows: int
    positions: int
    grid: tuple[int, int] | None = None
    atomic: bool = False
    memory: int = 0
    patches: Patches | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return self.rows

    def identity(self, first: int, last: int) -> bytes:
        return b"M" + self.digest + first.to_bytes(4, "little") + last.to_bytes(4, "little")


Span = TextSpan | MediaSpan


@dataclass(frozen=True)
class Prompt:
    """Canonical spans: none is empty, no two text spans touch. Equal prompts have equal block keys."""

    spans: tuple[Span, ...]

    @classmethod
    def of(cls, spans: Sequence[Span | Sequence[int]]) -> Prompt:
        """A prompt of spans or lists of ids, made canonical."""
        result: list[Span] = []
        for given in spans:
            span = given if isinstance(given, TextSpan | MediaSpan) else TextSpan(tuple(given))
            if not len(span):
                continue
            before = result[-1] if result else None
            if isinstance(span, TextSpan) and isinstance(before, TextSpan):
                result[-1] = TextSpan(before.ids + span.ids)
            else:
                result.append(span)
        return cls(tuple(result))

    def __len__(self) -> int:
        return sum(len(span) for span in self.spans)

    def placed(self) -> Iterator[tuple[int, Span]]:
        """Each span with its first row."""
        start = 0
        for span in self.spans:
            yield start, span
            start += len(span)


def block_keys(prompt: Prompt, block: int) -> list[bytes]:
    """One key for each full block of rows, chained: equal keys mean equal keys and values in the cache."""
    keys: list[bytes] = []
    digest, filled = blake2b(digest_size=16), 0
    for _, span in prompt.placed():
        first = 0
        while first < len(span):
            last = min(len(span), first + block - filled)
            identity = span.identity(first, last)
            digest.update(len(identity).to_bytes(4, "little") + identity)
            filled += last - first
            first = last
            if filled == block:
                keys.append(digest.digest())
                digest, filled = blake2b(keys[-1], digest_size=16), 0
    return keys
