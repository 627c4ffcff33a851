"""The tokenizer of a checkpoint as GGUF's keys: from tokenizer.json, or tokenizer.model of SentencePiece."""

from __future__ import annotations

from pathlib import Path

from opsin.gguf.writer import Writable


def vocabulary_keys(folder: Path, rows: int) -> dict[str, Writable]:
    """`tokenizer.*` for a model with embeddings of `rows` tokens. Raises FileError or ModelError."""
    return {}
