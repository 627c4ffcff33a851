"""What checkpoints with a tower have in common: settings and tensors of CLIP's and SigLIP's kin, under GGUF's names.

See `opsin.gguf.rules`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf.rules import Change, Key, Settings, Shape, Tensor, constant
from opsin.gguf.value import Value

_GELU = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh")
SIZES = {
    "image_size": "image_size", "patch_size": "patch_size", "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size", "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
}  # fmt: skip
CLIP = (
    [0.48145466, 0.4578275, 0.40821073],
    [0.26862954, 0.26130258, 0.27577711],
)  # its mean and std, for `normalisation_keys`
_BLOCK = {
    "layer_norm1": "ln1", "layer_norm2": "ln2", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.out_proj": "attn_out", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down",
}  # fmt: skip

SIGLIP_WORDS = {
    "patch_embedding": "patch_embd", "position_embedding": "position_embd", "post_layernorm": "post_ln",
    "layer_norm1": "ln1", "layer_norm2": "ln2", "attn_output": "attn_out", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down",
}  # fmt: skip  # for `dialect.Dialect.tensors`: names of Ollama's, and ours


def tower_sizes(defaults: Mapping[str, int], names: Mapping[str, str] = SIZES) -> tuple[Key, ...]:
    """Whole numbers of a tower: settings of its vision_config by the names of keys, with defaults of the settings."""
    return tuple(
        Key(f"clip.vision.{key}", f"vision_config.{path}", "int", defaults[path]) for key, path in names.items()
    )


def normalisation_keys(mean: Sequence[float], std: Sequence[float]) -> tuple[Key, ...]:
    """The numbers that colours are normalised with, and these where nothing is said."""
    return (
        Key("clip.vision.image_mean", "preprocessor.image_mean", "floats", list(mean)),
        Key("clip.vision.image_std", "preprocessor.image_std", "floats", list(std)),
    )


def normalisation(mean: Sequence[float], std: Sequence[float]) -> dict[str, Value]:
    """The same numbers as a file holds them."""
    return {"clip.vision.image_mean": np.array(mean, np.float32), "clip.vision.image_std": np.array(std, np.float32)}


def projector_keys(projector: str, activation: str) -> tuple[Key, ...]:
    """What a file with a tower says of itself; the activation is the one where nothing is said."""
    return (
        constant("clip.has_vision_encoder", True, "bool"),
        constant("clip.projector_type", projector, "str"),
        Key("clip.use_gelu", partial(_activation, _GELU, activation), "bool", None),
        Key("clip.use_silu", partial(_activation, ("silu",), activation), "bool", None),
    )


def _activation(names: Sequence[str], default: str, settings: Settings) -> bool | None:
    told = settings.get("vision_config.hidden_act", "str", default)
    if told not in (*_GELU, "silu", "quick_gelu"):
        raise ModelError(f"{settings.where}: vision_config.hidden_act is {told!r:.40}", hint="it cannot be converted")
    return True if told in names else None


def siglip(prefix: str) -> tuple[Tensor, ...]:
    """Tensors of a tower of CLIP's or SigLIP's kind, below a name."""
    ends = {
        "embeddings.patch_embedding": "v.patch_embd", "pre_layrnorm": "v.pre_ln", "post_layernorm": "v.post_ln",
    }  # fmt: skip
    return (
        Tensor(f"{prefix}.embeddings.position_embedding", "v.position_embd", type="F32"),
        Tensor(f"{prefix}.embeddings.class_embedding", "v.class_embd"),
        *(Tensor(f"{prefix}.{theirs}", ours) for theirs, ours in ends.items()),
        *blocks(f"{prefix}.encoder.layers", _BLOCK),
    )


def blocks(prefix: str, names: Mapping[str, str], changes: Mapping[str, Change] | None = None) -> tuple[Tensor, ...]:
    """Tensors of a tower's layers, numbered below a name: their names there and here; some are changed, by our name."""
    changes = changes or {}
    return tuple(
        Tensor(f"{prefix}.{{n}}.{theirs}", f"v.blk.{{n}}.{ours}", changes.get(ours)) for theirs, ours in names.items()
    )


def expect(settings: Settings, told: Mapping[str, object]) -> None:
    """Raises ModelError where a setting is another one than a file can say; those that are silent pass."""
    for paths, known in told.items():
        value = settings.find(paths)
        if value is not None and value != known:
            where = f"{settings.where}: {paths.split('|')[0]}"
            raise ModelError(f"{where} is {value!r:.40}", hint=f"only {known!r} can be converted")


def feature_states(settings: Settings, default: int) -> list[int]:
    """The states that a projector gets, of `vision_feature_layer`, counted from the first layer's input.

    Raises ModelError for others than there are.
    """
    told, layers = settings.find("vision_feature_layer"), settings.number("vision_config.num_hidden_layers", 12)
    listed = told if isinstance(told, list) else [default if told is None else told]
    numbers = [number for number in listed if isinstance(number, int) and number and -layers <= number <= layers]
    if not listed or len(numbers) < len(listed):
        raise ModelError(f"{settings.where}: vision_feature_layer is {told!r:.40}, of {layers} layers")
    return [number if number > 0 else layers + 1 + number for number in numbers]


def part(first: int, of: int) -> Change:
    """One of equal parts of a matrix's rows."""

    def change(values: Floats, settings: Settings) -> Floats:
        rows = len(values) // of
        return values[first * rows : (first + 1) * rows]

    return change


def part_shape(of: int) -> Callable[[Shape, Settings], Shape]:
    """The shape of such a part."""
    return lambda shape, _: (shape[0] // of, *shape[1:])


def by_channel(values: Floats, settings: Settings) -> Floats:
    """A patch's numbers, stored row by row with the colours of a pixel together, colour by colour."""
    side = math.isqrt(values.shape[1] // 3)
    return np.ascontiguousarray(values.reshape(len(values), side, side, 3).transpose(0, 3, 1, 2))


def by_channel_shape(shape: Shape, settings: Settings) -> Shape:
    side = math.isqrt(shape[1] // 3)
    return shape[0], 3, side, side
