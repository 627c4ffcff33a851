"""Tiny random models that hear, and perhaps see: a llama and an mmproj file beside it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile
from tiny import tiny_llama
from tiny_sight import MARKERS, TEMPLATES, tower_metadata, tower_tensors, write_tower

BANDS, STATES, WIDTH, HEADS, FFN, LAYERS, STACKED = 16, 24, 32, 2, 48, 2, 4
WINDOW = 2 * STATES / 100  # seconds that are heard at once
SECOND = 13  # tokens of a second of sound: three windows, of 6, 6 and 1
MARKER = "<|audio|>"
_BOTH = "{% if part.type == 'audio' %}<|audio|>{% elif part.type == 'image' %}"


def tiny_hearing(
    folder: Path, *, form: str = "parts", sees: bool = False, context: int = 2048, specials: tuple[str, ...] = ()
) -> Path:
    """Write model.gguf and mmproj.gguf; the path of the former. `form` is the template's."""
    template = TEMPLATES[form].replace("{% if part.type == 'image' %}", _BOTH).replace("MARKER", MARKERS["gemma3"][0])
    keys = {"tokenizer.chat_template": template}
    text = tiny_llama(folder / "model.gguf", specials=(*MARKERS["gemma3"], *specials), context=context, metadata=keys)
    metadata, tensors = hearing_metadata(), hearing_tensors()
    if sees:
        metadata |= {**tower_metadata("gemma3"), "clip.vision.projector_type": "gemma3"}
        del metadata["clip.projector_type"]
        tensors |= tower_tensors("gemma3", 64)
    write_tower(folder / "mmproj.gguf", metadata, tensors)
    return text


def hearing_metadata(width: int = 64) -> dict[str, object]:
    sizes = {
        "embedding_length": WIDTH, "feed_forward_length": FFN, "block_count": LAYERS, "attention.head_count": HEADS,
        "attention.layer_norm_epsilon": 1e-5, "num_mel_bins": BANDS, "projection_dim": width,
        "projector.stack_factor": STACKED,
    }  # fmt: skip
    return {
        "general.architecture": "clip", "clip.has_audio_encoder": True, "clip.audio.projector_type": "ultravox",
        **{f"clip.audio.{name}": value for name, value in sizes.items()},
    }  # fmt: skip


def hearing_tensors(width: int = 64) -> dict[str, np.ndarray]:
    shapes = {
        "a.conv1d.1.weight": (WIDTH, BANDS, 3), "a.conv1d.1.bias": (WIDTH, 1), "a.conv1d.2.weight": (WIDTH, WIDTH, 3),
        "a.conv1d.2.bias": (WIDTH, 1), "a.position_embd.weight": (STATES, WIDTH), "a.post_ln.weight": (WIDTH,),
        "a.post_ln.bias": (WIDTH,), "mm.a.norm_pre.weight": (WIDTH * STACKED,),
        "mm.a.mlp.1.weight": (64, WIDTH * STACKED),
        "mm.a.norm_mid.weight": (32,), "mm.a.mlp.2.weight": (width, 32),
    }  # fmt: skip
    parts = {"attn_q": (WIDTH, WIDTH), "attn_k": (WIDTH, WIDTH), "attn_v": (WIDTH, WIDTH), "attn_out": (WIDTH, WIDTH),
             "ffn_up": (FFN, WIDTH), "ffn_down": (WIDTH, FFN), "ln1": (WIDTH,), "ln2": (WIDTH,)}  # fmt: skip
    for layer in range(LAYERS):
        for part, shape in parts.items():
            shapes |= {f"a.blk.{layer}.{part}.weight": shape, f"a.blk.{layer}.{part}.bias": shape[:1]}
    random = np.random.default_rng(0)

    def made(name: str, shape: tuple[int, ...]) -> np.ndarray:
        scale = 1.5 * np.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.2
        is_norm = name.endswith("weight") and len(shape) == 1
        return (random.normal(0, scale, shape) + is_norm).astype(np.float32)

    return {name: made(name, shape) for name, shape in shapes.items()}


def recording(seconds: float = 1.0, seed: int = 0, kind: str = "WAV", rate: int = 16_000) -> bytes:
    """A file of noise and tones."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    samples = 0.3 * np.sin(2 * np.pi * random.uniform(100, 2000) * time) + 0.1 * random.standard_normal(len(time))
    file = io.BytesIO()
    soundfile.write(file, samples.astype(np.float32), rate, format=kind)
    return file.getvalue()
