"""Gemma 3: norms before and after each part and of the heads of q and k, a window for most layers.

Layers with a window and those that see everything have ropes of their own.

Its tower is SigLIP, whose patches are averaged in squares to the rows of a sequence.

EmbeddingGemma is its text, whose tokens see what is ahead, too.

GGUF: general.architecture = "gemma3" or "gemma-embedding", clip.projector_type = "gemma3"; norms hold their "+1".
Oracle: transformers' Gemma3ForConditionalGeneration, and its processor; with pan and scan where high detail is asked
for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf import File, Value
from opsin.gguf.dialect import Dialect
from opsin.gguf.rules import Key, Rules, Settings, Tensor, plus_one
from opsin.gguf.text_rules import KEYS, SANDWICH, tensors
from opsin.gguf.vision_rules import SIGLIP_WORDS, normalisation, normalisation_keys, projector_keys, siglip, tower_sizes
from opsin.media import sizes, steps
from opsin.media.limits import Size
from opsin.media.picture import Picture
from opsin.nn.attention import heads_of
from opsin.nn.keys import positive_float, positive_int
from opsin.nn.module import Module, Reader
from opsin.nn.parts import Reordered, RmsNorm
from opsin.nn.pictures import Preparation
from opsin.nn.rope import as_frequencies, frequencies, rope_of
from opsin.nn.sandwich import Kind, SandwichDecoder, SandwichWeights, local_layers
from opsin.nn.vit import Vit, block_order, vit_shape
from opsin.ops import Array
from opsin.spans import Area, MediaSpan, Patches

PERIOD = 6  # every sixth layer sees everything, where the file does not say
POOL = 4  # patches along a side of a row's square, where the file does not say
LARGEST = 62  # layers of the 27B model, whose scores are scaled by width / heads instead of the width of a head
MOST_CROPS = 4  # of a picture at high detail, beside the whole
BEGIN, END = "\n\n<start_of_image>", "<end_of_image>\n\n"
ORIGINAL, CROPS = "Here is the original image ", " and here are some crops to help you see better "


class Gemma3(SandwichDecoder):
    @classmethod
    def load(cls, file: File, source: Reader, prefix: str = "gemma3", *, encodes: bool = False) -> Gemma3:
        """`encodes`: as the encoder of texts, whose window lies on both sides of a row, half on each."""
        weights = SandwichWeights.read(source)
        weights.check(file, prefix, weights.blk)
        heads, layers = heads_of(file, prefix), len(weights.blk)
        if layers == LARGEST and f"{prefix}.attention.scale" not in file.metadata:
            heads = replace(heads, scale=(weights.width / heads.query) ** -0.5)
        local = local_layers(file, prefix, layers, period=PERIOD)
        rope, constant = rope_of(file, prefix, heads.width, base=1e6), source.ops.constant
        whole = near = Kind("self", 0, constant(rope.frequencies), rope.scale)
        if any(local):
            near = _near(file, source, prefix, 2 * len(rope.frequencies))
            near = replace(near, window=near.window // 2 + 1) if encodes else near
        return cls.of(file, prefix, weights, heads, whole=whole, near=near, local=local, encodes=encodes)


def _near(file: File, source: Reader, prefix: str, turned: int) -> Kind:
    """Layers with a window, whose rope is their own and stretched by nothing. `turned`: values of a head."""
    old = positive_float(file, f"{prefix}.rope.local.freq_base", 10000.0)  # an older name
    base = positive_float(file, f"{prefix}.rope.freq_base_swa", old)
    window = positive_int(file, f"{prefix}.attention.sliding_window")
    return Kind("window", window, source.ops.constant(as_frequencies(file, frequencies(turned, base))))


class Transposed(Reordered):
    """The one projection that files store as (inputs, outputs)."""

    @staticmethod
    def reorder(values: Floats) -> Floats:
        return values.T


class Projector(Module):
    soft_emb_norm: RmsNorm
    input_projection: Transposed


@dataclass(frozen=True, eq=False)
class Gemma3Vision:
    tower: Vit
    projector: Projector
    preparation: Preparation
    marker: ClassVar[str] = "<start_of_image>"

    @classmethod
    def load(cls, file: File, source: Reader) -> Gemma3Vision:
        shape = vit_shape(file)
        pool = positive_int(file, "clip.vision.projector.scale_factor", POOL)
        if shape.grid % pool:
            raise ModelError(f"{file.path}: {shape.grid} patches a side are not averaged by {pool}")
        order = block_order(shape.grid, shape.grid, pool)
        projector = Projector.read(source, "mm")
        projector.soft_emb_norm.check(shape.width)
        projector.input_projection.check(shape.width, positive_int(file, "clip.vision.projection_dim"))
        return cls(Vit.load(file, source, shape, order), projector, Preparation.of(file, shape.patch, pool))

    @property
    def width(self) -> int:
        return self.projector.input_projection.outputs

    def layout(self, picture: Picture) -> Patches:
        size = (self.tower.shape.side, self.tower.shape.side)
        whole = self.preparation.stretched(picture, size, "bilinear", atomic=True)
        areas = self._crops(picture, size, whole.rows)
        parts: list[str | MediaSpan] = [ORIGINAL if areas else "", BEGIN, whole, END]
        for i, area in enumerate(areas):
            parts += [" " if i else CROPS, BEGIN, self._crop(picture, size, area), END]
        return Patches(tuple(filter(None, parts)), picture.notes, original=picture.size)

    def _crops(self, picture: Picture, size: Size, rows: int) -> list[Area]:
        """Of pan and scan, which is for high detail."""
        if picture.budget.detail != "high":
            return []
        ways = [sizes.pan_and_scan(picture.size, most) for most in range(MOST_CROPS, 1, -1)]
        return picture.budget.choose([*ways, []], lambda areas: (size, rows * (1 + len(areas))))

    def _crop(self, picture: Picture, size: Size, area: Area) -> MediaSpan:
        def make() -> Floats:
            left, top, right, bottom = map(int, area)
            image = steps.flatten(picture).crop((left, top, right, bottom))
            return self.preparation.patches(steps.resize(image, size, "bilinear"))

        return self.preparation.span(picture, "crop", area, size, make=make, size=size, area=area, atomic=True)

    def encode(self, features: Floats) -> Array:
        x = self.tower.whole(features)
        x = x.ops.mean_rows(x, self.preparation.block**2)
        return self.projector.input_projection(self.projector.soft_emb_norm(x, self.tower.shape.eps))


def _pattern(settings: Settings) -> tuple[int | None, list[bool]]:
    """The period of layers that see everything, where there is one, and which layers see a window."""
    listed = settings.find("layer_types")
    layers = settings.number("num_hidden_layers")
    if isinstance(listed, list):
        local = [kind == "sliding_attention" for kind in listed]
    else:
        period = settings.number("sliding_window_pattern", PERIOD)
        local = [(i + 1) % period != 0 for i in range(layers)]
    periods = [p for p in range(1, layers + 2) if local == [(i + 1) % p != 0 for i in range(len(local))]]
    return (PERIOD if PERIOD in periods else periods[0] if periods else None), local


def _window(settings: Settings) -> int | None:
    return settings.number("sliding_window") if any(_pattern(settings)[1]) else None


def _period(settings: Settings) -> int | None:
    """Left out for the usual one, which old readers take without asking."""
    period, local = _pattern(settings)
    return period if any(local) and period != PERIOD else None


def _irregular(settings: Settings) -> list[bool] | None:
    period, local = _pattern(settings)
    return local if any(local) and period is None else None


def _whole_base(settings: Settings) -> float:
    paths = "rope_parameters.full_attention.rope_theta|rope_theta"
    return float(settings.get(paths, "float", 1000000.0))  # type: ignore[arg-type]


def _local_base(settings: Settings) -> float:
    paths = "rope_parameters.sliding_attention.rope_theta|rope_local_base_freq"
    return float(settings.get(paths, "float", 10000.0))  # type: ignore[arg-type]


def _scale(settings: Settings) -> float | None:
    """Of scores, where it is not that of the heads' width."""
    scalar = settings.get("query_pre_attn_scalar", "float", 256.0)
    assert isinstance(scalar, float)
    return scalar**-0.5 if scalar != settings.number("head_dim") else None


