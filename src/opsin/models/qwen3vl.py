"""Qwen3-VL: the decoder of Qwen 3, which gets a picture in parts: one in its rows, others after its first layers.

That is DeepStack (Meng et al. 2024, arXiv 2406.04334): states of the tower's middle layers, merged as those of the last
one are, stand beside an embedding and are added to the picture's rows later. The tower is its predecessor's, with a
table of positions that is stretched to each picture. The decoder's positions have three axes, which take turns to turn
pairs.

GGUF: general.architecture = "qwen3vl" or "qwen3vlmoe" (with experts), clip.projector_type = "qwen3vl_merger". Oracle:
transformers' Qwen3VLForConditionalGeneration and Qwen3VLMoeForConditionalGeneration, with their predecessor's image
processor.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

import numpy as np

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf import File, TensorInfo, Value
from opsin.gguf.dialect import Dialect, planes
from opsin.gguf.rules import Key, Rules, Settings, Tensor, constant
from opsin.gguf.text_rules import EXPERT_KEYS, fused_expert_tensors, pre_norm_rules, router_tensor
from opsin.gguf.vision_rules import blocks, normalisation, normalisation_keys, projector_keys, tower_sizes
from opsin.models.qwen2vl import LOOK, MOMENTS, SIZES, pixel_keys, sections
from opsin.models.qwen2vl import Qwen2VlVision as OlderVision
from opsin.nn.batch import Batch
from opsin.nn.decoder import PreNormBlock, PreNormDecoder, Tables
from opsin.nn.films import with_times
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import Linear
from opsin.nn.position_tables import interpolated
from opsin.nn.rope import interleaved_axis_of
from opsin.nn.vit import Norm, VitShape, block_order
from opsin.ops import Array

LEAST, MOST = 256 * 256, 4096 * 4096  # pixels: where the file does not say
DEEP = [8, 16, 24]  # layers of the tower whose states the decoder gets: transformers' default


@dataclass(frozen=True, eq=False)
class Qwen3VlDecoder(PreNormDecoder):
    """`deep`: so many first layers have a part of a picture's embeddings added to its rows."""

    deep: int = 0

    @property
    def media_width(self) -> int:
        return (1 + self.deep) * self.width

    def _block(self, block: PreNormBlock, x: Array, batch: Batch, layer: int, tables: Tables | None) -> Array:
        """Parts of a picture are added to all rows, before any ends (`Batch.last`)."""
        if layer >= self.deep:
            return super()._block(block, x, batch, layer, tables)
        x = super()._block(block, x, replace(batch, last=False), layer, tables)
        return batch.going_on(batch.deepen(x, 1 + layer))


def load_decoder(file: File, source: Reader, prefix: str = "qwen3vl") -> Qwen3VlDecoder:
    """Raises ModelError where more layers get parts of pictures than there are."""
    decoder = Qwen3VlDecoder.load(file, source, prefix, pairing="halves", mrope=True)
    deep, layers = file.get_int(f"{prefix}.n_deepstack_layers", 0), len(decoder.weights.blk)
    if not 0 <= deep <= layers:
        raise ModelError(f"{file.path}: {prefix}.n_deepstack_layers is {deep}, of {layers}", hint="the file is damaged")
    axis = interleaved_axis_of(file, prefix, len(decoder.rope.frequencies))
    return replace(decoder, deep=deep, axis=source.ops.constant(axis))


class Merger(Module):
    """Squares of patches after a middle layer; here the norm is one of a whole square."""

    norm: Norm
    up: Annotated[Linear, at("fc1")]
    down: Annotated[Linear, at("fc2")]

    def check(self, inputs: int, outputs: int) -> None:
        """Raises ModelError, naming the tensor, where something is of another size."""
        self.norm.check(inputs)
        self.up.check(inputs, inputs)
        self.down.check(inputs, outputs)

    def __call__(self, squares: Array, shape: VitShape) -> Array:
        return self.down(self.up(self.norm(squares, shape), activation="gelu_erf"))


@dataclass(frozen=True, eq=False, kw_only=True)
class Qwen3VlVision(OlderVision):
    """`positions` [side * side, width] are stretched to each picture. `mergers` by the layers that they come after."""

    positions: Floats
    mergers: Mapping[int, Merger]

    @property
    def width(self) -> int:
        return (1 + len(self.mergers)) * self.projector.down.outputs

    def encode(self, features: Floats) -> Array:
        pictures, high, wide, _ = features.shape
        tower, ops, block = self.tower, self.tower.ops, self.preparation.block
        positions = interpolated(self.positions, high, wide)[block_order(high, wide, block)]
        x, sight = tower.embed(features, ops.constant(positions)), self.sight(pictures, self._order(high, wide))
        deep: list[Array] = []
        for layer, state in enumerate(tower.states(x, *sight)):
            if layer in self.mergers:
                deep.append(self.mergers[layer](ops.fold(state, block**2), tower.shape))
        return ops.constant(np.concatenate([part.numpy() for part in (self.merge(state), *deep)], axis=1))


