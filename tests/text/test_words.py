"""Memories of words: they begin anew when they are full, under the eyes of any number of threads."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import pytest

from opsin.gguf import File
from opsin.text import Tokenizer, merge_boundaries, sentencepiece, words
from opsin.text.words import WordCache

THREADS = 8
NAMES = ("gpt-2", "deepseek-llm", "llama-spm", "bert-bge", "nomic-bert-moe")


def encode(cache: WordCache, words: list[str]) -> tuple[int, ...]:
    return tuple(chain.from_iterable(cache.encode(words)))


def test_memory_begins_anew_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opsin.text.words.MAX_CHARACTERS", 100)
    calls: list[str] = []
    cache = WordCache(lambda word: calls.append(word) or ((len(word),),))  # type: ignore[func-returns-value]
    assert encode(cache, ["a", "bb", "a"]) == (1, 2, 1)
    assert sorted(calls) == ["a", "bb"]
    encode(cache, ["x" * 200])
    encode(cache, ["a"])
    assert calls.count("a") == 2
    assert encode(cache, ["x" * 200, "a"]) == (200, 1)


@pytest.fixture
def often() -> Iterator[None]:
    """Threads take turns 250 times as often as they do."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(2e-5)
    yield
    sys.setswitchinterval(before)


def write(seed: int) -> list[str]:
    chance = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyzABCéñ世界人最新消息。，!?='"
    return [
        " ".join("".join(chance.choices(letters, k=chance.randint(1, 20))) for _ in range(chance.randint(1, 40)))
        for _ in range(40)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_threads_that_share_a_memory_get_the_ids_that_they_get_alone(
    sources: Path, name: str, often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with File.open(sources / f"ggml-vocab-{name}.gguf") as file:
        metadata = dict(file.metadata)
    texts = [write(seed) for seed in range(THREADS)]
    alone = Tokenizer.from_metadata(metadata)
    wanted = [[alone.encode(text) for text in some] for some in texts]
    monkeypatch.setattr(words, "MAX_CHARACTERS", 300)
    monkeypatch.setattr(sentencepiece, "_MAX_RUNS", 30)
    monkeypatch.setattr(merge_boundaries, "PATIENCE", 50)
    shared = Tokenizer.from_metadata(metadata)
    with ThreadPoolExecutor(THREADS) as pool:
        found = [*pool.map(lambda some: [shared.encode(text) for text in some], texts)]
    assert [*chain(*found)] == [*chain(*wanted)]


def test_places_to_cut_at_are_looked_for_once(often: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_boundaries, "PATIENCE", 0)
    calls: list[int] = []
    parts = merge_boundaries.ChunkedBpe(lambda word: ((len(word),),), lambda: calls.append(1) or "ab\0bc")  # type: ignore[func-returns-value]
    with ThreadPoolExecutor(THREADS) as pool:
        assert {*pool.map(lambda word: tuple(chain.from_iterable(parts.encode(word))), ["abcabcabcabcabc"] * 64)} == {
            (3,) * 5
        }
    assert calls == [1]


def test_long_words_are_encoded_in_their_place_and_not_remembered() -> None:
    calls: list[str] = []
    cache = WordCache(lambda word: calls.append(word) or [(len(word),), (0,)])  # type: ignore[func-returns-value]
    asked = ["a", "x" * 1000, "a", "x" * 1000, "y" * 2000, "bb"]
    assert encode(cache, asked) == (1, 0, 1000, 0, 1, 0, 1000, 0, 2000, 0, 2, 0)
    assert sorted(map(len, calls)) == [1, 2, 1000, 1000, 2000]
