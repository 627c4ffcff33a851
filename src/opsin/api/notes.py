"""What a person should know of a text model's file: what it lacks, and what it asks for that is not built."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from opsin.api.facts import SAMPLING_KEYS, read_sequence
from opsin.errors import OpsinError
from opsin.gguf import File, Value
from opsin.text import ChatTemplate, Tokenizer

_SAMPLING = "general.sampling."
_NEUTRAL = {"tfs_z": 1.0}  # what changes nothing, of the sampling options that are not built
# Keys of an architecture that say nothing which the tensors or the other keys do not say.
_KNOWN = (
    "vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length", "tensor_data_layout",
    "rope.dimension_count", "rope.scaling.finetuned", "attention.key_length", "attention.value_length",
    "attention.causal", "attention.layer_norm_epsilon", "pooling_type", "alignment_heads",
)  # fmt: skip
_PROBE = "needle in a haystack"
_MOST = 16  # notes of one kind: a hostile file has thousands of keys
_STRUCTURE = re.compile(r"<\|[^\s<>|]{1,40}\|>|<｜[^\s<>｜]{1,40}｜>|<(?:start|end)_of_turn>")


def find_notes(
    file: File, tokenizer: Tokenizer, template: ChatTemplate | None, *, hears: bool = False
) -> Iterator[str]:
    """One line each. Call it when the model was read: keys that nobody asked for are told.

    `hears`: it writes down what was said, and talks to nobody.
    """
    yield from tokenizer.notes
    if template is not None:
        yield from _strange_tokens(tokenizer, template)
    elif not hears:
        yield (
            "the file has no chat template: messages are joined by line ends, without roles (a foreign template, "
            "as llama-server's chatml, may write tokens that this model does not know)"
        )
    for notes in (list(_sampling(file)), list(_unread(file))):
        yield from notes[:_MOST]
        if len(notes) > _MOST:
            yield f"... and {len(notes) - _MOST} more keys that are not built"


def _strange_tokens(tokenizer: Tokenizer, template: ChatTemplate) -> Iterator[str]:
    """What the template writes around messages as if it were a token, and is none."""
    try:
        text = template.render([{"role": "user", "content": _PROBE}])
    except OpsinError as error:
        yield f"a question alone makes the chat template fail: {error.message}"
        return
    if _PROBE not in text:
        yield "the chat template leaves out what a user says"
    strange = [
        found for found in dict.fromkeys(_STRUCTURE.findall(text)) if len(tokenizer.encode(found, special=True)) > 1
    ]
    if strange:
        yield (
            f"the chat template writes {', '.join(map(repr, strange[:4]))}, which the vocabulary does not have "
            "as a token: the model reads it as ordinary text"
        )


def _sampling(file: File) -> Iterator[str]:
    """Recommended sampling options that are not built."""
    for key, value in file.metadata.items():
        name = key.removeprefix(_SAMPLING)
        if name == "sequence" and isinstance(value, str):
            strange = read_sequence(value)[1]
            if strange:
                yield f"{key} names {', '.join(map(repr, strange))}: no sampler is called so, and the others act"
        elif name != key and name not in (*SAMPLING_KEYS, "top_k") and not _is_neutral(value, _NEUTRAL.get(name, 0)):
            yield f"{key} is {_show(value)}, which is not built: answers are drawn without it"


def _is_neutral(value: Value, neutral: float | None) -> bool:
    if isinstance(value, np.ndarray) or not isinstance(value, str | int | float):
        return False
    return neutral is None or value == neutral or value in (0, "")


def _unread(file: File) -> Iterator[str]:
    """Keys of the architecture that no part of the model asked for, and that are not known to be harmless."""
    prefix = file.get_str("general.architecture") + "."
    for key, value in file.metadata.items():
        name = key.removeprefix(prefix)
        if name == key or key in file.asked or name in _KNOWN or name.startswith("vision."):
            continue
        if not isinstance(value, str | int | float) or value:
            yield f"{key} is {_show(value)}, which is not built: the model computes as if it were not there"


def _show(value: Value) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.tolist()}" if value.size <= 8 else f"{value.size} values"
    return f"{value!r:.60}" if isinstance(value, str | int | float) else f"{len(value)} texts"