def load_vision(file: File, source: Reader) -> Qwen3VlVision:
    """Raises ModelError, naming key or tensor, for parts that do not go together."""
    older = OlderVision.load(file, source, least=LEAST, most=MOST)
    shape, square = older.tower.shape, older.preparation.block**2
    table, needed = source.values("v.position_embd.weight"), (shape.grid**2, shape.width)
    if table.shape != needed:
        raise ModelError(f"v.position_embd.weight is {table.shape}, where {needed} is needed")
    is_deep = file.get_bools("clip.vision.is_deepstack_layers", [])
    if is_deep.size not in (0, shape.layers):
        raise ModelError(
            f"{file.path}: clip.vision.is_deepstack_layers tells of {is_deep.size} layers, of {shape.layers}",
            hint="the file is damaged",
        )
    mergers = {int(n): Merger.read(source, f"v.deepstack.{n}") for n in np.flatnonzero(is_deep)}
    for merger in mergers.values():
        merger.check(shape.width * square, older.projector.down.outputs)
    return Qwen3VlVision(**vars(older), positions=table, mergers=mergers)


def _deep(settings: Settings) -> list[int]:
    """The layers of the tower whose states the decoder gets."""
    found = settings.get("vision_config.deepstack_visual_indexes", "ints", DEEP)
    assert isinstance(found, list)
    if found != sorted(set(found)) or not all(0 <= n < settings.number("vision_config.depth", 27) for n in found):
        raise ModelError(
            f"{settings.where}: vision_config.deepstack_visual_indexes is {found!r:.60}",
            hint="GGUF says which layers, in their order",
        )
    return found


def _is_deep(settings: Settings) -> list[bool]:
    found = _deep(settings)
    return [n in found for n in range(settings.number("vision_config.depth", 27))]


def _none_is(settings: Settings) -> list[bool]:
    return [False] * settings.number("vision_config.depth", 27)


def _layer(settings: Settings, number: int) -> int:
    """The layer whose merger has this number in a checkpoint."""
    return dict(enumerate(_deep(settings))).get(number, number)


def _side(settings: Settings) -> int:
    """Pixels along a side of the square that the table of positions was made for."""
    count = settings.number("vision_config.num_position_embeddings", 2304)
    if math.isqrt(count) ** 2 != count:
        raise ModelError(f"{settings.where}: {count} positions are no square", hint="it cannot be converted")
    return math.isqrt(count) * settings.number("vision_config.patch_size", 16)


_TOWER = {"patch_size": 16, "depth": 27, "num_heads": 16, "spatial_merge_size": 2, "hidden_size": 1152,
          "intermediate_size": 4304}  # fmt: skip
_BLOCK = {"norm1": "ln1", "norm2": "ln2", "attn.qkv": "attn_qkv", "attn.proj": "attn_out", "mlp.linear_fc1": "ffn_up",
          "mlp.linear_fc2": "ffn_down"}  # fmt: skip
DECODERS = {"qwen3vl": load_decoder, "qwen3vlmoe": partial(load_decoder, prefix="qwen3vlmoe")}
ENCODERS = {"qwen3vl_merger": load_vision}
FILMS = {"qwen3vl_merger": with_times}


def _found(file: File) -> Mapping[str, Value]:
    """What files of Ollama's leave out or say in other ways."""
    found: dict[str, Value] = {}
    prefix = file.get_str("general.architecture")
    if f"{prefix}.rope.dimension_sections" not in file.metadata:
        found[f"{prefix}.rope.dimension_sections"] = np.array([24, 20, 20, 0], np.int32)
    if f"{prefix}.n_deepstack_layers" not in file.metadata:
        found[f"{prefix}.n_deepstack_layers"] = len(file.get_ints("clip.vision.deepstack_visual_indexes", []))
    return found | tower_found(file)


def tower_found(file: File) -> dict[str, Value]:
    """The same of the tower."""
    deep, found = file.get_ints("clip.vision.deepstack_visual_indexes", []), dict[str, Value]()
    depth = file.get_int("clip.vision.block_count", 0)
    if 0 < depth < _MOST_LAYERS:
        found["clip.vision.is_deepstack_layers"] = np.isin(np.arange(depth), deep)
    if "v.position_embd.weight" in file.tensors:
        side = math.isqrt(file.tensors["v.position_embd.weight"].shape[0])
        found["clip.vision.image_size"] = side * file.get_int("clip.vision.patch_size")
    if "v.blk.0.ffn_up.weight" in file.tensors:
        found["clip.vision.feed_forward_length"] = file.tensors["v.blk.0.ffn_up.weight"].shape[0]
    return found


