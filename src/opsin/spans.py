"""A prompt as spans of text and media whose lengths are known before anything is computed."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Literal, Never, SupportsIndex

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

from opsin.errors import ContextError

Area = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels
Kind = Literal["image", "audio"]  # of media, as templates call the parts of a content
_CALLED: Final[Mapping[Kind, str]] = {"image": "picture", "audio": "sound"}
_LESS: Final[Mapping[Kind, str]] = {"image": "fewer or smaller pictures", "audio": "less sound"}


@dataclass(frozen=True)
class Features:
    """What an encoder eats: a float32 array whose shape is known before it is made.

    Attributes:
        shape: features of equal shapes are encoded together.
        make: computes them; called when the encoder needs them, on a thread of its own.
    """

    shape: tuple[int, ...]
    make: Callable[[], npt.NDArray[np.float32]] = field(compare=False, repr=False)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Never:
        """Raises TypeError: how they are made hangs on the picture and on the model that prepared it."""
        raise TypeError("a prepared picture cannot be copied or sent to another process: send the picture")


@dataclass(frozen=True)
class TextSpan:
    """A run of vocabulary ids. `segment` counts the texts of a pair, for encoders that tell them apart."""

    ids: tuple[int, ...]
    segment: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def identity(self, first: int, last: int) -> bytes:
        """What makes rows first..last what they are."""
        kind = b"T" if not self.segment else b"T%d:" % self.segment
        return kind + array("I", self.ids[first:last]).tobytes()


@dataclass(frozen=True)
class Canvas:
    """Where rows lie in a plane that a picture, its slices and the markers between share, for positions of three axes.

    Or in the time that a film and its sound share: rows of a span without a grid go on along all axes, from the span's
    time on.

    Attributes:
        passed: rows between where it begins, which is the time of all rows on it, and the span's first one.
        corner: the row and column of the span's first row.
        size: rows high and wide over which the span's grid is spread.
        markers: of rows of text around the span: which, counted from its first one, and the time, row and column of
            each.
    """

    passed: int
    corner: tuple[int, int]
    size: tuple[int, int]
    markers: tuple[tuple[int, int, int, int], ...] = ()


@dataclass(frozen=True)
class MediaSpan:
    """Rows made from one picture, part of a picture, or sound: all rows of its embeddings, or some.

    Attributes:
        digest: of the content and of how it was prepared: equal digests have equal embeddings.
        rows: places in the sequence; none where it is only remembered.
        positions: how far it moves the position counter.
        grid: rows high and rows wide, for positions of several axes and for `rectangles`.
        canvas: where these lie, if not from the position that the span begins at.
        atomic: its rows see each other, so they are computed in one step.
        memory: rows kept beside the sequence, for cross-attention by the rows from here to the next such span; spans
            that follow each other, with nothing but their markers between, are remembered together.
        marker: rows of text behind it that are its own marker.
        time: of a moment of a film, or its sound, how far it stands behind the film's first on the axis of time, where
            there is one.
        first: the row of the embeddings at which it begins, where they are shown in parts, with text between.
        encoded: rows of the embeddings in all, where it shows a part of them; 0 where it shows all.
        features: how to make what the encoder takes, of all embeddings.
        embeddings: [rows, width] where they are known already: nothing is encoded.
        size: (width, height) in pixels at which it is really processed.
        area: the part of the original picture that it shows.
    """

    digest: bytes
    rows: int
    positions: int
    grid: tuple[int, int] | None = None
    atomic: bool = False
    memory: int = 0
    marker: int = 0
    first: int = 0
    encoded: int = 0
    canvas: Canvas | None = None
    features: Features | None = field(default=None, compare=False)
    embeddings: npt.NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    size: tuple[int, int] | None = field(default=None, compare=False)
    area: Area | None = field(default=None, compare=False)
    time: int | None = None

    def __len__(self) -> int:
        return self.rows

    @property
    def kept(self) -> int:
        """Rows that its embeddings have."""
        return self.encoded or self.memory or self.rows

    @property
    def shown(self) -> slice:
        """Those of its embeddings that it shows."""
        return slice(self.first, self.first + (self.memory or self.rows))

    def salted(self, salt: bytes) -> MediaSpan:
        """The same, under a digest that nobody with another salt has."""
        return replace(self, digest=blake2b(self.digest + salt, digest_size=16, person=b"salt").digest())

    def by_rows(self) -> list[MediaSpan]:
        """A span for each row of its grid, all of the same embeddings: what stands between them is text."""
        assert self.grid is not None and self.positions == self.rows and not self.atomic
        high, wide = self.grid
        x0, y0, x1, y1 = self.area or (0.0, 0.0, 0.0, 0.0)
        ys = [y0 + (y1 - y0) * row / high for row in range(high + 1)]
        return [
            replace(
                self, rows=wide, positions=wide, grid=(1, wide), first=row * wide, encoded=self.rows,
                area=self.area and (x0, ys[row], x1, ys[row + 1]),
            )
            for row in range(high)
        ]  # fmt: skip

    def identity(self, first: int, last: int) -> bytes:
        """What makes its rows first..last what they are."""
        rows = (self.first + first, self.first + last)
        moment = () if self.time is None else (self.time, self.positions)  # it may move backwards
        said = b"" if self.canvas is None else repr(self.canvas).encode()  # it may hang on what follows
        return (
            b"M"
            + self.digest
            + b"".join(number.to_bytes(4, "little", signed=True) for number in (*rows, *moment))
            + said
        )

    def ended_by(self, rows: int, marker: int = 1) -> MediaSpan:
        """The same, where so many rows of text behind its end marker are on its canvas as well, where that begins."""
        if self.canvas is None or not rows:
            return self
        more = [(self.rows + marker + row, 0, 0, 0) for row in range(rows)]
        canvas = replace(self.canvas, markers=(*self.canvas.markers, *more))
        return replace(self, canvas=canvas, positions=self.positions - rows)

    def rectangles(self) -> list[Area]:
        """What each row shows: cells of the grid, or the whole area for every row where there is no grid.

        Raises ValueError where the area is not known.
        """
        if self.area is None:
            raise ValueError("this span does not say which part of a picture it shows")
        x0, y0, x1, y1 = self.area
        if self.grid is None:
            return [self.area] * self.rows
        high, wide = self.grid
        xs = [x0 + (x1 - x0) * column / wide for column in range(wide + 1)]
        ys = [y0 + (y1 - y0) * row / high for row in range(high + 1)]
        return [(xs[c], ys[r], xs[c + 1], ys[r + 1]) for r in range(high) for c in range(wide)]


@dataclass(frozen=True)
class Patches:
    """One picture or sound, prepared: what stands in a prompt for it. Nothing of it is computed yet.

    Attributes:
        parts: strings are the family's own markers, which may spell special tokens; spans are its rows.
        kind: what it is.
        seconds: how long it lasts, where it does.
        notes: said to whoever sent it, as "frame 1 of 12".
        original: (width, height) of the picture that was given.
        whole: (width, height) that all of the original has in it, where it is cut into several spans.
        absorbed: tokens of this text that follow it are on its canvas.
        sound: of a film that is heard, its track, whose spans stand among these.
        numbered: stands before it, with its number among the prompt's pictures, from 0 on, in the place of {}.
    """

    parts: tuple[str | MediaSpan, ...]
    notes: tuple[str, ...] = ()
    original: tuple[int, int] | None = None
    whole: tuple[int, int] | None = None
    numbered: str = ""
    kind: Kind = "image"
    seconds: float | None = None
    absorbed: str = ""
    sound: Patches | None = None

    def __repr__(self) -> str:
        sizes = (("grid", self.grid), ("picture", self.original), ("seen at", self.size))
        known = "".join(f", {word} {size[0]} x {size[1]}" for word, size in sizes if size)
        known += "" if self.seconds is None else f", {self.seconds:.2f} seconds"
        return f"<Patches: {self.rows} rows in {len(self.spans)} spans{known}>"

    @property
    def spans(self) -> tuple[MediaSpan, ...]:
        return tuple(part for part in self.parts if isinstance(part, MediaSpan))

    @property
    def markers(self) -> tuple[str, ...]:
        """Its strings, in order."""
        return tuple(part for part in (self.numbered, *self.parts) if isinstance(part, str) and part)

    @property
    def rows(self) -> int:
        """Places that it takes in a sequence, without its markers."""
        return sum(span.rows for span in self.spans)

    @property
    def embedded(self) -> int:
        """Rows of embeddings that it shows, in places of the sequence or beside it."""
        return sum(span.shown.stop - span.shown.start for span in self.spans)

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows high and wide; None where it is several pictures or its rows lie in no grid."""
        grids = [span.grid for span in self.spans]
        if len({span.digest for span in self.spans}) != 1 or len({grid and grid[1] for grid in grids}) != 1:
            return None
        return grids[0] and (sum(grid[0] for grid in grids if grid), grids[0][1])

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) in pixels at which it is really processed."""
        return self.whole or (self.spans[0].size if self.spans else None)

    @property
    def area(self) -> Area | None:
        """The part of the original picture that it shows at `size`; beyond its edges where it was padded."""
        areas = [span.area for span in self.spans if span.area is not None]
        if self.whole is not None and self.original is not None:
            return 0.0, 0.0, float(self.original[0]), float(self.original[1])
        if not areas:
            return None
        x0, y0, x1, y1 = zip(*areas, strict=True)
        return min(x0), min(y0), max(x1), max(y1)

    def to_original(self, box: Area, scale: tuple[float, float] | None = None) -> Area:
        """A box that a model gives, (x0, y0, x1, y1), in pixels of the original picture and cut at its edges.

        Its numbers count pixels of the picture as it is processed (`size`), or parts of another `scale`: (1000, 1000)
        for models that call the lower right corner so.

        Raises ValueError where it is not known what the picture shows.
        """
        area, seen = self.area, scale or self.size
        if area is None or seen is None or self.original is None:
            raise ValueError("this picture does not say which part of an original it shows")
        left, top, right, bottom = area
        width, height = self.original
        xs = [min(max(left + (right - left) * x / seen[0], 0.0), width) for x in box[::2]]
        ys = [min(max(top + (bottom - top) * y / seen[1], 0.0), height) for y in box[1::2]]
        return xs[0], ys[0], xs[1], ys[1]

    def rectangles(self) -> list[Area]:
        """For each of its rows, the part of the original picture that it shows."""
        return [area for span in self.spans for area in span.rectangles()]


Span = TextSpan | MediaSpan


@dataclass(frozen=True)
class Prompt:
    """Canonical spans: none is empty, no two text spans of one segment touch. Equal prompts have equal block keys.

    Prompts of another `salt` find nothing of it in any cache: it is in the keys and in the digests of media.
    """

    spans: tuple[Span, ...]
    salt: bytes = b""

    @classmethod
    def of(cls, spans: Sequence[Span | Sequence[int]], salt: bytes = b"") -> Prompt:
        """A prompt of spans or lists of ids, made canonical."""
        result: list[Span] = []
        for given in spans:
            span = given if isinstance(given, TextSpan | MediaSpan) else TextSpan(tuple(given))
            if not len(span) and not (isinstance(span, MediaSpan) and span.memory):
                continue
            before = result[-1] if result else None
            if isinstance(span, TextSpan) and isinstance(before, TextSpan) and span.segment == before.segment:
                result[-1] = TextSpan(before.ids + span.ids, span.segment)
            else:
                result.append(span.salted(salt) if salt and isinstance(span, MediaSpan) else span)
        return cls(tuple(result), salt)

    def __len__(self) -> int:
        return sum(len(span) for span in self.spans)

    def __repr__(self) -> str:
        return f"<Prompt: {len(self)} tokens in {len(self.spans)} spans>"

    def gone_on(self, ids: Sequence[int]) -> Prompt:
        """The same with ids behind it, and of its media only what its keys are made of."""
        bare = [replace(s, features=None, embeddings=None) if isinstance(s, MediaSpan) else s for s in self.spans]
        return replace(Prompt.of([*bare, ids]), salt=self.salt)

    def placed(self) -> Iterator[tuple[int, Span]]:
        """Each span with its first row."""
        start = 0
        for span in self.spans:
            yield start, span
            start += len(span)


def chained(before: bytes | None, identities: Iterable[bytes]) -> bytes:
    """The key of a block after the one whose key is `before`: of what its rows are, run by run."""
    digest = blake2b(before or b"", digest_size=16)
    for identity in identities:
        digest.update(len(identity).to_bytes(4, "little") + identity)
    return digest.digest()


def memory_keys(spans: Sequence[MediaSpan], block: int) -> list[bytes]:
    """One key for each block of rows that spans keep together beside sequences, the last one perhaps not full."""
    count = -(-sum(span.memory for span in spans) // block)
    names = (b"R", *(span.digest for span in spans))
    return [chained(None, (*names, i.to_bytes(4, "little"))) for i in range(count)]


def block_keys(prompt: Prompt, block: int) -> list[bytes]:
    """One key for each full block of rows, chained: equal keys mean equal keys and values in the cache."""
    keys: list[bytes] = []
    runs: list[bytes] = []
    filled = 0
    for _, span in prompt.placed():
        first = 0
        if not len(span):  # remembered by the rows after it
            runs.append(span.identity(0, 0))
        while first < len(span):
            last = min(len(span), first + block - filled)
            runs.append(span.identity(first, last))
            filled += last - first
            first = last
            if filled == block:
                keys.append(chained(keys[-1] if keys else prompt.salt, runs))
                runs, filled = [], 0
    return keys


def counted(name: str, number: int, kinds: Sequence[Kind]) -> str:
    """What errors call a picture or sound of this number in a request: "messages[0].content[1], picture 2 of 3,"."""
    kind = kinds[number]
    return f"{name}, {_CALLED[kind]} {kinds[: number + 1].count(kind)} of {kinds.count(kind)},"


def check_context(
    tokens: int,
    context: int,
    *,
    at_least: bool = False,
    picture: str | None = None,
    kind: Kind = "image",
    param: str | None = None,
    prompt_tokens: int | None = None,
) -> None:
    """Raises ContextError for a prompt of so many tokens, where the context holds no more: there is none for an answer.

    `at_least`: there may be more. `picture`: what is named, where it is a picture, or a sound as `kind` says, that ends
    there, of a prompt of `prompt_tokens` where these are known; `param` is its path in the request.
    """
    if tokens < context:
        return
    message, hint = f"the prompt ({'at least ' if at_least else ''}{tokens} tokens)", None
    if picture is not None:
        message = f"{picture.rstrip(',')} (up to token {tokens}{' or later' if at_least else ''})"
        hint = f"send {_LESS[kind]}, or load the model with a larger context"
    raise ContextError(
        f"{message} exceeds the available context size ({context} tokens)",  # clients look for these words
        hint=hint,
        prompt_tokens=tokens if prompt_tokens is None else prompt_tokens,
        context_tokens=context,
        param=param,
    )
