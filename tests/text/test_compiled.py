"""Long texts, encoded by compiled code, have the ids that they have without it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import islice
from pathlib import Path

import corpus
import gemma
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsin.config import from_environment
from opsin.gguf import File
from opsin.ops.cpu.code import Kernel
from opsin.ops.cpu.texts import KERNELS as ALL_KERNELS
from opsin.ops.cpu.texts import TextKernels
from opsin.text import Tokenizer, compiled
from opsin.text.plans import Value
from opsin.text.pretokenizers import PRE_TOKENIZERS

KERNELS = TextKernels(from_environment())
TEXTS = list(islice(corpus.Corpus(21).strings(), 3000))
RUNS = [unit * 700 for unit in ("a", "=", " ", "ha", "的", "\n", "- ", "\r\n", "é", "1", "\v", "👩‍👩‍👧‍👦", "𠀁")]
NAMES = (
    "aquila", "baichuan", "command-r", "deepseek-coder", "deepseek-llm", "falcon", "gemma-4", "gpt-2", "gpt-neox",
    "llama-bpe", "llama-spm", "mpt", "phi-3", "qwen2", "qwen35", "refact", "starcoder",
)  # fmt: skip


@cache
def load(path: Path) -> tuple[Tokenizer, Tokenizer]:
    """The one with kernels, which uses them from the first text on, and the one without."""
    with pytest.MonkeyPatch.context() as patch, File.open(path) as file:
        patch.setattr(compiled, "PATIENCE", 0)
        return Tokenizer.from_metadata(file.metadata, KERNELS), Tokenizer.from_metadata(file.metadata)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "SHORT", 1)


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_those_without_kernels(sources: Path, name: str, always: None) -> None:
    fast, plain = load(sources / f"ggml-vocab-{name}.gguf")
    for text in [*TEXTS[:600], *RUNS, "\n".join(TEXTS), "".join(TEXTS[::-1]), " ".join(TEXTS)]:
        assert fast.encode(text) == plain.encode(text), text[:200]


@settings(deadline=None, max_examples=60)
@given(
    scores=st.dictionaries(st.text("ab.▁", min_size=1, max_size=5), st.integers(0, 4).map(float), min_size=1),
    words=st.lists(st.text("ab.▁\U00020001", min_size=1, max_size=20), min_size=1),
)
def test_equal_scores_merge_from_the_left(scores: dict[str, float], words: list[str]) -> None:
    metadata = {
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["<unk>", *scores],
        "tokenizer.ggml.scores": [0.0, *scores.values()], "tokenizer.ggml.token_type": [2, *[1] * len(scores)],
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "PATIENCE", 0)
        patch.setattr(compiled, "SHORT", 1)
        fast, plain = Tokenizer.from_metadata(metadata, KERNELS), Tokenizer.from_metadata(metadata)
        for word in [*words, " ".join(words)]:
            assert fast._encoder.encode_long([word]) is not None
            assert fast.encode(word) == plain.encode(word)


@pytest.mark.model
def test_ids_of_gemma_3_are_those_without_kernels(always: None) -> None:
    """Its newlines and runs of spaces are tokens of their own, between which texts are short."""
    path = gemma.find()
    if not path.exists():
        pytest.skip("python tests/text/gemma.py fetches the file")
    fast, plain = load(path)
    assert fast.vocabulary_size == 262_144
    for text in [*TEXTS[:300], *RUNS, "\n".join(TEXTS), "   \n\n".join(TEXTS[:1000]), " ".join(TEXTS)]:
        assert fast.encode(text) == plain.encode(text), text[:200]
    turns = "<end_of_turn>\n<start_of_turn>".join(TEXTS[:500])
    assert fast.encode(turns, special=True, add_special=True) == plain.encode(turns, special=True, add_special=True)
    assert fast.encode(turns, special=True).count(106) == 499


@pytest.mark.parametrize(("name", "token"), [("llama-spm", "</s>"), ("gpt-2", "<|endoftext|>"), ("phi-3", "<|end|>")])
def test_special_tokens_keep_their_places(sources: Path, name: str, token: str, always: None) -> None:
    fast, plain = load(sources / f"ggml-vocab-{name}.gguf")
    long = "".join(TEXTS) + "x" * 100_000
    for text in (token.join(TEXTS), token * 3 + "a" + token * 2 + long + token, long + token + long, token * 5):
        for add_special in (False, True):
            found = fast.encode(text, special=True, add_special=add_special)
            assert found == plain.encode(text, special=True, add_special=add_special)


def test_a_text_with_damaged_bytes_goes_the_other_way(sources: Path) -> None:
    for name in ("gpt-2", "llama-spm"):
        fast, plain = load(sources / f"ggml-vocab-{name}.gguf")
        text = "".join(TEXTS[:100]) + "\udce4"
        assert fast.encode(text) == plain.encode(text)


def test_kernels_run_only_after_much_text(sources: Path) -> None:
    class Counting:
        def __init__(self) -> None:
            self.runs = 0

        def run(self, name: str, options: dict[str, str], *values: Value) -> None:
            self.runs += 1
            KERNELS.run(name, options, *values)

    counting = Counting()
    with File.open(sources / "ggml-vocab-gpt-2.gguf") as file:
        tokenizer = Tokenizer.from_metadata(file.metadata, counting)
    text = "The sun shines on the sea. " * 1000
    first = tokenizer.encode(text)
    assert counting.runs == 0
    for _ in range(compiled.PATIENCE // len(text)):
        assert tokenizer.encode(text) == first
    assert counting.runs > 0


def test_pieces_that_look_ahead_too_often_are_left_to_the_pattern(sources: Path) -> None:
    """White space at the end of a line: each of these spaces would look at all that follow."""
    fast, plain = load(sources / "ggml-vocab-deepseek-llm.gguf")
    text = "a" + " " * 3000 + "b"
    assert fast.encode(text) == plain.encode(text)


def encode_alone(name: str, folder: Path) -> Callable[[str], list[int]]:
    return load(folder / f"ggml-vocab-{name}.gguf")[0].encode


def test_memory_gives_its_place_to_the_next_word(sources: Path, always: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_LINES", 2)  # four lines: nearly each word takes that of another
    with pytest.MonkeyPatch.context() as patch, File.open(sources / "ggml-vocab-qwen2.gguf") as file:
        patch.setattr(compiled, "PATIENCE", 0)
        crowded = Tokenizer.from_metadata(file.metadata, KERNELS)
    text = " ".join(TEXTS[:500])
    assert crowded.encode(text) == encode_alone("qwen2", sources)(text)


class Noting:
    """Kernels that tell which were asked for."""

    def __init__(self) -> None:
        self.asked: set[Kernel] = set()

    def run(self, name: str, options: dict[str, str], *values: Value) -> None:
        self.asked.add(Kernel.of(name, **options))
        KERNELS.run(name, options, *values)


def test_warming_up_knows_every_kernel_that_vocabularies_ask_for(
    sources: Path, always: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    noting = Noting()
    monkeypatch.setattr(compiled, "PATIENCE", 0)
    for name in ("llama-spm", "gemma-4", "bert-bge", "nomic-bert-moe"):
        with File.open(sources / f"ggml-vocab-{name}.gguf") as file:
            Tokenizer.from_metadata(file.metadata, noting).encode("word " * 200)
    with File.open(sources / "ggml-vocab-gpt-2.gguf") as file:
        metadata = {**file.metadata}
    known = {name: pre for name, pre in PRE_TOKENIZERS.items() if not pre.spaces_vanish and not pre.space_begins_words}
    kinds = {(pre.byte_encoded, pre.ignore_merges, pre.newline_runs): name for name, pre in known.items()}
    for name in kinds.values():
        made = Tokenizer.from_metadata(metadata | {"tokenizer.ggml.pre": name}, noting)
        made.encode("word " * 200)
    assert noting.asked == set(ALL_KERNELS)