def _told(info: TensorInfo, file: File) -> Iterable[TensorInfo]:
    """Both moments of the patch kernel stand in one tensor; mergers are numbered, not called after their layers."""
    if info.name == "v.patch_embd.weight" and len(info.shape) == 4:
        names, shape = (info.name, f"{info.name}.1"), (info.shape[0] // 3, 3, *info.shape[2:])
        return planes(info, names, shape, file)
    number = re.fullmatch(r"v\.deepstack\.(\d{1,3})\.(.*)", info.name)
    deep = file.get_ints("clip.vision.deepstack_visual_indexes", []).tolist()
    if number is None or int(number[1]) >= len(deep):
        return (info,)
    return (replace(info, name=f"v.deepstack.{deep[int(number[1])]}.{number[2]}"),)


_MOST_LAYERS = 1 << 12  # of a tower


def dialect(
    architecture: str, found: Callable[[File], Mapping[str, Value]], text: Mapping[str, str] | None = None
) -> Dialect:
    """How one file of text of this architecture and of such a tower is told."""
    return Dialect(
        architecture=architecture, becomes=architecture, projector="qwen3vl_merger", found=found, change=_told,
        text=text or {},
        keys={"vision.shortest_edge": "clip.vision.image_min_pixels",
              "vision.longest_edge": "clip.vision.image_max_pixels"},
        values={**normalisation([0.5] * 3, [0.5] * 3), "clip.use_gelu": True},
        tensors={
            "patch_embed": "patch_embd", "pos_embed": "position_embd", "v.merger.norm": "v.post_ln",
            "v.merger.linear_fc1": "mm.0", "v.merger.linear_fc2": "mm.2", "norm1": "ln1", "norm2": "ln2",
            "mlp.linear_fc1": "ffn_up", "mlp.linear_fc2": "ffn_down", "deepstack_merger": "deepstack",
            "linear_fc1": "fc1", "linear_fc2": "fc2",
        },
    )  # fmt: skip


def tower_rules(*classes: str, deep: bool) -> Rules:
    """Of the tower in these classes' checkpoints; `deep`: its middle layers' states go to the decoder, too."""
    return Rules(
        part="vision",
        architecture="qwen3vl_merger",
        classes=classes,
        assumed={
            **LOOK,
            "preprocessor.patch_size": lambda s: s.number("vision_config.patch_size", 16),
            "vision_config.rope_parameters.rope_theta": 10000.0,
        },
        keys=(
            *projector_keys("qwen3vl_merger", "gelu_pytorch_tanh"),
            *tower_sizes(
                _TOWER, {**SIZES, "embedding_length": "hidden_size", "feed_forward_length": "intermediate_size"}
            ),
            *normalisation_keys([0.5] * 3, [0.5] * 3),
            *pixel_keys(LEAST, MOST),
            constant("clip.vision.attention.layer_norm_epsilon", 1e-6, "float"),
            Key("clip.vision.projection_dim", "text_config.hidden_size|hidden_size"),
            Key("clip.vision.image_size", _side),
            Key("clip.vision.is_deepstack_layers", _is_deep if deep else _none_is, "bools"),
        ),
        tensors=(
            *MOMENTS,
            Tensor("visual.patch_embed.proj.bias", "v.patch_embd.bias"),
            Tensor("visual.pos_embed", "v.position_embd", type="F32"),
            *blocks("visual.blocks", _BLOCK),
            Tensor("visual.merger.norm", "v.post_ln"),
            Tensor("visual.merger.linear_fc1", "mm.0"),
            Tensor("visual.merger.linear_fc2", "mm.2"),
            *(
                Tensor(f"visual.deepstack_merger_list.{{n}}.{theirs}", f"v.deepstack.{{n}}.{ours}", number=_layer)
                for theirs, ours in {"norm": "norm", "linear_fc1": "fc1", "linear_fc2": "fc2"}.items()
            ),
        ),
    )


DIALECTS = tuple(dialect(name, _found) for name in DECODERS)
_CLASSES = ("Qwen3VLForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration")
_TEXT_KEYS = (sections(24, 20, 20), Key("{arch}.n_deepstack_layers", lambda settings: len(_deep(settings))))
_MIXTURE = pre_norm_rules("qwen3vlmoe", (_CLASSES[1],), ("qwen3_vl_moe_text",), *_TEXT_KEYS, *EXPERT_KEYS)
RULES = (
    pre_norm_rules("qwen3vl", (_CLASSES[0],), ("qwen3_vl_text",), *_TEXT_KEYS),
    replace(_MIXTURE, tensors=(*_MIXTURE.tensors, router_tensor(), *fused_expert_tensors())),
    tower_rules(*_CLASSES, deep=True),
)