def _pool(settings: Settings) -> int:
    """Patches along a side of the square that becomes a row."""
    grid = settings.number("vision_config.image_size", 224) // settings.number("vision_config.patch_size", 16)
    return grid // math.isqrt(settings.number("mm_tokens_per_image", 256)) or 1


def _check(settings: Settings) -> None:
    if settings.find("use_bidirectional_attention") is True:
        raise ModelError(f"{settings.where}: a model that embeds texts", hint="only models that write are converted")


_DEFAULTS = {
    "vocab_size": 262208, "max_position_embeddings": 131072, "hidden_size": 2304, "intermediate_size": 9216,
    "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
    "sliding_window": 4096,
}  # fmt: skip
_TOWER = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "image_size": 224, "patch_size": 16,
}  # fmt: skip


def _found(file: File) -> Mapping[str, Value]:
    """What files of Ollama's leave out: how far texts are stretched, and of how many patches a row is the mean."""
    found: dict[str, Value] = {}
    if file.get_int("gemma3.context_length") >= 131072 and "gemma3.rope.scaling.type" not in file.metadata:
        found |= {"gemma3.rope.scaling.type": "linear", "gemma3.rope.scaling.factor": 8.0}
    rows = file.get_int("gemma3.mm.tokens_per_image", 0)
    side, patch = (file.get_int(f"clip.vision.{name}", 0) for name in ("image_size", "patch_size"))
    pool = side // patch // math.isqrt(rows) if min(rows, side, patch) > 0 else 0
    return found | ({"clip.vision.projector.scale_factor": pool} if pool else {})


