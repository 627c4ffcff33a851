"""Qwen3-Reranker: a decoder whose odds of yes and no at the end of a prompt are the score of a pair.

Nothing in its config.json says so: its name does, or what sentence-transformers writes beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from opsin.convert.checkpoint import Checkpoint, read_list
from opsin.errors import FileError
from opsin.gguf import NewTensor, Typed, ValueType
from opsin.gguf.writer import Writable

_NAME, _README_BYTES = "qwen3-reranker", 1 << 16
_RANKS = 4  # llama.cpp's number of a pooling
_LABELS = ("yes", "no")
# What it was trained with.
_TEMPLATE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n<Instruct>: Given a web '
    "search query, retrieve relevant passages that answer the query\n<Query>: {query}\n<Document>: {document}"
    "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)


def ranking_part(
    checkpoint: Checkpoint, architecture: str, texts: Sequence[str]
) -> tuple[dict[str, Writable], list[NewTensor]]:
    """Keys and the head of a Qwen3-Reranker; nothing for other checkpoints. `texts` are those of its tokens.

    Raises FileError where there is no token for yes or no.
    """
    if architecture not in ("qwen3", "qwen3vl") or not _is_ranker(checkpoint.path):
        return {}, []
    keys: dict[str, Writable] = {
        f"{architecture}.pooling_type": Typed(ValueType.UINT32, _RANKS),
        "tokenizer.chat_template.rerank": _TEMPLATE,
    }
    if "score.weight" in checkpoint.names:  # its head was cut out already
        return keys, []
    missing = [label for label in _LABELS if label not in texts]
    if missing:
        raise FileError(f"{checkpoint.path} has no token {missing[0]!r}", hint="a model that ranks has yes and no")
    table = "lm_head.weight" if "lm_head.weight" in checkpoint.names else "embed_tokens.weight"
    rows = [checkpoint.read(table, at, at + 1) for at in (texts.index(label) for label in _LABELS)]
    keys[f"{architecture}.classifier.output_labels"] = Typed(ValueType.STRING, [*_LABELS])
    return keys, [NewTensor.of("cls.output.weight", np.concatenate(rows).astype(np.float32))]


def _is_ranker(folder: Path) -> bool:
    if _NAME in folder.resolve().name.lower():
        return True
    kinds = [str(module.get("type", "")) for module in read_list(folder / "modules.json") if isinstance(module, dict)]
    if any(kind.endswith(".LogitScore") for kind in kinds):
        return True
    readme = folder / "README.md"
    if not readme.is_file():
        return False
    with readme.open("rb") as file:
        said = file.read(_README_BYTES).decode("utf-8", "replace").lower()
    return any(line.startswith("#") and _NAME in line for line in said.splitlines())
