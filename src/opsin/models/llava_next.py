"""LLaVA-NeXT (LLaVA 1.6): a picture is shown as a whole, and then larger, in tiles.

The tiles, of CLIP's or SigLIP's tower, become one map of the picture without the borders that make it fill them. Behind
each row of the map stands a row that was learned, the newline. The text part is a decoder of its own file.

GGUF: clip.projector_type = "mlp", or none, with clip.vision.image_grid_pinpoints (rows before columns, as transformers
reads them) and the tensor `v.image_newline` or `model.image_newline`; files that name no pinpoints have those of LLaVA
1.6. llama.cpp shows whole tiles one after another, borders too, without newlines, and the whole picture last. Granite
Vision's tower of 3.x is of this kind. Oracle: transformers' LlavaNextForConditionalGeneration, with its processor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, ClassVar

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
from opsin.media.limits import Size
from opsin.media.picture import Picture
from opsin.models.llava import NEWLINES, PINPOINTS, Projector, is_tiled
from opsin.nn.module import Reader
from opsin.nn.pictures import Preparation
from opsin.nn.states import feature_layers, select
from opsin.nn.vit import MOST_PIXELS, MOST_ROWS, Vit, VitShape, vit_shape
from opsin.ops import Array
from opsin.spans import Area, Features, MediaSpan, Patches

RATIO, ANYRES = "clip.vision.image_aspect_ratio", "anyres"
TILES = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))  # down and across, where a file does not say
MOST_CANVASES = 1024


@dataclass(frozen=True, eq=False)
class LlavaNextVision:
    """A tower and how it is shown tiles.

    Attributes:
        layers: after which the states are taken that the projector gets.
        canvases: sizes in whole tiles; a picture is laid in the middle of one of them, as large as it allows.
        newline: [width] the row behind each row of a map.
    """

    tower: Vit
    projector: Projector
    preparation: Preparation
    layers: tuple[int, ...]
    canvases: Sequence[Size]
    newline: Floats
    marker: ClassVar[str] = "<image>"

    @classmethod
    def load(cls, file: File, source: Reader) -> LlavaNextVision | None:
        """None where a file shows pictures in one piece, or in other tiles."""
        if not is_tiled(file) or file.get_str(RATIO, ANYRES) != ANYRES:
            return None
        return cls(**cls.parts(file, source))

    @classmethod
    def parts(cls, file: File, source: Reader) -> dict[str, Any]:
        """Fields of this class, as a file has them. Raises ModelError where something is missing or does not fit."""
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
        return {
            "tower": Vit.load(file, source, shape, np.arange(shape.grid**2, dtype=np.int32)), "projector": projector,
            "preparation": Preparation.of(file, shape.patch), "layers": layers, "canvases": canvases_of(file, shape),
            "newline": newline,
        }  # fmt: skip

    @property
    def width(self) -> int:
        return self.projector.down.outputs

    def layout(self, picture: Picture) -> Patches:
        """The whole picture, then its map. Of that of a very thin picture perhaps nothing is left."""
        side, overview = self.side, self.overview(picture)
        ways = (self._map(picture, canvas) for canvas in self._canvases(picture.size))
        tiled = picture.budget.choose(ways, lambda tiled: (tiled.size or side, overview.rows + tiled.rows))
        parts = (overview, tiled) if tiled.rows else (overview,)
        return Patches(parts, picture.notes, original=picture.size, whole=tiled.size)

    def encode(self, features: Floats) -> Array:
        """Of whole pictures, or of maps as `_map` lays them out."""
        if features.ndim == 4:
            return self.project(features)
        grid, (pictures, down, across, rows, wide, _) = self.tower.shape.grid, features.shape
        columns, values = wide - 1, down * across * grid**2 * self.tower.shape.values
        tiles = features.reshape(pictures, -1)[:, :values].reshape(pictures, down, across, grid, grid, -1)
        maps = np.empty((pictures, down * grid, across * grid, self.width), np.float32)
        for picture, y, x in product(range(pictures), range(down), range(across)):  # a tile's operations are short
            place = np.s_[picture, y * grid : (y + 1) * grid, x * grid : (x + 1) * grid]
            maps[place] = self.project(tiles[picture, y, x][None]).numpy().reshape(grid, grid, -1)
        top, left = (down * grid - rows) // 2, (across * grid - columns) // 2
        shown = self.shown(maps[:, top : top + rows, left : left + columns])
        newlines = np.broadcast_to(self.newline, (*shown.shape[:2], 1, self.width))
        return self.tower.ops.constant(np.concatenate([shown, newlines], axis=2).reshape(-1, self.width))

    @property
    def side(self) -> Size:
        """Pixels of a tile, across and down."""
        return (self.tower.shape.side,) * 2

    @property
    def seen(self) -> Size:
        """What whole patches show of a tile."""
        return (self.tower.shape.grid * self.tower.shape.patch,) * 2

    def overview(self, picture: Picture) -> MediaSpan:
        """A picture in one tile."""
        return self.tile(picture, "overview", partial(self._tiles, picture, self.side, self.side))

    def tile(self, picture: Picture, way: str, make: Callable[[], Floats]) -> MediaSpan:
        """The rows of one tile, whose patches are made in this way."""
        return self.preparation.span(picture, way, self.side, make=make, size=self.seen)

    def project(self, features: Floats) -> Array:
        """Patches of tiles [tiles, grid, grid, values] to their rows [tiles * grid * grid, width]."""
        return self.projector(select(self.tower, features, self.layers))

    def shown(self, maps: Floats) -> Floats:
        """What stands in a prompt for maps [pictures, rows, columns, width]."""
        return maps

    def shown_size(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns of `shown`."""
        return rows, columns

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

        high, wide = self.shown_size(rows, columns)
        digest, count = self.preparation.digest(picture, "tiles", canvas, shape.side, high, wide), high * (wide + 1)
        return MediaSpan(
            digest, count, count, (high, wide + 1), size=scaled,
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
        side, seen = self.tower.shape.side, self.seen
        image = steps.resize(steps.flatten(picture), size, "bicubic")
        image = steps.pad(image, canvas, at=((canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2))
        corners = product(range(0, canvas[1], side), range(0, canvas[0], side))
        tiles = [image.crop((left, top, left + seen[0], top + seen[1])) for top, left in corners]
        return np.concatenate([self.preparation.patches(tile) for tile in tiles])


def canvases_of(file: File, shape: VitShape) -> list[Size]:
    """Sizes of canvases. Raises ModelError where one is not of whole tiles, or of too many."""
    side = shape.side
    told = file.get_ints(PINPOINTS, [tiles * side for pair in TILES for tiles in pair]).tolist()
    found = [(wide, high) for high, wide in zip(told[::2], told[1::2], strict=False)]
    most = min(MOST_PIXELS, MOST_ROWS // shape.grid**2 * side**2)
    whole = all(0 < size <= most and size % side == 0 for size in told)
    if not whole or len(told) % 2 or not 0 < len(found) <= MOST_CANVASES or max(map(math.prod, found)) > most:
        raise ModelError(
            f"{file.path}: {PINPOINTS} is {str(told):.60}, for tiles of {side} pixels", hint="the file is damaged"
        )
    return found


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


def _check(strategy: str, settings: Settings) -> None:
    expect(settings, {"vision_feature_select_strategy": strategy, "projector_hidden_act": "gelu"})


def tile_rules(name: str, type: str, layer: int, ratio: Key) -> Rules:
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


_NEXT = "LlavaNextForConditionalGeneration"
ENCODERS = {"mlp": LlavaNextVision.load, "": LlavaNextVision.load}
RULES = tuple(
    tile_rules(_NEXT, type, -2, constant(RATIO, ANYRES, "str")) for type in ("clip_vision_model", "siglip_vision_model")
)
