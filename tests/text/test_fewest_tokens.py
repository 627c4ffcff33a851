"""What a text's length tells of its tokens is never more than they are."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import corpus
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsin.gguf import File
from opsin.text import Tokenizer

KEY = "tokenizer.ggml."
TEXTS = [
    *islice(corpus.Corpus(11).strings(), 300), *islice(corpus.Corpus(12).broken(), 100),
    *(unit * 500 for unit in ("a", " ", "\n", "=", "的", "é", "\v", "0", "ab ", "\U00020001", "<|im_end|>", "\ufdd0")),
    *("\ufdd1" + "\ufdef" * 6 + "a", "\ufdd0\ufdd1\ufde0", "<|end|>" + " \n" * 300 + "<|end|>"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "tells"),
    [
        ("gpt-2", True), ("falcon", True), ("llama-bpe", True), ("gemma-4", True), ("llama-spm", True),
        ("phi-3", True), ("command-r", True), ("bert-bge", False), ("nomic-bert-moe", False),
    ],
)  # fmt: skip
def test_no_text_has_fewer_tokens(sources: Path, name: str, tells: bool) -> None:
    with File.open(sources / f"ggml-vocab-{name}.gguf") as file:
        made = Tokenizer.from_metadata(file.metadata)
    for text in [*TEXTS, "".join(TEXTS)]:
        for special in (False, True):
            assert made.fewest_tokens(text, special=special) <= len(made.encode(text, special=special)), text[:100]
    assert (made.fewest_tokens("a b" * 100_000) > 100) == tells
    assert made.fewest_tokens("") == 0


@settings(deadline=None, max_examples=200)
@given(
    tokens=st.sets(st.text("abĠĊÃ©", min_size=1, max_size=3), min_size=1, max_size=9),
    control=st.sampled_from(["a", "<x>", "   "]),
    text=st.text("ab \né\U00020001<x>", max_size=40),
)
def test_bytes_without_a_token_count_for_nothing(tokens: set[str], control: str, text: str) -> None:
    texts = sorted({*tokens, control})
    merges = [f"{one} {other}" for one in texts for other in texts if one + other in texts] or ["a b"]
    made = Tokenizer.from_metadata({
        f"{KEY}model": "gpt2", f"{KEY}pre": "gpt-2", f"{KEY}tokens": texts, f"{KEY}merges": merges,
        f"{KEY}token_type": [3 if text == control else 1 for text in texts],
    })  # fmt: skip
    for special in (False, True):
        assert made.fewest_tokens(text, special=special) <= len(made.encode(text, special=special))
