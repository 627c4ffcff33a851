"""Which part of a model a file or a tensor is, by the names of GGUF and of transformers; files that are no models."""

from __future__ import annotations

from typing import Final

from opsin.gguf.file import File

PROJECTOR = "clip"  # general.architecture of a file that holds a part for pictures or sound alone
# How names of tensors begin that belong to such a part: in GGUF, by old names too; and in checkpoints, as
# `rules.canonical` writes them.
_GGUF = ("v.", "a.", "mm.", "resampler.", "adapter.", "model.image_newline")
_CHECKPOINT = (
    "vision_tower.", "vision_model.", "visual.", "multi_modal_projector.", "connector.", "image_newline",
    "audio_tower.", "embed_vision.", "vision_embedder.", "embed_audio.", "mlp1.", "mlp_AR.", "vpm.", "resampler.",
    "merger.",
)  # fmt: skip
_ITSELF: Final = "give the model itself"
_WRITES: Final = "give a model that writes"
# Architectures of files that help a model, or do something else than writing.
_DRAFTS: Final = ("eagle3", "dflash", "gemma4-assistant")
_ENCODERS: Final = ("-embedding", "-embed", "encoder")  # their ends; all others are a BERT
_PAINTERS: Final = (
    "flux", "sd1", "sdxl", "sd3", "aura", "hidream", "cosmos", "ltxv", "hyvid", "wan", "lumina2", "qwen_image",
)  # fmt: skip
_SPEAKERS: Final = ("tokenizer-dec", "tts")  # their ends
_RANKS: Final = 4  # in llama.cpp's enum of poolings


def is_projector(name: str) -> bool:
    """Whether a tensor of a GGUF file belongs to a part for pictures or sound."""
    return name.startswith(_GGUF)


def is_checkpoint_media(name: str) -> bool:
    """Whether a tensor of a checkpoint belongs to a part for pictures or sound; `name` is canonical."""
    return name.startswith(_CHECKPOINT)


def find_other(file: File, *, is_known: bool = False) -> tuple[str, str] | None:
    """What a file is that is no model which reads text, as in "it is ...", with a hint. None for all others.

    An mmproj file is a part of one, and no case of this. `is_known`: its architecture is one of a family.
    """
    architecture = _text(file, "general.architecture")
    return _beside(file, architecture) or (None if is_known else _of_another_kind(file, architecture))


def _beside(file: File, architecture: str) -> tuple[str, str] | None:
    """What goes with a model."""
    kind, keys = _text(file, "general.type"), file.metadata

    def says(name: str) -> bool:
        return name in (kind, architecture) or any(key.startswith(f"{name}.") for key in keys)

    if says("adapter"):
        return f"an adapter (LoRA){_made_for(file)}", "merge it into the model that it was made for, and give that"
    if says("imatrix"):
        return "statistics for quantising (imatrix)", f"{_ITSELF}; opsin quantizes without them"
    if says("controlvector"):
        return f"a control vector{_made_for(file)}", _ITSELF
    if not file.tensors and "tokenizer.ggml.tokens" in keys:
        return "a vocabulary alone: it has no tensors", _ITSELF
    heads = keys.get(f"{architecture}.nextn_predict_layers")
    layers = any(name.startswith("blk.0.") for name in file.tensors)
    if architecture in _DRAFTS or (isinstance(heads, int) and heads and file.tensors and not layers):
        return "a draft model (it guesses for another one)", _ITSELF
    return None


def _of_another_kind(file: File, architecture: str) -> tuple[str, str] | None:
    """What writes nothing."""
    if "bert" in architecture or architecture.endswith(_ENCODERS):
        ranks = file.metadata.get(f"{architecture}.pooling_type") == _RANKS
        what = "a model that ranks texts" if ranks else "a model for embeddings of texts"
        return f"{what} ({architecture})", _WRITES
    if architecture in _PAINTERS:
        return f"a model that makes pictures or films ({architecture})", _WRITES
    if architecture.endswith(_SPEAKERS):
        return f"a model that makes sound ({architecture})", _WRITES
    return None


def _made_for(file: File) -> str:
    """The model that a file says it belongs to."""
    name = _text(file, "general.base_model.0.name") or _text(file, "controlvector.model_hint")
    return f" for {name!r:.60}" if name else ""


def _text(file: File, key: str) -> str:
    value = file.metadata.get(key)
    return value if isinstance(value, str) else ""
