"""What the tests of families that hear share: random towers, their files, sounds of awkward lengths."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel, WhisperFeatureExtractor
from transformers.models.whisper.configuration_whisper import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from opsin.gguf import NewTensor, write
from opsin.media import htk_mel, mel
from opsin.media.sound import RATE, Waveform

Floats = NDArray[np.float32]
WIDTH, HEADS, FFN, BANDS, ROWS, LAYERS, TEXT_WIDTH = 48, 4, 80, 20, 24, 3, 64
WINDOW = 2 * ROWS  # frames that are heard at once, of 10 ms
# Seconds of sounds: one sample, hardly anything, odd numbers of frames, a window, more, and several windows.
TEXT = {
    "vocab_size": 300, "hidden_size": TEXT_WIDTH, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512,
    "pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
SECONDS = (1 / RATE, 0.01, 0.0321, 0.131, 0.25, 0.4, 0.48, 0.481, 0.5, 0.73, 1.0, 1.4567)
TOWER = (
    (r"conv(\d)", r"a.conv1d.\1"),
    (r"embed_positions", "a.position_embd"),
    (r"layer_norm", "a.post_ln"),
    (r"layers\.(\d+)\.self_attn_layer_norm", r"a.blk.\1.ln1"),
    (r"layers\.(\d+)\.final_layer_norm", r"a.blk.\1.ln2"),
    (r"layers\.(\d+)\.self_attn\.out_proj", r"a.blk.\1.attn_out"),
    (r"layers\.(\d+)\.self_attn\.(.)_proj", r"a.blk.\1.attn_\2"),
    (r"layers\.(\d+)\.fc1", r"a.blk.\1.ffn_up"),
    (r"layers\.(\d+)\.fc2", r"a.blk.\1.ffn_down"),
)


Mistake = tuple[object, str, Callable[[Any], Any]]


def another_scale(right: object) -> Callable[[int], Floats]:
    """HTK's in place of Slaney's."""

    def filters(bands: int) -> Floats:
        made = htk_mel.htk_filters(bands)
        return np.stack([np.interp(np.linspace(0, 256, 201), np.arange(257), band) for band in made.T], 1)

    return filters


@dataclass(frozen=True)
class SoundTruth:
    """What others say of a family that hears, on a tiny random model.

    Attributes:
        projector: the name that files give its tower.
        make: the model, with weights whose mistakes show.
        embed: (model, samples) -> the embeddings [rows, width] of a sound.
        write: (path, model, **options) -> the file of its tower, written by hand.
        marker: what its template writes for a sound, and
        around: the strings before and behind its rows.
        norms: two tensors of one shape that must not be swapped, where there are two.
        whole: the model with its text part, where transformers has one, and
        logits: (model, ids, samples) -> its logits [rows, vocabulary].
        seconds: of sounds whose embeddings are compared.
        scale: who has the bands that it hears, under which name, and what gives those of another scale. None where it
            hears samples, without a tower.
        tokens: special ones that its tower for pictures writes.
        mistakes: of its own, each to be seen on the last of `seconds`: as `scale` has it.
    """

    projector: str
    make: Callable[[], nn.Module]
    embed: Callable[[nn.Module, Floats], Floats]
    write: Callable[..., Path]
    marker: str
    norms: tuple[str, str] | None
    around: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    whole: Callable[[], PreTrainedModel] | None = None
    logits: Callable[..., Floats] | None = None
    seconds: tuple[float, ...] = SECONDS
    scale: Mistake | None = (mel, "mel_filters", another_scale)
    mistakes: Mapping[str, Mistake] = field(default_factory=dict)
    tokens: tuple[str, ...] = ()


def sound(seconds: float, seed: int = 0) -> Waveform:
    """Speech-like noise: loud and soft parts, over all pitches. Equal seeds begin alike."""
    random = np.random.default_rng(seed)
    count = max(1, round(seconds * RATE))
    time = np.arange(count) / RATE
    loud = 0.1 + 0.3 * np.sin(2 * np.pi * 3.1 * time) ** 2
    tones = sum(np.sin(2 * np.pi * hertz * time + phase) for hertz, phase in random.uniform(80, 3000, (4, 2)))
    samples = (loud * (0.2 * tones + 0.3 * random.standard_normal(count))).astype(np.float32)
    return Waveform(samples, RATE, bytes([seed]) + count.to_bytes(15, "little"))


def whisper_encoder(**changes: object) -> WhisperEncoder:
    """transformers' encoder, random."""
    settings = {
        "d_model": WIDTH, "num_mel_bins": BANDS, "max_source_positions": ROWS, "encoder_layers": LAYERS,
        "encoder_attention_heads": HEADS, "encoder_ffn_dim": FFN, "dropout": 0.0, "attn_implementation": "eager",
    }  # fmt: skip
    return WhisperEncoder(WhisperConfig(**{**settings, **changes}))


