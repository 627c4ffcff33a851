"""Every difference from llama.cpp has a known cause, shown by Hugging Face's pipeline.

Unchanged, the pipeline gives our ids; changed as the cause says, it gives llama.cpp's.
"""

from __future__ import annotations

import importlib.util
from itertools import islice
from pathlib import Path

import corpus
import departures
import pytest
from departures import Published, published

from opsin.gguf import File
from opsin.text import Tokenizer

NAMES = ("bert-bge", "deepseek-llm", "nomic-bert-moe", "gpt-2", "llama-spm")
SOUND, DAMAGED = 1600, 400
# A text, and what llama.cpp b11434 makes of it.
EXAMPLES = (
    ("bert-bge", departures.FIRST, "었", [1463]),
    ("bert-bge", departures.MARKS, "1️⃣", [1015]),
    ("deepseek-llm", departures.IDEOGRAPHIC, "  \u3000", [243, 88946]),
)


def load(folder: Path, name: str) -> tuple[Tokenizer, Published]:
    with File.open(folder / f"ggml-vocab-{name}.gguf") as file:
        metadata = dict(file.metadata)
    tokenizer = Tokenizer.from_metadata(metadata)
    return tokenizer, published(metadata, tokenizer.encode)


@pytest.fixture(scope="session")
def library() -> Path:
    spec = importlib.util.find_spec("xllamacpp")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    return next(folder.glob("xllamacpp*.so"), None) or pytest.skip("xllamacpp is not installed")


@pytest.mark.parametrize(("name", "cause", "text", "theirs"), EXAMPLES)
def test_a_cause_alone_makes_the_published_ids_those_of_llama_cpp(
    sources: Path, name: str, cause: str, text: str, theirs: list[int]
) -> None:
    tokenizer, source = load(sources, name)
    assert source.read(text, frozenset()) == tokenizer.encode(text) != theirs
    assert source.read(text, frozenset([cause])) == theirs
    assert source.explain(text, theirs) == (cause,)


def test_ids_that_no_cause_explains_are_not_explained(sources: Path) -> None:
    _, source = load(sources, "bert-bge")
    assert source.explain("었", [1463, 1463]) is None
    assert source.explain("었", source.read("었", frozenset())) == ()


@pytest.mark.parametrize("name", NAMES)
def test_every_difference_from_llama_cpp_has_a_known_cause(sources: Path, library: Path, name: str) -> None:
    tokenizer, source = load(sources, name)
    generated = corpus.Corpus(5)
    texts = [*islice(generated.strings(), SOUND), *islice(generated.broken(), DAMAGED)]
    oracle = corpus.Oracle(library, sources / f"ggml-vocab-{name}.gguf")
    causes = corpus.count_causes(tokenizer, oracle, source, texts, shown=3)
    assert causes["differ"] > 0
    assert not causes["UNKNOWN"]
    wrong = [text for text in texts if tokenizer.encode(text) != source.read(text, frozenset())]
    assert not wrong, wrong[:3]
