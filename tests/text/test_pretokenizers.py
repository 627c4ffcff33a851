"""Every pattern keeps every character, and cuts hostile text in time."""

from __future__ import annotations

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from opsin.text.bpe import cut
from opsin.text.pretokenizers import PATTERNS, PRE_TOKENIZERS

COMPILED = {name: [regex.compile(f"({pattern})", regex.V1) for pattern in PATTERNS[name]] for name in PATTERNS}


# How these families' own files group digits from the right; each digit looks to the end of its run.
GROUPING = {
    "aya": (r"\d{1,3}(?=(?:\d{3})*\b)", PATTERNS["gpt4o"][0]),
    "afmoe": (r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))", *PATTERNS["afmoe"][1:]),
    "superbpe": (r"\p{N}+", r"(?=(?:\d{3})+(?!\d))"),
}


@settings(deadline=None, max_examples=300)
@given(st.text("12345678٣½²a_ .,", max_size=20))
def test_digits_fall_into_the_groups_of_the_families(text: str) -> None:
    for name, patterns in GROUPING.items():
        published = [regex.compile(f"({pattern})", regex.V1) for pattern in patterns]
        assert [*cut(COMPILED[name], text)] == [*cut(published, text)]


@settings(deadline=None, max_examples=300)
@given(st.text("aé1  \n\t.'s`+€\u0301漢\u3000", max_size=20))
def test_signs_and_words_fall_apart_in_one_pass_as_in_two(text: str) -> None:
    for name, signs in {"falcon": r"[\p{P}\$\+<=>\^~\|`]+", "default": r"[\p{P}\$\+<=>\^~\|]+"}.items():
        published = [regex.compile(f"({pattern})", regex.V1) for pattern in (signs, PATTERNS["gpt2"][0])]
        assert [*cut(COMPILED[name][:1], text)] == [*cut(published, text)]


@pytest.mark.parametrize("text", ["1" * 1_000_000, "1" * 1_000_000 + "a", "12½" * 300_000], ids=len)
@pytest.mark.timeout(600)  # 0.7 seconds on Zen 5; hours where a pattern looks at all that is left
def test_a_megabyte_of_digits_is_grouped(text: str) -> None:
    for name in GROUPING:
        assert "".join(cut(COMPILED[name][:2], text)) == text


@settings(deadline=None)
@given(st.text() | st.text("a1 \n'sS漢é.\t世", max_size=30))
def test_no_pattern_loses_a_character(text: str) -> None:
    for patterns in COMPILED.values():
        assert "".join(cut(patterns, text)) == text


@pytest.mark.parametrize(
    ("name", "text", "pieces"),
    [
        ("gpt2", "it's  5%\n", ["it", "'s", " ", " 5", "%", "\n"]),
        ("llama3", "IT'S 12345 ok\n\n x", ["IT", "'S", " ", "123", "45", " ok", "\n\n", " x"]),
        ("qwen2", "a12", ["a", "1", "2"]),
        ("tekken", "HTMLParser it's", ["HTMLParser", " it", "'s"]),
        ("gpt4o", "HTMLParser it's", ["HTMLParser", " it's"]),
        ("digit_gpt2", "x42y", ["x", "4", "2", "y"]),
        ("falcon", "a--b 1234", ["a", "--", "b", " ", "123", "4"]),
        ("deepseek3", "漢字kana 12", ["漢字", "kana", " ", "12"]),
        ("gemma4", "a b\n\nc", ["a b", "\n\n", "c"]),
        ("kimi", "漢字ABC it's", ["漢字", "ABC", " it's"]),
        ("aya", "1234567", ["1", "234", "567"]),
        ("afmoe", "12345", ["12", "345"]),
        ("superbpe", "a1234567", ["a", "1", "234", "567"]),
        ("jais2", "a" + " " * 7, ["a", " " * 4, "  ", " "]),
        ("bloom", "a,b c", ["a", ",", "b", " c"]),
        ("exaone_moe", "a b", ["a b"]),
    ],
)
def test_pieces_are_those_of_the_model(name: str, text: str, pieces: list[str]) -> None:
    assert [*cut(COMPILED[name], text)] == pieces


@pytest.mark.parametrize(
    "text", ["1" * 200_000, " " * 200_000 + "x", "A" * 200_000, "'" * 200_000, "a " * 100_000, "\u0301" * 200_000]
)
@pytest.mark.timeout(600)  # seconds where each piece costs its length
def test_no_pattern_is_slow_on_long_runs(text: str) -> None:
    for name in COMPILED:
        assert "".join(cut(COMPILED[name], text)) == text


def test_names_of_one_kind_share_their_patterns() -> None:
    assert PRE_TOKENIZERS["llama-bpe"].add_bos
    assert PRE_TOKENIZERS["llama-bpe"].ignore_merges
    assert not PRE_TOKENIZERS["dbrx"].ignore_merges
    assert not PRE_TOKENIZERS["glm4"].default_bos
    assert len(PRE_TOKENIZERS) == 92