def enliven(model: nn.Module, seed: int = 0, peak: float = 3.0) -> None:
    """Random weights: attention is peaked, and norms and biases do something."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, values in model.named_parameters():
            noise = torch.randn(values.shape, generator=random)
            if "norm" in name or re.search(r"\bln_", name):
                values.copy_(noise * 0.3 + (0.0 if name.endswith("bias") else 1.0))
            elif values.ndim == 1:
                values.copy_(noise * 0.2)
            else:
                gain = peak**0.5 if re.search(r"\b[qk]_proj", name) else 1.0
                fan = values.shape[-1] if "embed_" in name else math.prod(values.shape[1:])
                values.copy_(noise * gain * fan**-0.5)


def states(encoder: WhisperEncoder, mel: torch.Tensor, valid: int | None = None) -> torch.Tensor:
    """Rows [rows, width] of frames [bands, frames], of which the first `valid` rows are seen by others.

    As transformers' own forward, but of any length.
    """
    x = torch.nn.functional.gelu(encoder.conv1(mel[None]))
    x = torch.nn.functional.gelu(encoder.conv2(x)).permute(0, 2, 1)
    x = x + encoder.embed_positions.weight[: x.shape[1]]
    mask = torch.zeros(1, 1, x.shape[1], x.shape[1])
    if valid is not None:
        mask[..., valid:] = torch.finfo(torch.float32).min
    for layer in encoder.layers:
        made = layer(x, mask)
        x = made[0] if isinstance(made, tuple) else made
    return encoder.layer_norm(x)[0]


def extractor(bands: int = BANDS, seconds: int = 30) -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=bands, chunk_length=seconds)


def tower_keys(projector: str, projection: int, **more: object) -> dict[str, object]:
    """What llama.cpp's converter says of a tower of Whisper's kind."""
    sizes = {
        "embedding_length": WIDTH, "feed_forward_length": FFN, "block_count": LAYERS, "attention.head_count": HEADS,
        "attention.layer_norm_epsilon": 1e-5, "num_mel_bins": BANDS, "projection_dim": projection, **more,
    }  # fmt: skip
    return {
        "general.architecture": "clip", "general.type": "mmproj", "clip.has_audio_encoder": True,
        "clip.projector_type": projector, "clip.use_gelu": True,
        **{f"clip.audio.{name}": value for name, value in sizes.items()},
    }  # fmt: skip


def write_mmproj(
    path: Path, keys: Mapping[str, object], model: nn.Module, names: Sequence[tuple[str, str]], *, half: bool = False,
    swap: tuple[str, str] | None = None, more: Mapping[str, Floats] | None = None,
    change: Callable[[str, Floats], Floats] = lambda name, values: values,
) -> Path:  # fmt: skip
    """The tensors that names are given for, in float32, or matrices in f16, and more. `swap`: two change places.

    `change` has the last word on each.
    """
    written = dict(more or {})
    for name, tensor in model.state_dict().items():
        for pattern, new in names:
            found = re.fullmatch(rf"{pattern}((?:\.weight|\.bias)?)", name)
            if found:
                target = found.expand(new) + found.group(found.re.groups)
                values = tensor.float().numpy()
                axes = re.fullmatch(r"a\.conv(\d)d\.\d\.bias", target)
                written[target] = values.reshape(-1, *[1] * int(axes[1])) if axes else change(target, values)
    if swap is not None:
        one, other = swap
        written[one], written[other] = written[other], written[one]
    tensors = [
        NewTensor.of(name, values.astype(np.float16 if half and values.ndim > 1 and "embd" not in name else np.float32))
        for name, values in written.items()
    ]
    write(path, keys, tensors)
    return path
