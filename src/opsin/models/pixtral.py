"""Pixtral, Mistral Small 3.1 and Ministral 3: pictures in their own size, row by row, with a token after each row.

Positions of patches turn by row and column (2-D RoPE). In all but the first, squares of 2 x 2 patches become a row. The
text part is a decoder of another file's; what stands between rows are its own tokens. llama.cpp has a row for them in
the tower's file, `v.token_embd.img_break`, which is written for it and not read here.

GGUF: clip.projector_type = "pixtral". Oracles: transformers' LlavaForConditionalGeneration with this tower and
Mistral3ForConditionalGeneration, with their processor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf import File, TensorInfo, Value
from opsin.gguf.dialect import Dialect, neighbour_rows
from opsin.gguf.rules import Key, Rules, Settings, Tensor, constant, neighbours
from opsin.gguf.vision_rules import CLIP, blocks, expect, normalisation, normalisation_keys, projector_keys, tower_sizes
from opsin.media import sizes
from opsin.media.picture import Picture
from opsin.models.mistral3 import NAME as TEXT
from opsin.nn.keys import positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import Linear, Reordered, RmsNorm
from opsin.nn.pictures import Preparation
from opsin.nn.rope import frequencies, plane_table
from opsin.nn.vit import Vit, plane, vit_shape
from opsin.ops import Array
from opsin.spans import MediaSpan, Patches

BREAK, END = "[IMG_BREAK]", "[IMG_END]"
BASE = 10000.0


class Merger(Reordered):
    """Patches of a square into one; files count its inputs channel by channel, and a patch's stand together here."""

    @staticmethod
    def reorder(values: Floats) -> Floats:
        width, inputs = values.shape
        if inputs % width:
            raise ModelError(f"mm.patch_merger.weight makes {width} of {inputs} values, which are no whole patches")
        return values.reshape(width, width, -1).swapaxes(1, 2).reshape(width, inputs)


class Projector(Module):
    input_norm: RmsNorm | None
    patch_merger: Merger | None
    up: Annotated[Linear, at("1")]
    down: Annotated[Linear, at("2")]

    def check(self, width: int, block: int, projection: int) -> None:
        """Raises ModelError, naming the tensor, where something does not fit."""
        if (self.input_norm is None) != (self.patch_merger is None) or (self.patch_merger is None) != (block == 1):
            raise ModelError(
                f"clip.vision.spatial_merge_size is {block}, but mm.input_norm and mm.patch_merger say otherwise",
                hint="the file is damaged",
            )
        if self.input_norm is not None and self.patch_merger is not None:
            self.input_norm.check(width)
            self.patch_merger.check(width * block**2, width)
        self.up.check(width, self.down.inputs)
        self.down.check(self.up.outputs, projection)


