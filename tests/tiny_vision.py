"""A tiny projector file with random weights: Gemma 3's kind of tower, as its mmproj files have it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from opsin.gguf import NewTensor, write


def tiny_projector(
    path: Path, *, makes: int = 64, width: int = 32, layers: int = 2, side: int = 32, patch: int = 4, **keys: object
) -> Path:
    """Write it. `makes` is the width of its embeddings; `keys` are of `clip.vision`."""
    random = np.random.default_rng(7)
    shapes: dict[str, tuple[int, ...]] = {
        "v.patch_embd.weight": (width, 3, patch, patch), "v.patch_embd.bias": (width,),
        "v.position_embd.weight": ((side // patch) ** 2, width), "v.post_ln.weight": (width,),
        "v.post_ln.bias": (width,), "mm.soft_emb_norm.weight": (width,), "mm.input_projection.weight": (width, makes),
    }  # fmt: skip
    for layer in range(layers):
        matrices = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_out"), (width, width))
        matrices |= {"ffn_up": (2 * width, width), "ffn_down": (width, 2 * width)}
        for name, shape in matrices.items():
            shapes |= {f"v.blk.{layer}.{name}.weight": shape, f"v.blk.{layer}.{name}.bias": shape[:1]}
        for name in ("ln1", "ln2"):
            shapes |= {f"v.blk.{layer}.{name}.{end}": (width,) for end in ("weight", "bias")}
    numbers = {
        "image_size": side, "patch_size": patch, "embedding_length": width, "feed_forward_length": 2 * width,
        "block_count": layers, "projection_dim": makes, "attention.head_count": 4,
        "attention.layer_norm_epsilon": 1e-6, "image_mean": np.full(3, 0.5, np.float32),
        "image_std": np.full(3, 0.5, np.float32), **keys,
    }  # fmt: skip
    metadata = {
        "general.architecture": "clip", "general.type": "mmproj", "general.name": "eyes", "clip.use_gelu": True,
        "clip.has_vision_encoder": True, "clip.projector_type": "gemma3",
        **{f"clip.vision.{key}": value for key, value in numbers.items()},
    }  # fmt: skip
    tensors = [
        NewTensor.of(name, random.standard_normal(shape).astype(np.float16 if len(shape) == 2 else np.float32))
        for name, shape in shapes.items()
    ]
    write(path, metadata, tensors)
    return path
