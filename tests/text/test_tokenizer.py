"""Ids are those that llama.cpp gives, text comes back as it was, and files that lie are refused."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import corpus
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsin.errors import FileError, ModelError, RequestError
from opsin.gguf import File
from opsin.text import Tokenizer, bpe

RECORDED = (
    "bert-bge", "command-r", "deepseek-coder", "deepseek-llm", "falcon", "gemma-4", "gpt-2", "llama-bpe", "llama-spm",
    "mpt", "phi-3", "qwen2", "qwen35", "refact", "starcoder",
)  # fmt: skip
DIGESTS = json.loads(corpus.RECORDED.read_text(encoding="utf-8"))
# What the others promise: BERT and unigram vocabularies normalise, so that their texts come back as others.
FAITHFUL = (
    "aquila", "baichuan", "command-r", "deepseek-coder", "deepseek-llm", "falcon", "gemma-4", "gpt-2", "gpt-neox",
    "llama-bpe", "llama-spm", "mpt", "phi-3", "qwen2", "qwen35", "refact", "starcoder",
)  # fmt: skip
BETWEEN = "\n__ggml_vocab_test__\n"


@cache
def load(path: Path) -> Tokenizer:
    with File.open(path) as file:
        return Tokenizer.from_metadata(file.metadata)


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_texts_give_the_recorded_ids(sources: Path, name: str) -> None:
    path = sources / f"ggml-vocab-{name}.gguf"
    texts = Path(f"{path}.inp").read_bytes().decode("utf-8").split(BETWEEN)
    lines = Path(f"{path}.out").read_text(encoding="utf-8").split("\n")
    assert len(texts) > 40
    for text, line in zip(texts, lines, strict=False):
        assert load(path).encode(text) == [int(id) for id in line.split()], text


@pytest.mark.skipif(unicodedata.unidata_version != "14.0.0", reason="texts were generated of Unicode 14's characters")
@pytest.mark.parametrize("name", sorted(DIGESTS))
def test_generated_texts_give_the_ids_of_llama_cpp(sources: Path, name: str) -> None:
    tokenizer = load(sources / f"{name}.gguf")
    for wanted, texts in zip(DIGESTS[name], corpus.batches(2, len(DIGESTS[name])), strict=True):
        assert corpus.digest([tokenizer.encode(text) for text in texts]) == wanted, texts[:3]


@pytest.fixture(scope="module")
def smol(smollm: Mapping[str, object]) -> Tokenizer:
    return Tokenizer.from_metadata(smollm)


@settings(deadline=None)
@given(st.text())
def test_text_comes_back_from_its_ids(sources: Path, text: str) -> None:
    for name in ("gpt-2", "gemma-4", "llama-spm"):
        tokenizer = load(sources / f"ggml-vocab-{name}.gguf")
        if "\u2581" not in text or name == "gpt-2":
            assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("name", FAITHFUL)
def test_generated_texts_come_back_from_their_ids(sources: Path, name: str) -> None:
    """But for characters that have no token (U+000B in Falcon), and U+2581, which is a space in some vocabularies."""
    tokenizer = load(sources / f"ggml-vocab-{name}.gguf")
    lost = {chr(code) for code in range(128) if not tokenizer.encode(chr(code))} | {"\u2581"}
    texts = [text for batch in corpus.batches(3, 15) for text in batch if not lost.intersection(text)]
    assert len(texts) > 1300
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("pre", ["gemma4", "sarvam-moe", "mmbert", "whitespace"])
def test_characters_that_a_vocabulary_lacks_altogether_are_lost(pre: str) -> None:
    metadata = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": ["a", "b"],
                "tokenizer.ggml.merges": [], "tokenizer.ggml.token_type": [1, 1]}  # fmt: skip
    assert Tokenizer.from_metadata(metadata).encode("xy a\nzb") == [0, 1]


@settings(deadline=None)
@given(st.binary())
def test_bytes_that_are_no_text_become_replacement_characters(sources: Path, raw: bytes) -> None:
    tokenizer = load(sources / "ggml-vocab-gpt-2.gguf")
    text = raw.decode("utf-8", "surrogateescape")
    lone = sum("\ud800" <= character <= "\udfff" for character in text)
    assert tokenizer.decode(tokenizer.encode(text)).count("\ufffd") == lone + text.count("\ufffd")


@pytest.mark.model
def test_special_tokens_are_found_only_when_asked(smol: Tokenizer) -> None:
    text = "<|im_start|>user\nHi<|im_end|>"
    assert smol.encode(text, special=True) == [1, 4093, 198, 26843, 2]
    assert not {1, 2} & set(smol.encode(text))
    assert smol.decode(smol.encode(text, special=True)) == "user\nHi"
    assert smol.decode(smol.encode(text, special=True), special=True) == text


@pytest.mark.model
def test_stream_gives_what_decode_gives(smol: Tokenizer) -> None:
    ids = smol.encode("Grüße 😀👩‍👩‍👧 und 漢字")
    stream = smol.stream()
    assert "".join(map(stream.push, ids)) + stream.finish() == smol.decode(ids)


@pytest.mark.model
def test_id_outside_the_vocabulary_is_refused(smol: Tokenizer) -> None:
    for id in (-1, smol.vocabulary_size):
        with pytest.raises(RequestError, match="is not one of 49152"):
            smol.decode([id])


def test_bos_comes_once_and_where_the_file_asks(sources: Path) -> None:
    llama = load(sources / "ggml-vocab-llama-bpe.gguf")
    assert llama.add_bos
    assert llama.encode("", add_special=True) == [128000]
    assert llama.encode("a", add_special=True) == [128000, *llama.encode("a")]
    assert load(sources / "ggml-vocab-qwen2.gguf").encode("", add_special=True) == []
    assert load(sources / "ggml-vocab-bert-bge.gguf").encode("hi", add_special=True) == [101, 7632, 102]


def test_sentencepiece_text_begins_without_its_prefix_space(sources: Path) -> None:
    llama = load(sources / "ggml-vocab-llama-spm.gguf")
    ids = llama.encode("Hello  world")
    assert llama.piece(ids[0]) == b" Hello"
    assert llama.decode(ids) == "Hello  world"
    # After a special token the prefix space comes again, as in llama.cpp.
    assert llama.encode("</s>Hello", special=True) == [2, ids[0]]


def test_phi3_swallows_whitespace_behind_its_markers(sources: Path) -> None:
    phi = load(sources / "ggml-vocab-phi-3.gguf")
    assert phi.encode("<|user|>\n x<|end|>\n", special=True) == [32010, *phi.encode("x"), 32007]


def test_phi3_is_known_by_its_vocabulary_whatever_the_file_is_called(sources: Path) -> None:
    with File.open(sources / "ggml-vocab-phi-3.gguf") as file:
        phi = Tokenizer.from_metadata({**file.metadata, "general.name": "Mine"})
    with File.open(sources / "ggml-vocab-llama-spm.gguf") as file:
        llama = Tokenizer.from_metadata({**file.metadata, "general.name": "phi-3"})
    assert phi.encode("<|user|>\n", special=True) == [32010]
    assert len(llama.encode("</s>\n", special=True)) > 1


@pytest.mark.parametrize(
    ("name", "ends"),
    [("llama-bpe", {128001, 128009}), ("phi-3", {2, 32000, 32007}), ("gemma-4", {1, 50, 106}), ("llama-spm", {2})],
)
def test_every_end_of_a_turn_is_known(sources: Path, name: str, ends: set[int]) -> None:
    assert load(sources / f"ggml-vocab-{name}.gguf").end_ids == ends


def make(**keys: object) -> Mapping[str, object]:
    """A small byte-level vocabulary."""
    tokens = ["a", "b", "Ġ", "ab", "Ġab", "<|end|>", "<|return|>", "<|call|>", "<|channel|>", "dog"]
    kinds = [1, 1, 1, 1, 1, 3, 3, 3, 3, 3]
    plain = {"model": "gpt2", "pre": "gpt-2", "tokens": tokens, "token_type": kinds, "merges": ["a b", "Ġ ab"]}
    return {f"tokenizer.ggml.{key}": value for key, value in (plain | keys).items()}


def test_bytes_without_a_token_vanish_but_do_not_join_their_neighbours() -> None:
    assert Tokenizer.from_metadata(make()).encode("aXb ab") == [0, 1, 4]


def test_merge_into_a_text_that_is_no_token_is_spelled_in_its_parts() -> None:
    tokenizer = Tokenizer.from_metadata(make(merges=["b a", "a b", "Ġ ab"]))
    assert tokenizer.encode("bab") == [1, 0, 1]


def test_what_merges_is_made_once_and_when_a_piece_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made, merging = list[str](), bpe.Merging
    monkeypatch.setattr(bpe, "Merging", lambda *args, **options: made.append("once") or merging(*args, **options))
    tokenizer = Tokenizer.from_metadata(make(pre="llama-bpe"))  # whose pieces that are tokens are not merged
    assert (tokenizer.encode("ab ab"), made) == ([3, 4], [])
    with ThreadPoolExecutor(4) as threads:
        assert [*threads.map(tokenizer.encode, ["aab", "abb", "aab", "abb"])] == [[0, 3], [3, 1]] * 2
    tokenizer.prepare()
    assert made == ["once"]


def test_control_token_is_never_made_of_ordinary_text() -> None:
    whole = Tokenizer.from_metadata(make(pre="llama-bpe"))
    assert 9 not in whole.encode("dog")
    assert whole.encode("dog", special=True) == [9]


def test_end_of_a_message_is_no_end_where_calls_and_returns_exist() -> None:
    tokenizer = Tokenizer.from_metadata(make())
    assert tokenizer.end_ids == {6, 7}
    assert tokenizer.piece(5) == b"<|end|>"
    assert tokenizer.piece(8) == b"<|channel|>"
    assert tokenizer.piece(6) == b""


def test_unknown_kinds_are_refused_by_name() -> None:
    for model in ("rwkv", "plamo2", None):
        with pytest.raises(ModelError, match=repr(model)):
            Tokenizer.from_metadata(make(model=model))
    with pytest.raises(ModelError, match="'no-such'"):
        Tokenizer.from_metadata(make(pre="no-such"))


def plain(**keys: object) -> Tokenizer:
    """A small vocabulary of plain text."""
    tokens = ["a", "b", "▁", "\n", "ab", "▁a", "▁ab", "\n\n", "<0xC3>", "<0xA9>", "é"]
    merges = ["a b", "▁ a", "▁ ab", "▁a b"]
    return Tokenizer.from_metadata(make(tokens=tokens, token_type=[1] * 8 + [6] * 2 + [1], merges=merges, **keys))


def test_plain_text_vocabularies_differ_in_spaces_and_newlines() -> None:
    assert plain(pre="granite-embed-multi-311m").encode("ab  ab\n\na") == [4, 2, 6, 7, 0]
    assert plain(pre="sarvam-moe").encode("ab  ab\n\na") == [4, 2, 6, 3, 3, 0]
    assert plain(pre="mmbert").encode("ab  ab\n\na") == [6, 2, 6, 7, 5]
    assert plain(pre="mmbert").encode(" é") == [2, 10]


def test_words_between_white_space_stand_alone() -> None:
    assert plain(model="whitespace", pre="whitespace").encode(" ab\u3000\n Ab é ") == [4, 1, 10]
    lowered = plain(model="whitespace", pre="whitespace", **{"normalizer.lowercase": True})
    assert lowered.encode("Ab É") == [4, 10]


def test_damaged_vocabularies_are_refused() -> None:
    with pytest.raises(FileError, match="occur twice"):
        Tokenizer.from_metadata(make(tokens=["a", "a"]))
    with pytest.raises(FileError, match="token_type has 1 entries for 10 tokens"):
        Tokenizer.from_metadata(make(token_type=[1]))
    with pytest.raises(ModelError, match="holds no vocabulary"):
        Tokenizer.from_metadata({"tokenizer.ggml.model": "gpt2"})


@pytest.mark.parametrize("id", [0, 2, 250001])
def test_no_text_becomes_a_unigram_token_that_is_none_of_text(sources: Path, id: int) -> None:
    tokenizer = load(sources / "ggml-vocab-nomic-bert-moe.gguf")
    assert id not in tokenizer.encode(f"a \ufddf{id} b{id}\ufddf{id}")