@dataclass(frozen=True, eq=False)
class PixtralVision:
    tower: Vit
    projector: Projector
    preparation: Preparation
    marker: ClassVar[str] = "[IMG]"

    @classmethod
    def load(cls, file: File, source: Reader) -> PixtralVision:
        shape = vit_shape(file, "rms", "neighbours")
        if shape.heads.width % 4:
            raise ModelError(f"{file.path}: a head of {shape.heads.width} values does not turn by rows and columns")
        block = positive_int(file, "clip.vision.spatial_merge_size", 1)
        if block > shape.grid:
            raise ModelError(f"{file.path}: {shape.grid} patches a side are no squares of {block}")
        projector = Projector.read(source, "mm")
        projector.check(shape.width, block, positive_int(file, "clip.vision.projection_dim"))
        return cls(Vit.load(file, source, shape), projector, Preparation.of(file, shape.patch, block))

    @property
    def width(self) -> int:
        return self.projector.down.outputs

    def layout(self, picture: Picture) -> Patches:
        shape, factor = self.tower.shape, self.tower.shape.patch * self.preparation.block
        ways = (sizes.within(picture.size, edge, factor) for edge in sizes.edges(picture.size, shape.side))
        size = picture.budget.in_tokens().choose(ways, lambda size: (size, size[0] * size[1] // factor**2))
        parts: list[str | MediaSpan] = []
        for row in self.preparation.stretched(picture, size, "bicubic").by_rows():
            parts += [row, BREAK]
        return Patches((*parts[:-1], END), picture.notes, original=picture.size)

    def encode(self, features: Floats) -> Array:
        pictures, high, wide, _ = features.shape
        tower, projector, block = self.tower, self.projector, self.preparation.block
        turning = frequencies(tower.shape.heads.width, BASE)
        places = plane(high, wide, block, pictures)
        x = tower.whole(features, plane_table(tower.ops, places, turning[::2], turning[1::2]))
        if projector.input_norm is not None and projector.patch_merger is not None:
            x = projector.patch_merger(x.ops.fold(projector.input_norm(x, tower.shape.eps), block**2))
        return projector.down(projector.up(x, activation="gelu_erf"))


_TOWER = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "image_size": 1024, "patch_size": 16,
}  # fmt: skip
_EPS = 1e-5  # a number of transformers' code, not of any setting
_TURNED = neighbours("vision_config.num_attention_heads", _TOWER["num_attention_heads"])
_BLOCK = {
    "attention_norm": "ln1", "ffn_norm": "ln2", "attention.o_proj": "attn_out",
    **{f"attention.{name}_proj": f"attn_{name}" for name in "qkv"},
    **{f"feed_forward.{name}_proj": f"ffn_{name}" for name in ("gate", "up", "down")},
}  # fmt: skip


def _check(wanted: Mapping[str, object], settings: Settings) -> None:
    expect(settings, {
        "vision_config.hidden_act": "silu", "projector_hidden_act": "gelu", "vision_feature_layer": -1,
        "vision_config.rope_parameters.rope_theta|vision_config.rope_theta": BASE,
        **wanted,
    })  # fmt: skip
    added = settings.find("added_tokens")
    missing = [token for token in (BREAK, END) if not isinstance(added, Mapping) or token not in added]
    if missing:
        raise ModelError(f"{settings.where}: tokenizer.json has no {missing[0]}", hint="rows of pictures end with it")


def _break_row(values: Floats, settings: Settings) -> Floats:
    id = settings.number(f"added_tokens.{BREAK}")
    if id >= len(values):
        raise ModelError(f"{settings.where}: {BREAK} is token {id} of {len(values)}", hint="mend tokenizer.json")
    row: Floats = values[id]
    return row


def _rules(name: str, tower: Mapping[str, int], wanted: Mapping[str, object], *more: Key | Tensor) -> Rules:
    return Rules(
        part="vision",
        architecture="pixtral",
        classes=(name,),
        types=("pixtral",),
        keys=(
            *projector_keys("pixtral", "silu"),
            *tower_sizes(tower),
            *normalisation_keys(*CLIP),
            Key("clip.vision.projection_dim", "text_config.hidden_size", "int", 5120),
            constant("clip.vision.attention.layer_norm_epsilon", _EPS, "float"),
            *(key for key in more if isinstance(key, Key)),
        ),
        tensors=(
            Tensor("vision_tower.patch_conv", "v.patch_embd"),
            Tensor("vision_tower.ln_pre", "v.pre_ln"),
            *blocks("vision_tower.transformer.layers", _BLOCK, {"attn_q": _TURNED, "attn_k": _TURNED}),
            Tensor("multi_modal_projector.linear_1", "mm.1"),
            Tensor("multi_modal_projector.linear_2", "mm.2"),
            Tensor("embed_tokens.weight", "v.token_embd.img_break", _break_row, lambda shape, _: shape[1:], type="F32"),
            *(tensor for tensor in more if isinstance(tensor, Tensor)),
        ),
        check=partial(_check, wanted),
        assumed={
            "preprocessor.resample": 3,
            "preprocessor.size.longest_edge": lambda s: s.number("vision_config.image_size", tower["image_size"]),
        },
    )


def _pretokenizer(file: File) -> Mapping[str, Value]:
    """Old files do not know how Mistral's texts are cut."""
    key = "tokenizer.ggml.pre"
    return {key: "tekken"} if file.metadata.get(key, "default") == "default" else {}


def _turned(info: TensorInfo, file: File) -> Iterable[TensorInfo]:
    return (neighbour_rows(info, file) if ".attn_q." in info.name or ".attn_k." in info.name else info,)


ENCODERS = {"pixtral": PixtralVision.load}
DIALECTS = (
    Dialect(
        architecture=TEXT,
        becomes=TEXT,
        projector="pixtral",
        keys={
            "rope.scaling.beta_fast": "rope.scaling.yarn_beta_fast",
            "rope.scaling.beta_slow": "rope.scaling.yarn_beta_slow",
            "rope.scaling.mscale_all_dim": "rope.scaling.yarn_log_multiplier",
            "rope.scaling_beta": "attention.temperature_scale",
            "rope.dimension_count": "",  # width / layers, in old files
            "spatial_merge_size": "clip.vision.spatial_merge_size",
            "vision.attention.key_length": "clip.vision.attention.head_dim",
        },
        values={**normalisation(*CLIP), "clip.use_silu": True, "clip.vision.attention.layer_norm_epsilon": _EPS},
        found=_pretokenizer,
        tensors={
            "patch_conv": "patch_embd", "encoder_norm": "pre_ln", "attn_norm": "ln1", "ffn_norm": "ln2",
            "attn_output": "attn_out", "mm.linear_1": "mm.1", "mm.linear_2": "mm.2", "mm.norm": "mm.input_norm",
            "mm.patch_merger.merging_layer": "mm.patch_merger",
        },
        change=_turned,
    ),
)  # fmt: skip
RULES = (
    _rules("LlavaForConditionalGeneration", _TOWER, {"vision_feature_select_strategy": "full"}),
    _rules(
        "Mistral3ForConditionalGeneration",
        {**_TOWER, "image_size": 1540, "patch_size": 14},
        {"text_config.rms_norm_eps": _EPS},  # the merger's norm has the text's, of which a tower's file knows nothing
        Key("clip.vision.spatial_merge_size", "spatial_merge_size", "int", 2),
        Tensor("multi_modal_projector.norm", "mm.input_norm"),
        Tensor("multi_modal_projector.patch_merger.merging_layer", "mm.patch_merger", plain=True),
    ),
)
