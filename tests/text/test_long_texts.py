"""Long texts, pieces and words, which take ways of their own, have the ids that they have in one piece."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path

import corpus
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from turns import LONGEST, longest_wait

from opsin.gguf import File
from opsin.text import Tokenizer, bpe, charsmap, merge_boundaries, sentencepiece, unigram, wordpiece, words
from opsin.text.charsmap import Charsmap
from opsin.text.merge_boundaries import merge_in_windows

KEY = "tokenizer.ggml."
SOUND = [*islice(corpus.Corpus(31).strings(), 400)]
DAMAGED = [*islice(corpus.Corpus(32).broken(), 150)]
ODD = [
    "\r\n\r\n a\r\n\nb\r", "e\u0301e\u0302\u0301", "a\u0e33 \u200d\u00a9\u200d\u00a9\u0301", "\u0600a\u06dd1",
    "\u0915\u0301\u0915\u094d\u0937\u0301", "\uac01\u0301\u1100\u1161\u11a8", "\U0001f1e9\U0001f1ea\u0301\U0001f1ef",
    "\ufb01\u0301\ufb01", " \u0301 \uff9e \uff41\uff9e", "\U0001f3fbx\U0001f3fb", "\u0378a\u0378", " \u0e33a \u0eb3b",
    "x\u2581y \u2581 z\u2581", "\u2026!?.,-", "\0\x1f\x85 \u00a0\0a", "\u6f22\u5b57\uf900\U0002f800a\U00020000",
    "\u0130I\u0131\u00df \ufb03 \u01c4 \u0149", "\ufdd0\ufffd", "\u0627\u064e\u0628\u200c\u062c", "x" * 700,
    "\u6f22" * 700, "\u00e9" * 300, "\u2581" * 40, "\u1160\u3164 \u115f", "", "a" * 100, "a" * 101,
    "\u044f" * 100 + " " + "\u044f" * 101, "a\u302e\u1b44\u302f\u1b44", "\U0001d15e\U0001d15f\U0001d16d\U0001d165",
    "\u03a3\u03a3 \u1e9e",
]  # fmt: skip
UNITS = [
    "a",
    "=",
    " ",
    "ha",
    "的",
    "\n",
    "- ",
    "\r\n",
    "é",
    "1",
    "\v",
    "👩‍👩‍👧‍👦",
    "𠀁",
    "ab1 ",
    "!?",
    "\u0301",
    "aé的",
]
RUNS = [unit * 700 for unit in UNITS]
NAMES = (
    "bert-bge", "command-r", "deepseek-llm", "falcon", "gemma-4", "gpt-2", "llama-bpe", "llama-spm", "nomic-bert-moe",
    "phi-3", "qwen2", "starcoder",
)  # fmt: skip


@cache
def load(path: Path, extra: tuple[tuple[str, object], ...] = ()) -> Tokenizer:
    with File.open(path) as file:
        return Tokenizer.from_metadata({**file.metadata, **dict(extra)})


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From then on nearly everything counts as long."""

    def shorten() -> None:
        for room, name, value in (
            (bpe, "_SLICE", 7), (bpe, "WINDOW", 16), (merge_boundaries, "WINDOW", 16),
            (merge_boundaries, "_AT_ONCE", 11),
            (sentencepiece, "WINDOW", 16), (unigram, "_LONG", 1), (wordpiece, "_LONG", 1), (charsmap, "_SLICE", 1),
            (words, "_AT_ONCE", 5), (words, "_LONG", 9), (words, "MAX_CHARACTERS", 100),
        ):  # fmt: skip
            monkeypatch.setattr(room, name, value)

    return shorten


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_those_of_the_whole(sources: Path, name: str, short: Callable[[], None]) -> None:
    texts = [*SOUND[:150], *DAMAGED[:80], *ODD, *RUNS, "\n".join(SOUND[150:]), "".join(SOUND[:150])]
    with pytest.MonkeyPatch.context() as patch:
        for room in (bpe, sentencepiece):
            patch.setattr(room, "WINDOW", 1 << 40)
        patch.setattr(charsmap, "_SLICE", 1 << 40)
        whole = [load(sources / f"ggml-vocab-{name}.gguf").encode(text, special=True) for text in texts]
    short()
    load.cache_clear()
    made = load(sources / f"ggml-vocab-{name}.gguf")
    for text, ids in zip(texts, whole, strict=True):
        assert made.encode(text, special=True) == ids, text[:200]


