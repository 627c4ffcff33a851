"""Idefics3, SmolVLM and SmolVLM2: a picture is cut into tiles, and shown once more as a whole.

The tower is SigLIP; squares of its patches, side by side, become rows. The text part is a decoder of its own file.

GGUF: clip.projector_type = "idefics3". Oracle: transformers' Idefics3ForConditionalGeneration and
SmolVLMForConditionalGeneration, with their processors. Those look positions up by fractions of a tile; for the grids
of published models (26, 27 and 32 patches a side) the table's own order comes out. A film is told with how many frames
there are and how long it lasts, then frame by frame, each whole in one tile behind its minutes and seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.gguf.rules import Key, Rules, Settings, Tensor
from opsin.gguf.vision_rules import normalisation_keys, projector_keys, siglip, tower_sizes
from opsin.media import sizes, steps
from opsin.media.film import Film, clock
from opsin.media.frames import within_ends
from opsin.media.limits import Size
from opsin.media.picture import Picture
from opsin.nn.films import Parts, frame, told
from opsin.nn.keys import positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import Linear
from opsin.nn.pictures import Preparation, Shared
from opsin.nn.vit import Vit, block_order, vit_shape
from opsin.ops import Array
from opsin.spans import Area, MediaSpan, Patches

if TYPE_CHECKING:
    from PIL.Image import Image

BORDER, OVERVIEW = "<fake_token_around_image>", "<global-img>"
TILES = 4  # along the longer side, where the file does not say
MOST_TILES = 32
FPS, MOST_FRAMES, ENDS = 1.0, 64, 1.0  # of films where nobody says; seconds at both ends of long ones that are not seen
Way = tuple[Size, Size]  # what a picture first becomes, and what its tiles are together
Corner = tuple[int, int] | None  # of a tile on the sheet; None for the whole sheet


class Projector(Module):
    fc: Annotated[Linear, at("model.fc")]


@dataclass(frozen=True, eq=False)
class Idefics3Vision:
    """`longest`: pixels that a picture's longer side becomes."""

    tower: Vit
    projector: Projector
    preparation: Preparation
    longest: int
    marker: ClassVar[str] = "<image>"

    @classmethod
    def load(cls, file: File, source: Reader) -> Idefics3Vision:
        shape = vit_shape(file)
        fold = positive_int(file, "clip.vision.projector.scale_factor")
        if shape.grid % fold:
            raise ModelError(f"{file.path}: {shape.grid} patches a side are no squares of {fold}")
        longest = positive_int(file, "clip.vision.preproc_image_size", TILES * shape.side)
        if longest > MOST_TILES * shape.side:
            raise ModelError(f"{file.path}: clip.vision.preproc_image_size is {longest}", hint="the file is damaged")
        projector = Projector.read(source, "mm")
        projector.fc.check(shape.width * fold**2, positive_int(file, "clip.vision.projection_dim"))
        tower = Vit.load(file, source, shape, block_order(shape.grid, shape.grid, fold))
        return cls(tower, projector, Preparation.of(file, shape.patch, fold), longest)

    @property
    def width(self) -> int:
        return self.projector.fc.outputs

    def layout(self, picture: Picture) -> Patches:
        return self._laid(picture, *picture.budget.choose(self._ways(picture.size), self._cost))

    def _one_tile(self, picture: Picture) -> Patches:
        """A frame: made as large as a tile, then a square."""
        side = self.tower.shape.side
        return self._laid(picture, sizes.longest_edge(picture.size, side), (side, side))

    def _laid(self, picture: Picture, first: Size, whole: Size) -> Patches:
        """A picture that first becomes of one size, and then of whole tiles together."""
        side = self.tower.shape.side
        columns, rows = whole[0] // side, whole[1] // side
        areas = sizes.areas(picture.size, (columns, rows)) if columns * rows > 1 else []
        sheet = Shared(partial(_sheet, picture, first, whole), len(areas) + 1)
        span = partial(self._span, picture, partial(self._prepare, sheet), (first, whole))
        parts: list[str | MediaSpan] = []
        for i, area in enumerate(areas):
            row, column = divmod(i, columns)
            newline = "\n" if row and not column else ""
            parts.append(f"{newline}{BORDER}<row_{row + 1}_col_{column + 1}>")
            parts.append(span(area, (column * side, row * side)))
        newlines = "\n\n" if areas else ""
        parts.append(f"{newlines}{BORDER}{OVERVIEW}")
        parts.append(span((0.0, 0.0, float(picture.width), float(picture.height)), None))
        return Patches((*parts, BORDER), picture.notes, original=picture.size, whole=whole)

    def film(self, film: Film) -> Parts:
        """A film as texts and frames."""
        numbers = within_ends(film, film.choice, fps=FPS, most=MOST_FRAMES, ends=ENDS)
        lasts = str(timedelta(seconds=int(film.seconds)))
        said = (
            f"You are provided the following series of {in_words(len(numbers))} frames from a {lasts} [H:MM:SS] video."
        )
        parts: list[str | Patches] = []
        for number in numbers:
            begun = "" if parts else f"{said}\n"
            parts += [f"{begun}\nFrame from {clock(film.times[number])}:", frame(self._one_tile, film, number)]
        return told([*parts, "\n\n"], film, len(numbers))

    def encode(self, features: Floats) -> Array:
        x = self.tower.whole(features)
        return self.projector.fc(x.ops.fold(x, self.preparation.block**2))

    def _ways(self, size: Size) -> Iterator[Way]:
        """How it may be cut, from the file's own way down to the whole picture in one tile."""
        side = self.tower.shape.side
        for longest in (self.longest, *range((self.longest - 1) // side * side, side, -side)):
            first = sizes.longest_edge(size, longest)
            yield first, sizes.whole_tiles(first, side)
        yield sizes.longest_edge(size, self.longest), (side, side)

    def _cost(self, way: Way) -> tuple[Size, int]:
        shape, (_, (wide, high)) = self.tower.shape, way
        tiles = wide * high // shape.side**2
        return way[1], (tiles + (tiles > 1)) * (shape.grid // self.preparation.block) ** 2

    def _span(
        self, picture: Picture, prepare: Callable[[Corner], Floats], way: Way, area: Area, corner: Corner
    ) -> MediaSpan:
        """A tile that begins at a corner of the sheet, or the whole sheet."""
        side = self.tower.shape.side
        return self.preparation.span(
            picture, "sheet", way, corner, make=partial(prepare, corner), size=(side, side), area=area
        )

    def _prepare(self, sheet: Shared[Image], corner: Corner) -> Floats:
        image, side = sheet.get(), self.tower.shape.side
        if corner is None:
            return self.preparation.patches(steps.resize(image, (side, side), "lanczos"))
        left, top = corner
        return self.preparation.patches(image.crop((left, top, left + side, top + side)))


def _sheet(picture: Picture, first: tuple[int, int], whole: tuple[int, int]) -> Image:
    """All tiles in one image. transformers resizes twice, too."""
    return steps.resize(steps.resize(steps.flatten(picture), first, "lanczos"), whole, "lanczos")


def in_words(number: int) -> str:
    """A count below a million as it is said in English."""
    for size, name in ((1000, "thousand"), (100, "hundred")):
        count, left = divmod(number, size)
        if count:
            behind = (" and " if left < 100 else ", ") + in_words(left) if left else ""
            return f"{in_words(count)} {name}{behind}"
    ten, one = divmod(number, 10)
    return _UNITS[number] if number < 20 else _TENS[ten - 2] + (f"-{_UNITS[one]}" if one else "")


_UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_TOWER = {
    "hidden_size": 1152, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 16,
    "image_size": 224, "patch_size": 32,
}  # fmt: skip


def _longest(settings: Settings) -> int:
    return settings.number("preprocessor.size.longest_edge", TILES * settings.number("vision_config.image_size", 224))


def _check(settings: Settings) -> None:
    if settings.find("preprocessor.do_image_splitting") is False:
        raise ModelError(f"{settings.where}: pictures are not cut into tiles", hint="that cannot be converted yet")
    side, tile = settings.number("vision_config.image_size", 224), "preprocessor.max_image_size.longest_edge"
    if settings.number(tile, side) != side:
        raise ModelError(f"{settings.where}: tiles of {settings.number(tile)} for a tower of {side} pixels")


ENCODERS = {"idefics3": Idefics3Vision.load}
FILMS = {"idefics3": Idefics3Vision.film}
RULES = (
    Rules(
        part="vision",
        architecture="idefics3",
        classes=("Idefics3ForConditionalGeneration", "SmolVLMForConditionalGeneration"),
        keys=(
            *projector_keys("idefics3", "gelu_pytorch_tanh"),
            *tower_sizes(_TOWER),
            *normalisation_keys([0.5] * 3, [0.5] * 3),
            Key("clip.vision.projection_dim", "text_config.hidden_size"),
            Key("clip.vision.attention.layer_norm_epsilon", "vision_config.layer_norm_eps", "float", 1e-6),
            Key("clip.vision.projector.scale_factor", "scale_factor", "int", 2),
            Key("clip.vision.preproc_image_size", _longest),
        ),
        tensors=(*siglip("vision_model"), Tensor("connector.modality_projection.proj", "mm.model.fc")),
        check=_check,
        assumed={"preprocessor.resample": 1},
    ),
)
