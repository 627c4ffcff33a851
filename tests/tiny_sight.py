"""Tiny random models that see: a llama and a tower beside it, as llama.cpp's users keep them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tiny import TEMPLATE, tiny_llama

from opsin.gguf import NewTensor, write

SIDE, PATCH, FOLD, WIDTH = 32, 4, 2, 32  # a tile of 16 rows
ROWS = (SIDE // PATCH // FOLD) ** 2
MARKERS = {
    "gemma3": ("<start_of_image>", "<end_of_image>"),
    "idefics3": ("<image>", "<fake_token_around_image>", "<global-img>",
                 *(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5))),
}  # fmt: skip
PARTS_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role + '\n' }}{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{% if part.type == 'image' %}MARKER{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEMPLATES = {"parts": PARTS_TEMPLATE, "text": TEMPLATE}


def tiny_pair(
    folder: Path,
    kind: str = "gemma3",
    *,
    form: str = "parts",
    width: int = 64,
    metadata: Mapping[str, object] | None = None,
) -> tuple[Path, Path]:
    """Write model.gguf and mmproj.gguf. `form` is the template's; `width` and `metadata` are the text model's."""
    template = TEMPLATES[form].replace("MARKER", MARKERS[kind][0])
    text = tiny_llama(
        folder / "model.gguf",
        specials=MARKERS[kind],
        width=width,
        metadata={"tokenizer.chat_template": template, **(metadata or {})},
    )
    return text, tiny_tower(folder / "mmproj.gguf", kind)


def tiny_tower(
    path: Path, kind: str = "gemma3", *, width: int = 64, metadata: Mapping[str, object] | None = None
) -> Path:
    """A mmproj file whose embeddings have `width` values."""
    return write_tower(path, tower_metadata(kind, width) | dict(metadata or {}), tower_tensors(kind, width))


def write_tower(path: Path, metadata: Mapping[str, object], tensors: Mapping[str, np.ndarray]) -> Path:
    write(path, dict(metadata), [NewTensor.of(name, value) for name, value in tensors.items()])
    return path


def tower_metadata(kind: str, width: int = 64) -> dict[str, object]:
    return {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "clip.has_vision_encoder": True,
        "clip.projector_type": kind,
        "clip.use_gelu": True,
        "clip.vision.image_size": SIDE,
        "clip.vision.patch_size": PATCH,
        "clip.vision.embedding_length": WIDTH,
        "clip.vision.feed_forward_length": 48,
        "clip.vision.block_count": 2,
        "clip.vision.attention.head_count": 2,
        "clip.vision.projection_dim": width,
        "clip.vision.attention.layer_norm_epsilon": 1e-6,
        "clip.vision.image_mean": np.float32([0.5] * 3),
        "clip.vision.image_std": np.float32([0.5] * 3),
        "clip.vision.projector.scale_factor": FOLD,
        "clip.vision.preproc_image_size": 4 * SIDE,
    }


def tower_tensors(kind: str, width: int = 64, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)

    def values(*shape: int, gain: float = 1.0) -> np.ndarray:
        return (random.standard_normal(shape) * gain * shape[-1] ** -0.5).astype(np.float32)

    made = {
        "v.patch_embd.weight": values(WIDTH, 3, PATCH, PATCH),
        "v.position_embd.weight": values((SIDE // PATCH) ** 2, WIDTH),
        "v.post_ln.weight": 1 + values(WIDTH),
    }
    for layer in range(2):
        for norm in ("ln1", "ln2"):
            made[f"v.blk.{layer}.{norm}.weight"] = 1 + values(WIDTH)
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            made[f"v.blk.{layer}.{name}.weight"] = values(WIDTH, WIDTH)
        made[f"v.blk.{layer}.ffn_up.weight"] = values(48, WIDTH)
        made[f"v.blk.{layer}.ffn_down.weight"] = values(WIDTH, 48)
    if kind == "gemma3":
        made["mm.soft_emb_norm.weight"] = 1 + values(WIDTH)
        made["mm.input_projection.weight"] = values(WIDTH, width, gain=width**0.5)
    else:
        made["mm.model.fc.weight"] = values(width, WIDTH * FOLD**2, gain=WIDTH**0.5)
    return made
