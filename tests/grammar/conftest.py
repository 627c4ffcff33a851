"""A vocabulary of every kind that we read, and grammars for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from opsin.gguf import File
from opsin.grammar import Grammars
from opsin.hub.bundled import bundled
from opsin.text import Tokenizer

OURS = [
    "llama-bpe",
    "llama-spm",
    "phi-3",
    "gemma-4",
    "bert-bge",
    "nomic-bert-moe",
    "qwen35",
    "deepseek-llm",
    "command-r",
]


def vocabulary(path: Path) -> Tokenizer:
    with File.open(path) as file:
        return Tokenizer.from_metadata(file.metadata)


@pytest.fixture(scope="module", params=OURS)
def published(request, sources):
    """Grammars for a vocabulary of llama.cpp's sources."""
    tokenizer = vocabulary(sources / f"ggml-vocab-{request.param}.gguf")
    return Grammars(tokenizer, tokenizer.vocabulary_size + 37)


@pytest.fixture(scope="session")
def nano():
    """Grammars for the bundled model's vocabulary."""
    tokenizer = vocabulary(bundled())
    return Grammars(tokenizer, tokenizer.vocabulary_size)


@pytest.fixture(scope="session")
def smol(smollm2):
    """Grammars for SmolLM2's."""
    tokenizer = vocabulary(smollm2)
    return Grammars(tokenizer, tokenizer.vocabulary_size)
