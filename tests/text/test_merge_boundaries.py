"""Words cut at their boundaries merge as they do whole, and so do words whose runs stay apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsin.gguf import File
from opsin.text import Tokenizer, merge_boundaries
from opsin.text.merge_boundaries import MergeBoundaries
from opsin.text.sentencepiece import SentencePiece
from opsin.text.vocabulary import Vocabulary
from opsin.text.words import SPACE

HALF = b"\xe6".decode("utf-8", "surrogateescape")  # begins 最 and its like
REST = b"\x9c\x80".decode("utf-8", "surrogateescape")  # ends 最


def test_a_word_is_cut_where_no_text_joins_its_characters() -> None:
    assert MergeBoundaries("ab\0bc\0d").cut("abcdab") == ["abc", "d", "ab"]
    assert MergeBoundaries("世界\0界人").cut("世界人世人") == ["世界人", "世", "人"]


def test_halves_of_characters_join_whatever_they_may_complete() -> None:
    assert MergeBoundaries(f"世{HALF}").cut("人世人界") == ["人", "世人", "界"]
    assert MergeBoundaries(f"{REST}世").cut("人世人界") == ["人世", "人", "界"]
    tail = "世".encode()[2:].decode("utf-8", "surrogateescape")
    assert MergeBoundaries(f"{tail}{HALF}").cut("人世人界") == ["人", "世人", "界"]


def test_words_of_rare_characters_stay_whole() -> None:
    assert MergeBoundaries("ab").cut("x\U00020001y") == ["x\U00020001y"]


WORDS = st.text("abc" + SPACE + ".,世界人最\U00020001", min_size=1, max_size=40)


@pytest.mark.parametrize("name", ["gpt-2", "llama-bpe", "falcon", "gemma-4", "llama-spm", "command-r"])
@settings(deadline=None, max_examples=60)
@given(text=st.text("世界人最新消息的了是、。ंहिदी" + "abcé. 𠀁", min_size=13, max_size=60))
def test_long_words_give_the_ids_that_they_give_whole(sources: Path, name: str, text: str) -> None:
    whole, cut = (load(sources, name, patience) for patience in (1 << 30, 0))
    assert cut.encode(text) == whole.encode(text)


made: dict[tuple[str, int], Tokenizer] = {}


def load(folder: Path, name: str, patience: int) -> Tokenizer:
    if (name, patience) not in made:
        with pytest.MonkeyPatch.context() as patch, File.open(folder / f"ggml-vocab-{name}.gguf") as file:
            patch.setattr(merge_boundaries, "PATIENCE", patience)
            made[name, patience] = Tokenizer.from_metadata(file.metadata)
    return made[name, patience]


def spm(tokens: Mapping[str, float]) -> SentencePiece:
    metadata = {"tokenizer.ggml.tokens": ["<unk>", *tokens], "tokenizer.ggml.scores": [0.0, *tokens.values()]}
    return SentencePiece(Vocabulary(metadata, {"unknown": 0}), space_prefix=False)


@settings(deadline=None)
@given(
    st.dictionaries(st.text("ab.,", min_size=1, max_size=4), st.integers(0, 6).map(float)), st.text("ab.,", min_size=1)
)
def test_runs_of_letters_and_signs_join_only_where_the_whole_does(tokens: dict[str, float], word: str) -> None:
    encoder = spm(dict.fromkeys("ab.,", -1.0) | tokens)
    assert [*encoder._merge(word)] == encoder._merge_short(word) == encoder._merge_long(word)
