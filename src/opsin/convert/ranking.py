"""Decoders whose odds of two tokens at the end of a prompt are the score of a pair (`Judge`).

Nothing in their config.json says so: their name does, or what sentence-transformers writes beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from opsin.convert.checkpoint import Checkpoint, read_list
from opsin.convert.pooling import PoolingPart
from opsin.errors import FileError
from opsin.gguf import NewTensor, Typed, ValueType
from opsin.gguf.rules import Rules
from opsin.gguf.writer import Writable

_README_BYTES = 1 << 16
_RANKS = 4  # llama.cpp's number of a pooling


def ranking_part(checkpoint: Checkpoint, rules: Rules, vocabulary: Mapping[str, Writable]) -> PoolingPart | None:
    """Keys and the head of such a checkpoint; None for others. `vocabulary`: the keys of its tokenizer.

    Raises FileError where one of the two tokens is not there.
    """
    judge = rules.judge
    if judge is None or not _ranks(checkpoint.path, judge.name):
        return None
    keys: dict[str, Writable] = {
        f"{rules.architecture}.pooling_type": Typed(ValueType.UINT32, _RANKS),
        "tokenizer.chat_template.rerank": judge.template,
    }
    if "score.weight" in checkpoint.names:  # its head was cut out already
        return PoolingPart(keys)
    tokens = vocabulary.get("tokenizer.ggml.tokens")
    texts = cast(Sequence[str], tokens.value) if isinstance(tokens, Typed) else ()
    missing = [label for label in judge.labels if label not in texts]
    if missing:
        raise FileError(f"{checkpoint.path} has no token {missing[0]!r}", hint="the model that ranks has one")
    table = "lm_head.weight" if "lm_head.weight" in checkpoint.names else "embed_tokens.weight"
    rows = [checkpoint.read(table, at, at + 1) for at in (texts.index(label) for label in judge.labels)]
    keys[f"{rules.architecture}.classifier.output_labels"] = Typed(ValueType.STRING, [*judge.labels])
    return PoolingPart(keys, [NewTensor.of("cls.output.weight", np.concatenate(rows).astype(np.float32))])


def _ranks(folder: Path, name: str) -> bool:
    if name in folder.resolve().name.lower():
        return True
    kinds = [str(module.get("type", "")) for module in read_list(folder / "modules.json") if isinstance(module, dict)]
    if any(kind.endswith(".LogitScore") for kind in kinds):
        return True
    readme = folder / "README.md"
    if not readme.is_file():
        return False
    with readme.open("rb") as file:
        said = file.read(_README_BYTES).decode("utf-8", "replace").lower()
    return any(line.startswith("#") and name in line for line in said.splitlines())
