"""Words merged together, as rows of a matrix, become what each becomes alone."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import corpus
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsin.gguf import File
from opsin.text import Tokenizer, joints, merging, words
from opsin.text.sentencepiece import SentencePiece
from opsin.text.vocabulary import Vocabulary

TEXTS = [*islice(corpus.Corpus(11).strings(), 300), *islice(corpus.Corpus(12).broken(), 100)]
RUNS = [unit * count for unit in ("a", "=", " ", "ha", "aab", "的", "\n", "- ") for count in (2, 3, 5, 7, 16, 23)]
NAMES = ("llama-spm", "gemma-4", "gpt-2", "llama-bpe", "falcon", "deepseek-llm", "baichuan")


def load(folder: Path, name: str, patience: int) -> Tokenizer:
    """A tokenizer that merges together at once, or never."""
    with pytest.MonkeyPatch.context() as patch, File.open(folder / f"ggml-vocab-{name}.gguf") as file:
        patch.setattr(merging, "PATIENCE", patience)
        patch.setattr(joints, "PATIENCE", patience)
        return Tokenizer.from_metadata(file.metadata)


@pytest.mark.parametrize("name", NAMES)
def test_many_words_give_the_ids_that_each_gives(sources: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "FEWEST", 1)
    together, alone = load(sources, name, 0), load(sources, name, 1 << 40)
    for text in [*TEXTS, *RUNS, "\n".join(TEXTS)]:
        assert together.encode(text) == alone.encode(text), text


@settings(deadline=None, max_examples=200)
@given(
    scores=st.dictionaries(st.text("ab.▁", min_size=1, max_size=5), st.integers(0, 4).map(float), min_size=1),
    some=st.lists(st.text("ab.▁\U00020001", min_size=1, max_size=20), min_size=1),
)
def test_equal_scores_merge_from_the_left(scores: dict[str, float], some: list[str]) -> None:
    metadata = {"tokenizer.ggml.tokens": ["<unk>", *scores], "tokenizer.ggml.scores": [0.0, *scores.values()]}
    encoder = SentencePiece(Vocabulary(metadata, {"unknown": 0}), space_prefix=False)
    merged = encoder._build_merges().merge(*encoder._read_symbols(some))
    symbols = [*scores]
    shown = [[chr(id - len(metadata["tokenizer.ggml.tokens"])) if id > len(symbols) else symbols[id - 1] for id in ids]
             for ids in merged]  # fmt: skip
    assert shown == [encoder._merge_short(word) for word in some]
