"""Which part of a model a file or a tensor is, by the names of GGUF and of transformers."""

from __future__ import annotations

PROJECTOR = "clip"  # general.architecture of a file that holds a part for pictures or sound alone
# How names of tensors begin that belong to such a part: in GGUF, by old names too; and in checkpoints, as
# `rules.canonical` writes them.
_GGUF = ("v.", "a.", "mm.", "resampler.", "adapter.", "model.image_newline")
_CHECKPOINT = (
    "vision_tower.", "vision_model.", "visual.", "multi_modal_projector.", "connector.", "image_newline",
    "audio_tower.", "embed_vision.", "embed_audio.",
)  # fmt: skip


def is_projector(name: str) -> bool:
    """Whether a tensor of a GGUF file belongs to a part for pictures or sound."""
    return name.startswith(_GGUF)


def is_checkpoint_media(name: str) -> bool:
    """Whether a tensor of a checkpoint belongs to a part for pictures or sound; `name` is canonical."""
    return name.startswith(_CHECKPOINT)
