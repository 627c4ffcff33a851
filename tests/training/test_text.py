"""The tokenizer keeps words whole, spells out what is read, and marks what is to be learned."""

from __future__ import annotations

import pytest

pytest.importorskip("tokenizers")

from training.text import END_OF_TURN, SIZE, SOFT, blocks_of, decode, encode, load_tokens, render


def test_vocabulary_has_no_token_twice() -> None:
    """llama.cpp refuses a vocabulary with doubles."""
    assert len(set(load_tokens())) == len(load_tokens()) == SIZE


def test_words_are_whole_and_quoted_words_are_spelled() -> None:
    """A question is a token a word; what was read is a token a letter."""
    assert len(encode("What colour is the red circle?")) == 7
    assert [decode([token]) for token in encode('"red"')] == ['"', "r", "e", "d", '"']
    assert [decode([token]) for token in encode("42.")] == ["4", "2", "."]


def test_any_text_survives() -> None:
    """Unknown words and signs are spelled in bytes."""
    text = "Grüße, 日本 & `code`\n\n ok?"
    assert decode(encode(text)) == text


def test_only_answers_are_learned() -> None:
    """The rows to learn decode to the answers and their end marks."""
    ids, learn = render([("Where is it?", "Top left."), ("How many?", "Two.")], 2, 36, lines=True)
    learned = [token for token, wanted in zip(ids, learn, strict=True) if wanted]
    assert decode(learned) == "Top left.Two." and learned.count(END_OF_TURN) == 2
    assert ids.count(SOFT) == 72 and max(blocks_of(ids)) == 2