@pytest.mark.parametrize(
    "rules", [{"normalizer.lowercase": False}, {"normalizer.strip_accents": False}, {"unknown_token_id": 1 << 30}],
    ids=str,
)  # fmt: skip
def test_long_chunks_are_cut_into_the_same_longest_tokens(
    sources: Path, rules: dict[str, object], short: Callable[[], None]
) -> None:
    marks = [chr(code) for code in range(0x1E000) if unicodedata.combining(chr(code))]
    chance = random.Random(4)
    texts = [*SOUND, *DAMAGED, *ODD, *("a" + "".join(chance.choices(marks, k=4)) + "b" for _ in range(1000))]
    made = load(sources / "ggml-vocab-bert-bge.gguf", tuple((KEY + name, value) for name, value in rules.items()))
    whole = [made.encode(text) for text in texts]
    short()
    made._encoder._chunk_cache = words.WordCache(made._encoder._encode_chunk)
    for text, ids in zip(texts, whole, strict=True):
        assert made.encode(text) == ids, text


def test_a_zero_byte_in_a_token_is_no_beginning_of_a_word(short: Callable[[], None]) -> None:
    texts = ["[PAD]", "[UNK]", "▁", "\0a", "▁\0b", "▁a", "a", "▁▁", "▁▁a", "", "\0", "b\0", "\0taila", "\0unknown"]
    metadata = {
        f"{KEY}model": "bert", f"{KEY}tokens": texts, f"{KEY}token_type": [3, 3, *[1] * 12],
        f"{KEY}unknown_token_id": 1, f"{KEY}bos_token_id": 0, f"{KEY}seperator_token_id": 0,
    }  # fmt: skip
    asked = ("a", "aa a", "\0a", "▁", "▁a", "a▁a", "▁▁a ▁", "b", "ab", "\0", "aa\0taila")
    whole = [Tokenizer.from_metadata(metadata).encode(text) for text in asked]
    short()
    assert whole[1] == [5, 6, 5]
    assert [Tokenizer.from_metadata(metadata).encode(text) for text in asked] == whole


@pytest.mark.parametrize("merge", [True, False])
def test_long_chunks_become_the_same_likeliest_tokens(sources: Path, merge: bool, short: Callable[[], None]) -> None:
    texts = [*SOUND, *DAMAGED, *ODD, *RUNS]
    made = load(sources / "ggml-vocab-nomic-bert-moe.gguf", ((f"{KEY}remove_extra_whitespaces", merge),))
    whole = [made.encode(text) for text in texts]
    short()
    made._encoder._chunk_cache = words.WordCache(made._encoder._encode_chunk)
    for text, ids in zip(texts, whole, strict=True):
        assert made.encode(text) == ids, text


