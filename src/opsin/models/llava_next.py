"""LLaVA-NeXT (LLaVA 1.6) and LLaVA-OneVision: a picture is shown as a whole, and then larger, in tiles.

The tiles, of CLIP's or SigLIP's tower, become one map of the picture without the borders that make it fill them. Behind
each row of the map stands a row that was learned, the newline; OneVision shrinks maps that are larger than so many
tiles. The text part is a decoder of its own file.

GGUF: clip.projector_type = "mlp", or none, with clip.vision.image_grid_pinpoints (rows before columns, as transformers
reads them) and the tensor `v.image_newline` or `model.image_newline`; files that name no pinpoints have those of LLaVA
1.6. OneVision's have clip.vision.image_aspect_ratio = "anyres_max_9". llama.cpp shows whole tiles one after another,
borders too, without newlines, and the whole picture last. Granite Vision's tower of 3.x is of this kind. Of several
pictures of a conversation OneVision sees each once, in a square; a film's frames are seen at half as many rows high and
wide. A newline ends each such picture, and each film. Oracles: transformers' LlavaNextForConditionalGeneration and
LlavaOnevisionForConditionalGeneration, with their processors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from itertools import product
from typing import ClassVar

import numpy as np

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.gguf.rules import Key, Rules, Settings, Tensor, constant
from opsin.gguf.vision_rules import (
    CLIP,
    expect,
    feature_states,
    normalisation_keys,
    projector_keys,
    siglip,
    tower_sizes,
)
from opsin.media import sizes, steps
from opsin.media.film import Film
from opsin.media.frames import by_rate
from opsin.media.limits import Size
from opsin.media.picture import Picture
from opsin.models.llava import NEWLINES, PINPOINTS, Projector, is_tiled
from opsin.nn.films import Parts, Sees, as_pictures, told
from opsin.nn.module import Reader
from opsin.nn.pictures import Preparation
from opsin.nn.states import feature_layers, select, shrunk
from opsin.nn.vit import MOST_PIXELS, MOST_ROWS, Vit, VitShape, vit_shape
from opsin.ops import Array
from opsin.spans import Area, Features, MediaSpan, Patches

RATIO = "clip.vision.image_aspect_ratio"
TILES = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))  # down and across, where a file does not say
MOST_CANVASES = 1024
MOST_FRAMES = 32  # of a film, where nobody says
NEWLINE = (1, 1, 1)  # the shape of the features of one
NEWLINE_DIGEST = blake2b(b"newline", digest_size=16, person=b"llava").digest()


@dataclass(frozen=True, eq=False)
class LlavaNextVision:
    """A tower and how it is shown tiles.

    Attributes:
        layers: after which the states are taken that the projector gets.
        canvases: sizes in whole tiles; a picture is laid in the middle of one of them, as large as it allows.
        newline: [width] the row behind each row of a map.
        most_tiles: a map that is larger is shrunk to as many; 0 for no limit.
    """

    tower: Vit
    projector: Projector
    preparation: Preparation
    layers: tuple[int, ...]
    canvases: Sequence[Size]
    newline: Floats
    most_tiles: int
    marker: ClassVar[str] = "<image>"

    @classmethod
    def load(cls, file: File, source: Reader) -> LlavaNextVision | None:
        """None where a file shows pictures in one piece."""
        if not is_tiled(file):
            return None
        merge = file.get_str("clip.vision.mm_patch_merge_type", "spatial_unpad")
        if merge != "spatial_unpad":
            raise ModelError(f"{file.path}: tiles are merged by {merge!r:.40}", hint="'spatial_unpad' is supported")
        shape = vit_shape(file, margin=True)
        layers = feature_layers(file, shape.layers)
        projector = Projector.read(source, "mm")
        projector.check(shape.width * len(layers))
        name = next((name for name in NEWLINES if source.has(name)), NEWLINES[0])
        newline = source.values(name).reshape(-1)
        if len(newline) != projector.down.outputs:
            raise ModelError(f"{name} has {len(newline)} values, where {projector.down.outputs} are needed")
        tower = Vit.load(file, source, shape, np.arange(shape.grid**2, dtype=np.int32))
        preparation = Preparation.of(file, shape.patch)
        return cls(tower, projector, preparation, layers, canvases_of(file, shape), newline, most_tiles_of(file))

    @property
    def width(self) -> int:
        return self.projector.down.outputs

    def layout(self, picture: Picture) -> Patches:
        """The whole picture, then its map. Of that of a very thin picture perhaps nothing is left."""
        if picture.several and self.most_tiles:
            return self._one_of_several(picture)
        side, overview = self._side, self._overview(picture)
        ways = (self._map(picture, canvas) for canvas in self._canvases(picture.size))
        tiled = picture.budget.choose(ways, lambda tiled: (tiled.size or side, overview.rows + tiled.rows))
        parts = (overview, tiled) if tiled.rows else (overview,)
        return Patches(parts, picture.notes, original=picture.size, whole=tiled.size)

    def film(self, film: Film) -> Parts:
        """A film as one run of rows: those of its frames, and a newline."""
        numbers = by_rate(film, film.choice, most=MOST_FRAMES)
        frames = [self._frame(film, number) for number in numbers]
        return told([Patches((*frames, self._newline(film.size)), original=film.size)], film, len(numbers))

    def encode(self, features: Floats) -> Array:
        """Of whole pictures, frames or newlines, or of maps as `_map` lays them out."""
        if features.shape[1:] == NEWLINE:
            return self.tower.ops.constant(np.tile(self.newline, (len(features), 1)))
        if features.ndim == 5:
            return self._pooled(features[:, 0])
        if features.ndim == 4:
            return self._rows(features)
        grid, (pictures, down, across, rows, wide, _) = self.tower.shape.grid, features.shape
        columns, values = wide - 1, down * across * grid**2 * self.tower.shape.values
        tiles = features.reshape(pictures, -1)[:, :values].reshape(pictures, down, across, grid, grid, -1)
        maps = np.empty((pictures, down * grid, across * grid, self.width), np.float32)
        for picture, y, x in product(range(pictures), range(down), range(across)):  # a tile's operations are short
            place = np.s_[picture, y * grid : (y + 1) * grid, x * grid : (x + 1) * grid]
            maps[place] = self._rows(tiles[picture, y, x][None]).numpy().reshape(grid, grid, -1)
        top, left = (down * grid - rows) // 2, (across * grid - columns) // 2
        shown = shrunk(maps[:, top : top + rows, left : left + columns], *self._shown(rows, columns))
        newlines = np.broadcast_to(self.newline, (*shown.shape[:2], 1, self.width))
        return self.tower.ops.constant(np.concatenate([shown, newlines], axis=2).reshape(-1, self.width))

    @property
    def _side(self) -> Size:
        return (self.tower.shape.side,) * 2

    @property
    def _seen(self) -> Size:
        """What whole patches show of a tile."""
        return (self.tower.shape.grid * self.tower.shape.patch,) * 2

    def _overview(self, picture: Picture) -> MediaSpan:
        make = partial(self._tiles, picture, self._side, self._side)
        return self._whole(picture, "overview", make)

    def _whole(self, picture: Picture, way: str, make: Callable[[], Floats]) -> MediaSpan:
        """A picture in one tile."""
        return self.preparation.span(picture, way, self._side, make=make, size=self._seen)

    def _one_of_several(self, picture: Picture) -> Patches:
        """In the middle of a square of the mean colour."""
        longer = max(picture.size)
        steps.check_growth(picture.size, (longer, longer))

        def make() -> Floats:
            image = steps.resize(self.preparation.squared(picture), self._side, "bicubic")
            return self.preparation.patches(image.crop((0, 0, *self._seen)))

        left, top = ((side - longer) / 2 for side in picture.size)
        span = replace(self._whole(picture, "square", make), area=(left, top, left + longer, top + longer))
        return Patches((span, self._newline(picture.size)), picture.notes, original=picture.size)

    def _newline(self, size: Size) -> MediaSpan:
        """The row that ends a picture of this size."""
        features = Features(NEWLINE, lambda: np.zeros(NEWLINE, np.float32))
        area = (0.0, 0.0, float(size[0]), float(size[1]))
        return MediaSpan(NEWLINE_DIGEST, 1, 1, (1, 1), features=features, size=size, area=area)

    def _frame(self, film: Film, number: int) -> MediaSpan:
        """The rows of a frame, a quarter of a picture's."""

        def make() -> Floats:
            features = self._overview(film.picture(number)).features
            assert features is not None
            return features.make()[None]

        span, half = self._overview(film.unseen(number)), -(-self.tower.shape.grid // 2)
        assert span.features is not None
        digest = self.preparation.digest(film.unseen(number), "frame", self._side)
        features = Features((1, *span.features.shape), make)
        return replace(span, digest=digest, rows=half**2, positions=half**2, grid=(half, half), features=features)

    def _pooled(self, features: Floats) -> Array:
        grid = self.tower.shape.grid
        maps = np.asarray(self._rows(features).numpy(), np.float32).reshape(len(features), grid, grid, self.width)
        half = shrunk(maps, -(-grid // 2), -(-grid // 2))
        return self.tower.ops.constant(np.ascontiguousarray(half.reshape(-1, self.width)))

    def _rows(self, features: Floats) -> Array:
        return self.projector(select(self.tower, features, self.layers))

    def _shown(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns of a map that had so many."""
        most = self.most_tiles * self.tower.shape.grid**2
        ratio = math.sqrt(rows * columns / most) if most else 0.0
        return (max(1, int(rows // ratio)), max(1, int(columns // ratio))) if ratio > 1.1 else (rows, columns)

    def _canvases(self, size: Size) -> Iterator[Size]:
        """The best for a picture, then the best of those with fewer pixels."""
        left = self.canvases
        while left:
            yield (best := sizes.best_canvas(size, left))
            left = [canvas for canvas in left if math.prod(canvas) < math.prod(best)]

    def _map(self, picture: Picture, canvas: Size) -> MediaSpan:
        """The map of a picture over a canvas, each of its rows with its newline.

        Its features are the patches of all tiles. They lie spread over rows and columns of the map, with zeros at the
        end: so features of one shape become equally many rows.
        """
        shape = self.tower.shape
        across, down = (size // shape.side for size in canvas)
        columns, rows = sizes.unpadded(picture.size, (across * shape.grid, down * shape.grid))
        values, scaled = across * down * shape.grid**2 * shape.values, sizes.inside(picture.size, canvas)
        spread = (down, across, rows, columns + 1, -(-values // max(1, rows * (columns + 1))))

        def make() -> Floats:
            made = np.zeros(math.prod(spread), np.float32)
            made[:values] = self._tiles(picture, canvas, scaled).reshape(-1)
            return made.reshape(spread)

        high, wide = self._shown(rows, columns)
        way, count = ("tiles", canvas, shape.side, self.most_tiles), high * (wide + 1)
        return MediaSpan(
            self.preparation.digest(picture, *way), count, count, (high, wide + 1), size=scaled,
            features=Features(spread, make), area=self._area(picture, scaled, (columns, rows), wide),
        )  # fmt: skip

    def _area(self, picture: Picture, scaled: Size, kept: sizes.Grid, wide: int) -> Area:
        """What a map shows of a picture. Newlines lie beside it, at the right."""
        cell = self.tower.shape.side / self.tower.shape.grid
        across, down = (kept[i] * cell * picture.size[i] / scaled[i] for i in (0, 1))
        left, top = (picture.width - across) / 2, (picture.height - down) / 2
        return left, top, left + across * (1 + 1 / wide if wide else 1), top + down

    def _tiles(self, picture: Picture, canvas: Size, size: Size) -> Floats:
        """Patches of all tiles, one tile after another, of a picture of this size in the middle of a black canvas."""
        side, seen = self.tower.shape.side, self._seen
        image = steps.resize(steps.flatten(picture), size, "bicubic")
        image = steps.pad(image, canvas, at=((canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2))
        corners = product(range(0, canvas[1], side), range(0, canvas[0], side))
        tiles = [image.crop((left, top, left + seen[0], top + seen[1])) for top, left in corners]
        return np.concatenate([self.preparation.patches(tile) for tile in tiles])


def lay_out_film(tower: Sees, film: Film) -> Parts:
    """As OneVision sees it; as pictures where the tower is another."""
    if isinstance(tower, LlavaNextVision) and tower.most_tiles:
        return tower.film(film)
    return as_pictures(tower, film)


def canvases_of(file: File, shape: VitShape) -> list[Size]:
    """Sizes of canvases. Raises ModelError where one is not of whole tiles, or of too many."""
    side = shape.side
    told = file.get_ints(PINPOINTS, [tiles * side for pair in TILES for tiles in pair]).tolist()
    found = [(wide, high) for high, wide in zip(told[::2], told[1::2], strict=False)]
    most = min(MOST_PIXELS, MOST_ROWS // shape.grid**2 * side**2)
    whole = all(0 < size <= most and size % side == 0 for size in told)
    if (
        not whole
        or len(told) % 2
        or not 0 < len(found) <= MOST_CANVASES
        or any(math.prod(size) > most for size in found)
    ):
        raise ModelError(
            f"{file.path}: {PINPOINTS} is {str(told):.60}, for tiles of {side} pixels", hint="the file is damaged"
        )
    return found


def most_tiles_of(file: File) -> int:
    """What maps are shrunk to, 0 where they are not. Raises ModelError for another way to cut pictures."""
    told = file.get_str(RATIO, "anyres")
    found = re.fullmatch(r"anyres(?:_max_([1-9]\d{0,3}))?", told)
    if found is None:
        raise ModelError(f"{file.path}: {RATIO} is {told!r:.40}", hint="'anyres' and 'anyres_max_9' are supported")
    return int(found[1] or 0)


_CLIP_TOWER = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "image_size": 224, "patch_size": 32,
}  # fmt: skip
_SIGLIP_TOWER = {**_CLIP_TOWER, "patch_size": 16}


def _pinpoints(settings: Settings) -> list[int]:
    told = settings.find("image_grid_pinpoints")
    pairs = told if isinstance(told, list) else []
    if not pairs or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise ModelError(f"{settings.where}: image_grid_pinpoints is {told!r:.40}", hint="pairs of sizes are needed")
    return [size for pair in pairs for size in pair]


def _max_ratio(settings: Settings) -> str:
    told = settings.get("vision_aspect_ratio", "str", "anyres_max_9")
    if not isinstance(told, str) or not re.fullmatch(r"anyres_max_[1-9]\d{0,3}", told):
        raise ModelError(
            f"{settings.where}: vision_aspect_ratio is {told!r:.40}", hint="'anyres_max_9' can be converted"
        )
    return told


def _check(strategy: str, settings: Settings) -> None:
    expect(settings, {"vision_feature_select_strategy": strategy, "projector_hidden_act": "gelu"})


def _rules(name: str, type: str, layer: int, ratio: Key) -> Rules:
    """Of a class of transformers, with towers of this type. `layer` is what the class takes where nothing is said."""
    clip = type == "clip_vision_model"
    side = lambda s: s.number("vision_config.image_size", 224)  # noqa: E731 - as rules are written
    return Rules(
        part="vision",
        architecture="mlp",
        classes=(name,),
        types=(type,),
        keys=(
            *projector_keys("mlp", "quick_gelu" if clip else "gelu_pytorch_tanh"),
            *tower_sizes(_CLIP_TOWER if clip else _SIGLIP_TOWER),
            *normalisation_keys(*CLIP),
            Key("clip.vision.projection_dim", "text_config.hidden_size", "int", 4096),
            Key(
                "clip.vision.attention.layer_norm_epsilon",
                "vision_config.layer_norm_eps",
                "float",
                1e-5 if clip else 1e-6,
            ),
            Key("clip.vision.feature_layer", partial(feature_states, default=layer), "ints"),
            constant("clip.vision.mm_patch_merge_type", "spatial_unpad", "str"),
            Key(PINPOINTS, _pinpoints, "ints"),
            ratio,
        ),
        tensors=(
            *(rule for rule in siglip("vision_tower") if rule.target != "v.post_ln"),
            Tensor("multi_modal_projector.linear_1", "mm.0"),
            Tensor("multi_modal_projector.linear_2", "mm.2"),
            Tensor("image_newline", "v.image_newline", type="F32"),
        ),
        dropped=("vision_tower.post_layernorm", "vision_tower.head.*"),  # of what stands after the states
        check=partial(_check, "default" if clip else "full"),
        assumed={
            "preprocessor.resample": 3,
            "preprocessor.image_grid_pinpoints": lambda s: s.find("image_grid_pinpoints"),
            **{
                f"preprocessor.{path}": side
                for path in ("crop_size.height", "size.shortest_edge", "size.height", "size.width")
            },
        },
    )


_NEXT, _ONEVISION = "LlavaNextForConditionalGeneration", "LlavaOnevisionForConditionalGeneration"
_ANYRES = constant(RATIO, "anyres", "str")
ENCODERS = {"mlp": LlavaNextVision.load, "": LlavaNextVision.load}
FILMS = dict.fromkeys(ENCODERS, lay_out_film)
RULES = (
    _rules(_NEXT, "clip_vision_model", -2, _ANYRES),
    _rules(_NEXT, "siglip_vision_model", -2, _ANYRES),
    _rules(_ONEVISION, "siglip_vision_model", -1, Key(RATIO, _max_ratio, "str")),
)
