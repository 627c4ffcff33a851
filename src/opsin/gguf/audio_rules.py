"""What checkpoints that hear have in common: settings and tensors of an encoder of speech, under GGUF's names.

See `opsin.gguf.rules`.
"""

from __future__ import annotations

from collections.abc import Mapping

from opsin.arrays import Floats
from opsin.gguf.rules import Key, Settings, Tensor, constant

_BLOCK = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out", "self_attn_layer_norm": "ln1", "fc1": "ffn_up", "fc2": "ffn_down",
    "final_layer_norm": "ln2",
}  # fmt: skip


def audio_keys(projector: str, sizes: Mapping[str, tuple[str, int]], *, eps: float = 1e-5) -> tuple[Key, ...]:
    """What a file with a tower for sound says of itself; `sizes` are settings of its audio_config, with defaults.

    `eps` is that of its norms.
    """
    return (
        constant("clip.has_audio_encoder", True, "bool"),
        constant("clip.projector_type", projector, "str"),
        constant("clip.use_gelu", True, "bool"),
        constant("clip.audio.attention.layer_norm_epsilon", eps, "float"),
        *(Key(f"clip.audio.{key}", f"audio_config.{path}", "int", usual) for key, (path, usual) in sizes.items()),
    )


def speech_tower(prefix: str) -> tuple[Tensor, ...]:
    """Tensors of a tower of `nn.hearing`, below a name. Biases of convolutions are columns, as llama.cpp has them."""
    biases = (
        Tensor(f"{prefix}.conv{n}.bias", f"a.conv1d.{n}.bias", _column, lambda shape, _: (*shape, 1)) for n in (1, 2)
    )
    return (
        Tensor(f"{prefix}.conv1.weight", "a.conv1d.1.weight"),
        Tensor(f"{prefix}.conv2.weight", "a.conv1d.2.weight"),
        *biases,
        Tensor(f"{prefix}.embed_positions", "a.position_embd", type="F32"),
        *speech_layers(prefix),
        Tensor(f"{prefix}.layer_norm", "a.post_ln"),
    )


def speech_layers(prefix: str) -> tuple[Tensor, ...]:
    """Tensors of the layers of a tower, below a name."""
    return tuple(Tensor(f"{prefix}.layers.{{n}}.{theirs}", f"a.blk.{{n}}.{ours}") for theirs, ours in _BLOCK.items())


def _column(values: Floats, settings: Settings) -> Floats:
    return values[:, None]