def test_slices_are_normalised_as_the_whole(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules: Charsmap = load(sources / "ggml-vocab-nomic-bert-moe.gguf")._encoder._normalizer
    codes = [code for code in range(0x32000) if not 0xD800 <= code < 0xE000]
    some = ["xyz a\u0301\n\n".join(map(chr, codes[start : start + 256])) for start in range(0, len(codes), 256)]
    marks = [chr(code) for code in codes if unicodedata.category(chr(code)) in ("Mn", "Mc", "Me", "Cf", "Sk")]
    chance = random.Random(5)
    some += ["".join(chance.choices([*"aﬁé\u00a0 Ａ漢😀\u0600ا", *marks, "\r\n"], k=8)) for _ in range(1500)]
    whole = [rules.normalize(text) for text in some]
    monkeypatch.setattr(charsmap, "_SLICE", 1)
    for text, normal in zip(some, whole, strict=True):
        assert rules.normalize(text) == normal, text.encode("unicode_escape")


@settings(deadline=None, max_examples=400)
@given(
    ranks=st.lists(
        st.tuples(st.text("ab", min_size=1, max_size=4), st.text("ab", min_size=1, max_size=4)), max_size=12
    ),
    text=st.text("ab", max_size=300),
)
def test_windows_merge_as_the_whole(ranks: list[tuple[str, str]], text: str) -> None:
    """The definition: the best pair first, the leftmost of equals, by rank of a pair or of what it spells."""
    by_pair = {pair: rank for rank, pair in enumerate(ranks)}
    by_text = {left + right: rank // 3 for rank, (left, right) in enumerate(ranks)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge_boundaries, "WINDOW", 4)
        patch.setattr(merge_boundaries, "_UNSURE", 1)
        for rank in (by_pair.get, lambda pair: by_text.get("".join(pair))):
            assert merge_in_windows(text, lambda some, rank=rank: merge(some, rank)) == merge(text, rank)


def merge(text: str, rank: Callable[[tuple[str, str]], int | None]) -> list[str]:
    symbols = [*text]
    while True:
        ranks = [(r, place) for place, pair in enumerate(pairs(symbols)) if (r := rank(pair)) is not None]
        if not ranks:
            return symbols
        place = min(ranks)[1]
        symbols[place : place + 2] = ["".join(symbols[place : place + 2])]


def pairs(symbols: list[str]) -> Iterator[tuple[str, str]]:
    return zip(symbols, symbols[1:], strict=False)


@settings(deadline=None, max_examples=60)
@given(
    tokens=st.dictionaries(st.text("abcé", min_size=1, max_size=5), st.integers(-12, 0).map(float), min_size=1),
    text=st.text("abcdé  \ufdd0", min_size=1, max_size=60),
)
def test_equal_sums_give_the_same_tokens(tokens: dict[str, float], text: str) -> None:
    texts = ["<pad>", "</s>", "<unk>", "▁", *tokens]
    made = Tokenizer.from_metadata({
        f"{KEY}model": "t5", f"{KEY}tokens": texts, f"{KEY}scores": [0.0, 0.0, 0.0, -3.0, *tokens.values()],
        f"{KEY}token_type": [3, 3, 2, *[1] * (len(tokens) + 1)], f"{KEY}remove_extra_whitespaces": True,
    })  # fmt: skip
    whole = made.encode(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unigram, "_LONG", 0)
        made._encoder._chunk_cache = words.WordCache(made._encoder._encode_chunk)
        assert made.encode(text) == whole


def test_no_text_becomes_a_token_that_is_none_of_text(sources: Path) -> None:
    made = load(sources / "ggml-vocab-nomic-bert-moe.gguf")
    for id in (0, 2, 3, 250001):
        assert id == 3 or id not in made.encode(f"a \ufddf{id} b{id}\ufddf{id}")


def test_a_check_ends_a_long_text(sources: Path) -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        load(sources / "ggml-vocab-gpt-2.gguf").encode("word " * 50_000, check=check)
    assert calls == 3


@pytest.mark.parametrize("name", ["gpt-2", "deepseek-llm", "llama-spm", "phi-3", "bert-bge", "nomic-bert-moe"])
def test_other_threads_have_their_turn(sources: Path, name: str) -> None:
    made = load(sources / f"ggml-vocab-{name}.gguf")
    for unit in ("a", "The sun shines on the sea, isn't it?\n", "é", "="):
        text = unit * (500_000 // len(unit))
        assert longest_wait(lambda number, text=text: made.encode(text + "b" * number, special=True)) < LONGEST, unit