DECODERS = {"gemma3": Gemma3.load}
TEXT_ENCODERS = {"gemma-embedding": partial(Gemma3.load, prefix="gemma-embedding", encodes=True)}
ENCODERS = {"gemma3": Gemma3Vision.load}
DIALECTS = (
    Dialect(
        architecture="gemma3", becomes="gemma3", projector="gemma3", found=_found,
        keys={"rope.global.freq_base": "rope.freq_base"},
        values={**normalisation([0.5] * 3, [0.5] * 3), "clip.use_gelu": True},
        tensors=SIGLIP_WORDS | {"mm_input_projection": "input_projection", "mm_soft_emb_norm": "soft_emb_norm"},
    ),
)  # fmt: skip
_TEXT_RULES = Rules(
    part="text",
    architecture="gemma3",
    classes=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
    types=("gemma3_text",),
    assumed={"hidden_activation": "gelu_pytorch_tanh", "attn_logit_softcapping": 0.0},
    keys=(
        *KEYS,
        Key("{arch}.context_length", "max_position_embeddings"),
        Key("{arch}.rope.freq_base", _whole_base, "float"),
        Key("{arch}.attention.scale", _scale, "float", None),
        Key("{arch}.attention.sliding_window", _window, "int", None),
        Key("{arch}.attention.sliding_window_pattern", _period, "int", None),
        Key("{arch}.attention.sliding_window_pattern", _irregular, "bools", None),
        Key("{arch}.rope.freq_base_swa", _local_base, "float"),
        Key("{arch}.final_logit_softcapping", "final_logit_softcapping", "float", None),
    ),
    tensors=(*tensors(norm=plus_one), *SANDWICH),
    defaults=_DEFAULTS,
    check=_check,
)
_EMBEDDING_RULES = replace(
    _TEXT_RULES,
    architecture="gemma-embedding",
    classes=("Gemma3TextModel",),
    types=(),
    when=lambda config: config.get("use_bidirectional_attention") is True,
    check=lambda settings: None,
)
RULES = (
    _TEXT_RULES,
    _EMBEDDING_RULES,
    Rules(
        part="vision",
        architecture="gemma3",
        classes=("Gemma3ForConditionalGeneration",),
        keys=(
            *projector_keys("gemma3", "gelu_pytorch_tanh"),
            *tower_sizes(_TOWER),
            *normalisation_keys([0.5] * 3, [0.5] * 3),
            Key("clip.vision.projection_dim", "text_config.hidden_size", "int", _DEFAULTS["hidden_size"]),
            Key("clip.vision.attention.layer_norm_epsilon", "vision_config.layer_norm_eps", "float", 1e-6),
            Key("clip.vision.projector.scale_factor", _pool),
        ),
        tensors=(
            *siglip("vision_tower"),
            # Stored as (inputs, outputs): blocks lie across what is summed, and llama.cpp cannot turn them.
            Tensor("multi_modal_projector.mm_input_projection_weight", "mm.input_projection.weight", plain=True),
            Tensor("multi_modal_projector.mm_soft_emb_norm", "mm.soft_emb_norm", plus_one),
        ),
        dropped=("vision_tower.head.*",),
        assumed={
            "preprocessor.resample": 2,
            "preprocessor.do_pan_and_scan": False,
            **{
                f"preprocessor.size.{side}": lambda s: s.number("vision_config.image_size", 224)
                for side in ("height", "width")
            },
        },  # fmt: skip
    ),
)
