"""Ids are those of Hugging Face's pipeline with the same vocabulary, also where llama.cpp gives others."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import corpus
import pytest
from tokenizers import Regex, normalizers
from tokenizers import Tokenizer as Pipeline
from tokenizers.models import BPE, Unigram, WordPiece
from tokenizers.normalizers import BertNormalizer, Precompiled
from tokenizers.pre_tokenizers import (
    BertPreTokenizer,
    ByteLevel,
    Digits,
    Metaspace,
    Punctuation,
    Sequence,
    Split,
)

from opsin.gguf import File
from opsin.text import Tokenizer
from opsin.text.pretokenizers import PATTERNS, PRE_TOKENIZERS
from opsin.text.vocabulary import CONTROL, NORMAL

TEXTS = list(islice(corpus.Corpus(7).strings(), 1500))
KEY = "tokenizer.ggml."


def read(folder: Path, name: str) -> Mapping[str, object]:
    with File.open(folder / f"ggml-vocab-{name}.gguf") as file:
        return dict(file.metadata)


def byte_level(metadata: Mapping[str, object], *, patterns: tuple[str, ...], whole: bool) -> Pipeline:
    tokens, merges = list(metadata[f"{KEY}tokens"]), list(metadata[f"{KEY}merges"])  # type: ignore[call-overload]
    pairs = [tuple(merge.split(" ")) for merge in merges]
    pipeline = Pipeline(BPE({text: id for id, text in enumerate(tokens)}, pairs, ignore_merges=whole))
    cuts = [Split(Regex(pattern), "isolated") for pattern in patterns]
    pipeline.pre_tokenizer = Sequence([*cuts, ByteLevel(add_prefix_space=False, use_regex=False)])
    return pipeline


@pytest.mark.parametrize("name", ["gpt-2", "llama-bpe", "deepseek-coder", "starcoder"])
def test_byte_level_ids_equal(sources: Path, name: str) -> None:
    metadata = read(sources, name)
    pre = PRE_TOKENIZERS[str(metadata[f"{KEY}pre"])]
    pipeline = byte_level(metadata, patterns=pre.patterns, whole=pre.ignore_merges)
    ours = Tokenizer.from_metadata(metadata)
    kinds = list(metadata[f"{KEY}token_type"])  # type: ignore[call-overload]
    plain = {id for id, kind in enumerate(kinds) if kind == NORMAL}
    compared = 0
    for text in TEXTS:
        wanted = pipeline.encode(text).ids
        if set(wanted) <= plain and set(found := ours.encode(text)) <= plain:
            assert found == wanted, text
            compared += 1
    assert compared > 1000


def test_falcon_ids_equal_where_every_byte_has_a_token(sources: Path) -> None:
    """A byte without a token, such as U+000B, vanishes before the merges there; here, as in llama.cpp, behind them."""
    metadata = read(sources, "falcon")
    pipeline = byte_level(metadata, patterns=(), whole=False)
    threes = Split(Regex("[0-9][0-9][0-9]"), "isolated")
    pipeline.pre_tokenizer = Sequence([Punctuation("contiguous"), ByteLevel(False), Digits(False), threes])
    ours = Tokenizer.from_metadata(metadata)
    compared = 0
    for text in [*TEXTS, "a²½ x¼ 12 ¾ é漢 12345 ٣٤٥", "1234,5678", '✋🏻   <div class="a">&nbsp;</div>']:
        ids = ours.encode(text)
        if ours.decode(ids) == text:
            assert ids == pipeline.encode(text).ids, text
            compared += 1
    assert compared > 1000
    text = "\u00a0\v\u00a0"
    assert [ours.piece(id) for id in ours.encode(text)] == [b"\xc2\xa0", b"\xc2\xa0"]
    assert [ours.piece(id) for id in pipeline.encode(text).ids] == [b"\xc2\xa0\xc2\xa0"]


def test_ideographic_spaces_take_the_space_before_them_as_deepseek_publishes(sources: Path) -> None:
    """llama.cpp gives 243 for the two spaces: it does not try its pattern again one character further."""
    metadata = read(sources, "deepseek-llm")
    pipeline = byte_level(metadata, patterns=PATTERNS["deepseek_llm"], whole=False)
    ours = Tokenizer.from_metadata(metadata)
    for text in ("⪇  \u3000x", "a     \u3000 b", "\u3000\u3000 \u3000", " \n  \u3000。"):
        assert ours.encode(text) == pipeline.encode(text).ids
    assert ours.encode("  \u3000") == [207, 207, 88946]


def word_pieces(metadata: Mapping[str, object], *, lowercase: bool, strip_accents: bool) -> Pipeline:
    tokens, kinds = (list(metadata[f"{KEY}{name}"]) for name in ("tokens", "token_type"))  # type: ignore[call-overload]
    words = {
        text if kinds[id] == CONTROL else text[1:] if text.startswith("▁") else f"##{text}": id
        for id, text in enumerate(tokens)
    }
    pipeline = Pipeline(WordPiece(words, unk_token="[UNK]"))
    pipeline.normalizer = BertNormalizer(lowercase=lowercase, strip_accents=strip_accents)
    pipeline.pre_tokenizer = BertPreTokenizer()
    return pipeline


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("strip_accents", [True, False])
def test_word_piece_ids_equal(sources: Path, lowercase: bool, strip_accents: bool) -> None:
    """Also where Unicode's tables, and what counts as an accent, a control or a space, are BERT's own."""
    metadata = dict(read(sources, "bert-bge"))
    metadata |= {f"{KEY}normalizer.lowercase": lowercase, f"{KEY}normalizer.strip_accents": strip_accents}
    pipeline = word_pieces(metadata, lowercase=lowercase, strip_accents=strip_accents)
    ours = Tokenizer.from_metadata(metadata)
    special = [
        "킏 한국어",
        "漢\u0301字豈",
        "हिन्दी की किताब",
        "1️⃣",
        "a\vb\x1cc\x85d\u2028e",
        "a▁b ▁ ▁a",
        "\u0378a",
        "İI\u0307",
    ]
    long = ["x" * 99, "x" * 100, "x" * 101, "é" * 100, "e\u0301" * 100, "漢" * 101]
    wrong = [text for text in [*special, *long, *TEXTS] if ours.encode(text) != pipeline.encode(text).ids]
    assert not wrong, wrong[:3]


def test_unigram_ids_equal(sources: Path) -> None:
    """llama.cpp normalises code points where the published charsmap is applied to graphemes."""
    metadata = read(sources, "nomic-bert-moe")
    tokens, scores = (list(metadata[f"{KEY}{name}"]) for name in ("tokens", "scores"))  # type: ignore[call-overload]
    unknown = int(str(metadata[f"{KEY}unknown_token_id"]))
    pipeline = Pipeline(Unigram(list(zip(tokens, scores, strict=True)), unknown))
    charsmap = metadata[f"{KEY}precompiled_charsmap"]
    rules = Precompiled(bytes(int(byte) & 255 for byte in charsmap))  # type: ignore[attr-defined]
    pipeline.normalizer = normalizers.Sequence([rules, normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")])
    pipeline.pre_tokenizer = Metaspace(split=True)
    ours = Tokenizer.from_metadata(metadata)
    wrong = [text for text in TEXTS if ours.encode(text) != pipeline.encode(text).ids]
    assert not wrong, wrong[:3]
