"""Llama 3.2 Vision: a picture on a canvas of at most four tiles, all of which see each other.

Patches go through ordinary layers and then through layers with gates; what leaves the tower is joined with what some of
its layers were given. All rows of the most tiles are computed: valid ones see them all, also those that fill up tiles
and canvas, and these see the valid ones alone, so they stand behind. Embeddings are remembered beside the sequence.

GGUF: clip.projector_type = "mllama". Oracle: transformers' MllamaForConditionalGeneration. In 5.24 that joins what
layers give, where the published models join what they are given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, ClassVar

import numpy as np

from opsin.arrays import Floats, Ints
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.gguf.dialect import Dialect
from opsin.gguf.rules import Key, Rules, Settings, Tensor
from opsin.gguf.vision_rules import (
    CLIP,
    SIZES,
    blocks,
    expect,
    normalisation,
    normalisation_keys,
    projector_keys,
    tower_sizes,
)
from opsin.media import sizes, steps
from opsin.media.limits import Size
from opsin.media.picture import Picture
from opsin.nn.keys import positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import Gate, JoinedLinear
from opsin.nn.pictures import Preparation
from opsin.nn.vit import AttentionSpans, Vit, VitBlock, VitShape, vit_shape
from opsin.ops import Array
from opsin.spans import Features, MediaSpan, Patches

MOST_TILES = 16
FILL = 8  # a tile's rows are filled up to a multiple of these


def _check_gate(gate: Gate, least: float = -1.0) -> None:
    """Raises ModelError for what no hyperbolic tangent gives: some files hold what it should have been taken of."""
    if not least <= gate.value <= least + 2:
        raise ModelError(
            f"{gate.tensor('')} is {gate.value:g}, and no hyperbolic tangent",
            hint="some files of May 2025 hold such numbers raw; take one that was converted later",
        )


class GlobalBlock(VitBlock):
    """A layer of the tower with gates, of which files hold the hyperbolic tangent."""

    attn_gate: Gate
    mlp_gate: Annotated[Gate, at("ffn_gate")]

    def check(self, shape: VitShape) -> None:
        super().check(shape)
        for gate in (self.attn_gate, self.mlp_gate):
            _check_gate(gate)

    def __call__(self, x: Array, spans: AttentionSpans, table: Array | None, shape: VitShape) -> Array:
        x = x + self.attn(self.ln1(x, shape), spans, table, shape, None) * self.attn_gate.value
        return x + self.ffn(self.ln2(x, shape), shape.activation, None) * self.mlp_gate.value


class TileWeights(Module):
    """What the tower has beside an ordinary one."""

    blk: Annotated[list[GlobalBlock], at("global.blk")]
    position: Annotated[Gate, at("position_embd.gate")]
    tile_position: Annotated[Gate, at("tile_position_embd.gate")]
    pre_tile: Annotated[Gate, at("pre_tile_position_embd.gate")]
    post_tile: Annotated[Gate, at("post_tile_position_embd.gate")]

    def check(self, file: File, shape: VitShape) -> None:
        """Raises ModelError where something does not fit, naming it."""
        layers = positive_int(file, "clip.vision.global.block_count")
        if len(self.blk) != layers:
            raise ModelError(f"{file.path} holds {len(self.blk)} of its {layers} global layers")
        for block in self.blk:
            block.check(shape)
        _check_gate(self.position, 0.0)
        for gate in (self.tile_position, self.pre_tile, self.post_tile):
            _check_gate(gate)


@dataclass(frozen=True, eq=False)
class TileTables:
    """What is added to rows by the shape of the canvas and a tile's place on it. On the host: they are large.

    Attributes:
        start: [width], the class embedding.
        rows: [1 + patches, width], the same in all tiles.
        tiles: [1 + shapes, tiles, 1 + patches, width].
        before: [1 + shapes, tiles, width], of patches alone.
        after: [1 + shapes, tiles, width], between the tower's two parts.
    """

    start: Floats
    rows: Floats
    tiles: Floats
    before: Floats
    after: Floats

    @classmethod
    def load(cls, source: Reader, shape: VitShape, tiles: int) -> TileTables:
        rows, width, shapes = shape.grid**2 + 1, shape.width, len(sizes.tile_grids(tiles)) + 1

        def read(name: str, *needed: int) -> Floats:
            values, stored = source.values(f"v.{name}"), (needed[0], math.prod(needed[1:]))[: len(needed)]
            if values.shape != stored:
                raise ModelError(f"v.{name} is {values.shape}; {stored} is needed")
            return values.reshape(needed)

        return cls(
            start=read("class_embd", width),
            rows=read("position_embd.weight", rows, width),
            tiles=read("tile_position_embd.weight", shapes, tiles, rows, width),
            before=read("pre_tile_position_embd.weight", shapes, tiles, width),
            after=read("post_tile_position_embd.weight", shapes, tiles, width),
        )


@dataclass(frozen=True, eq=False)
class MllamaVision:
    """`taken`: layers of whose inputs the projector hears. `most`: tiles of a canvas."""

    tower: Vit
    weights: TileWeights
    tables: TileTables
    projector: JoinedLinear
    preparation: Preparation
    taken: tuple[int, ...]
    most: int
    marker: ClassVar[str] = "<|image|>"

    @classmethod
    def load(cls, file: File, source: Reader) -> MllamaVision:
        shape = replace(vit_shape(file), activation="gelu_erf")
        most, key = positive_int(file, "clip.vision.max_num_tiles", 4), "clip.vision.intermediate_layers_indices"
        if most > MOST_TILES:
            raise ModelError(f"{file.path}: clip.vision.max_num_tiles is {most}", hint="the file is damaged")
        taken = tuple(file.get_ints(key).tolist())
        weights, tower = TileWeights.read(source, "v"), Vit.load(file, source, shape)
        weights.check(file, shape)
        if list(taken) != sorted(set(taken)) or not all(0 <= layer < shape.layers for layer in taken):
            raise ModelError(f"{file.path}: {key} is {list(taken[:8])}, of {shape.layers} layers")
        tables = TileTables.load(source, shape, most)
        given = [slice(shape.width + n, None, len(taken)) for n in range(len(taken))]  # value by value
        projector = JoinedLinear.load(source, "mm.0", [slice(0, shape.width), *given])
        projector.check(shape.width, positive_int(file, "clip.vision.projection_dim"))
        preparation = Preparation.of(file, shape.patch, block=shape.grid)  # a block of patches is a tile
        return cls(tower, weights, tables, projector, preparation, taken, most)

    @property
    def width(self) -> int:
        return self.projector.outputs

    @property
    def rows(self) -> int:
        """Of a tile."""
        return self.tower.shape.grid**2 + 1

    def layout(self, picture: Picture) -> Patches:
        shape, size = self.tower.shape, picture.size
        ways = (sizes.tile_grid(size, shape.side, most) for most in range(self.most, 0, -1))
        wide, high = picture.budget.choose(ways, partial(self._cost, size))
        scaled, canvas = sizes.onto_tiles(size, (wide, high), shape.side), (wide * shape.side, high * shape.side)
        features = (high, wide, shape.grid**2, shape.values)

        def make() -> Floats:
            image = steps.resize(steps.flatten(picture), scaled, "bilinear")
            return self.preparation.patches(steps.pad(image, canvas)).reshape(features)

        span = MediaSpan(
            self.preparation.digest(picture, "tiles", scaled, canvas), rows=0, positions=0,
            memory=high * wide * self.rows, marker=1, features=Features(features, make), size=scaled,
            area=(0.0, 0.0, float(picture.width), float(picture.height)),
        )  # fmt: skip
        return Patches((span, self.marker), picture.notes, original=size)

    def _cost(self, size: Size, grid: sizes.Grid) -> tuple[Size, int]:
        return sizes.onto_tiles(size, grid, self.tower.shape.side), math.prod(grid) * self.rows

    def encode(self, features: Floats) -> Array:
        pictures, high, wide, _, _ = features.shape
        ops, shape = self.tower.ops, self.tower.shape
        number, valid = sizes.tile_grids(self.most).index((wide, high)) + 1, high * wide * self.rows
        fill = self.most * (-self.rows % FILL)
        whole = self.most * self.rows + fill

        def each(values: Ints) -> Array:
            return ops.constant(np.tile(values.astype(np.int32), pictures))

        places = np.arange(whole)
        spans = AttentionSpans(each(np.zeros(whole, np.int32)), each(np.where(places < valid, whole, valid)), pictures)
        x = self._embed(features.reshape(pictures, high * wide, -1, shape.values), number, fill)
        x = ops.put(x, ops.constant(np.zeros((1, shape.width), np.float32)), each(-1 * (places < whole - fill)))
        given = []
        for layer, block in enumerate(self.tower.weights.blk):
            if layer in self.taken:
                given.append(x)
            x = block(x, spans, None, shape)
        x = self.tower.finish(x)
        after = ops.constant(self.tables.after[number] * np.float32(self.weights.post_tile.value))
        tile = np.arange(self.most)
        x = x + ops.take(after, each(np.concatenate([tile.repeat(self.rows), tile.repeat(fill // self.most)])))
        for block in self.weights.blk:
            x = block(x, spans, None, shape)
        seen = ops.constant(np.concatenate([np.arange(valid, dtype=np.int32) + whole * n for n in range(pictures)]))
        return self.projector([ops.take(state, seen) for state in (x, *given)])

    def _embed(self, patches: Floats, number: int, fill: int) -> Array:
        """patches [pictures, tiles, patches, values] -> the first state [pictures * rows of all tiles and fill, width].

        What fills tiles up comes behind all tiles, and so do tiles that the canvas lacks behind those that it has.
        """
        pictures, real, _, values = patches.shape
        weights, tables, ops = self.weights, self.tables, self.tower.ops
        given = np.zeros((pictures, self.most, self.rows, values), np.float32)
        given[:, :real, 1:] = patches
        added = tables.tiles[number] * np.float32(weights.tile_position.value)
        added += tables.rows * np.float32(weights.position.value)
        added[:, 1:] += tables.before[number][:, None] * np.float32(weights.pre_tile.value)
        added[:, 0] += tables.start
        rows = np.pad(given.reshape(pictures, -1, values), ((0, 0), (0, fill), (0, 0))).reshape(-1, values)
        more = np.tile(np.pad(added.reshape(-1, added.shape[-1]), ((0, fill), (0, 0))), (pictures, 1))
        return self.tower.begin(self.tower.weights.patch_embd(ops.constant(rows), ops.constant(more)))


_TOWER = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "attention_heads": 16, "image_size": 448,
    "patch_size": 14,
}  # fmt: skip
_SIZES = {**SIZES, "attention.head_count": "attention_heads"}
_BLOCK = {
    "input_layernorm": "ln1", "post_attention_layernorm": "ln2", "self_attn.o_proj": "attn_out",
    **{f"self_attn.{name}_proj": f"attn_{name}" for name in "qkv"}, "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down",
}  # fmt: skip
_EPS = 1e-5  # of two norms it is a number of transformers' code, not of any setting
_POSITIONS = "vision_model.gated_positional_embedding"


def _tanh(values: Floats, settings: Settings) -> Floats:
    return np.tanh(values)


def _check(settings: Settings) -> None:
    most = settings.number("vision_config.max_num_tiles", 4)
    expect(settings, {
        "vision_config.hidden_act": "gelu", "vision_config.norm_eps": _EPS, "vision_config.num_channels": 3,
        "vision_config.supported_aspect_ratios": [[high, wide] for wide, high in sizes.tile_grids(most)],
    })  # fmt: skip


def _tiles(name: str) -> tuple[Tensor, Tensor]:
    table, short = f"vision_model.{name}_tile_positional_embedding", f"v.{name}_tile_position_embd"
    return Tensor(f"{table}.embedding", short, plain=True), Tensor(f"{table}.gate", f"{short}.gate", _tanh)


ENCODERS = {"mllama": MllamaVision.load}
DIALECTS = (  # until 2025-04 the tower is a file of its own, whose up and down are exchanged
    Dialect(
        architecture="mllama",
        becomes="mllama",
        projector="mllama",
        values={**normalisation(*CLIP), "clip.use_gelu": True},
        tensors={"attn_norm": "ln1", "ffn_norm": "ln2", "attn_output": "attn_out"},
    ),
)
RULES = (
    Rules(
        part="vision",
        architecture="mllama",
        classes=("MllamaForConditionalGeneration",),
        keys=(
            *projector_keys("mllama", "gelu"),
            *tower_sizes(_TOWER, _SIZES),
            *normalisation_keys(*CLIP),
            Key("clip.vision.projection_dim", "text_config.hidden_size", "int", 4096),
            Key("clip.vision.attention.layer_norm_epsilon", "vision_config.norm_eps", "float", _EPS),
            Key("clip.vision.global.block_count", "vision_config.num_global_layers", "int", 8),
            Key(
                "clip.vision.intermediate_layers_indices",
                "vision_config.intermediate_layers_indices",
                "ints",
                [3, 7, 15, 23, 30],
            ),
            Key("clip.vision.max_num_tiles", "vision_config.max_num_tiles", "int", 4),
        ),
        tensors=(
            Tensor("vision_model.patch_embedding", "v.patch_embd"),
            Tensor("vision_model.class_embedding", "v.class_embd"),
            Tensor(f"{_POSITIONS}.embedding", "v.position_embd.weight", type="F32"),
            Tensor(f"{_POSITIONS}.gate", "v.position_embd.gate", lambda values, _: 1 - np.tanh(values)),
            Tensor(f"{_POSITIONS}.gate", "v.tile_position_embd.gate", _tanh),
            Tensor(f"{_POSITIONS}.tile_embedding", "v.tile_position_embd", plain=True),
            *_tiles("pre"),
            *_tiles("post"),
            Tensor("vision_model.layernorm_pre", "v.pre_ln"),
            Tensor("vision_model.layernorm_post", "v.post_ln"),
            *blocks("vision_model.transformer.layers", _BLOCK),
            *(
                replace(rule, target=rule.target.replace("v.", "v.global.", 1))
                for rule in blocks("vision_model.global_transformer.layers", _BLOCK)
            ),
            Tensor("vision_model.global_transformer.layers.{n}.gate_attn", "v.global.blk.{n}.attn_gate", _tanh),
            Tensor("vision_model.global_transformer.layers.{n}.gate_ffn", "v.global.blk.{n}.ffn_gate", _tanh),
            Tensor("multi_modal_projector", "mm.0"),
        ),
        check=_check,
        assumed={
            "preprocessor.resample": 2,
            "preprocessor.max_image_tiles": lambda s: s.number("vision_config.max_num_tiles", 4),
            **{
                f"preprocessor.size.{side}": lambda s: s.number("vision_config.image_size", 448)
                for side in ("height", "width")
            },
        },  # fmt: skip
    ),
)
