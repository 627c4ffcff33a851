"""MiniCPM-V 4.7: what 4.6 is, with a picture, its slices and their markers on one canvas of positions of three axes.

The slices tile the canvas, the whole picture is spread over it. `<image>` stands before its corner, `</image>` behind
the other one, `<slice>` and `</slice>` on the corners of a slice, a newline behind the row of slices that it ends;
newlines behind all that lie where it begins.

GGUF: clip.projector_type = "minicpmv4_7", for which llama.cpp has no name. Oracle: transformers'
MiniCPMV4_7ForConditionalGeneration, with its processor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from opsin.gguf.rules import constant
from opsin.media.picture import Picture
from opsin.models.minicpmv4_6 import RULES as OLDER
from opsin.models.minicpmv4_6 import MergingVision
from opsin.spans import Canvas, MediaSpan, Patches

NEWLINE = "\n"
Grid = tuple[int, int]  # rows high and wide


@dataclass(frozen=True, eq=False)
class CanvasVision(MergingVision):
    """The same tower, whose pictures lie on canvases."""

    def layout(self, picture: Picture) -> Patches:
        patches = super().layout(picture)
        return replace(patches, parts=tuple(_placed(patches.parts)), absorbed=NEWLINE)

    def _span(self, span: MediaSpan) -> MediaSpan:
        assert span.size is not None
        wide, high = (side // self.factor for side in span.size)
        return replace(super()._span(span), grid=(high, wide))


def _placed(parts: tuple[str | MediaSpan, ...]) -> Iterator[str | MediaSpan]:
    """The parts of a picture, whose spans know where they lie."""
    whole, *slices = (part for part in parts if isinstance(part, MediaSpan))
    assert whole.grid is not None
    rows = 1 + sum(part.startswith(NEWLINE) for part in parts if isinstance(part, str))
    cell = slices[0].grid if slices else whole.grid
    assert cell is not None
    high, wide = canvas = (rows * cell[0], max(1, len(slices) // rows) * cell[1])
    passed = 0  # rows of markers since the canvas began, where the position counter stands still
    places = iter([(0, 0), *((top, left) for top in range(0, high, cell[0]) for left in range(0, wide, cell[1]))])
    for number, part in enumerate(parts):
        if isinstance(part, str):
            passed += 2 if part.startswith(NEWLINE) else 1
            yield part
            continue
        corner, is_last = next(places), number == len(parts) - 2
        markers = _around_whole(part, canvas) if part is whole else _around_slice(part, corner, cell, canvas)
        placed = Canvas(passed, corner, canvas if part is whole else cell, markers)
        yield replace(part, canvas=placed, positions=max(canvas) - passed if is_last else 0)


def _around_whole(span: MediaSpan, canvas: Grid) -> tuple[tuple[int, int, int, int], ...]:
    return (-1, 0, -1, -1), (span.rows, 0, *canvas)


def _around_slice(span: MediaSpan, corner: Grid, cell: Grid, canvas: Grid) -> tuple[tuple[int, int, int, int], ...]:
    (top, left), (high, wide) = corner, cell
    ends = (-1, 0, top, left), (span.rows, 0, top + high - 1, left + wide - 1)
    return ends if left or not top else ((-2, 0, top - 1, canvas[1]), *ends)


ENCODERS = {"minicpmv4_7": CanvasVision.load}
RULES = (
    replace(
        OLDER[0],
        architecture="minicpmv4_7",
        classes=("MiniCPMV4_7ForConditionalGeneration",),
        keys=(*OLDER[0].keys, constant("clip.projector_type", "minicpmv4_7", "str")),  # the last one counts
    ),
)
