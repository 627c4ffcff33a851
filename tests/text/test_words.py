"""WordPiece and unigram vocabularies: what compiled code makes of words is what the slower way makes of them."""

from __future__ import annotations

import random
import sys
import unicodedata
from itertools import islice
from pathlib import Path

import corpus
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsin.config import from_environment
from opsin.errors import FileError
from opsin.gguf import File
from opsin.ops.cpu.texts import TextKernels
from opsin.text import Tokenizer, compiled
from opsin.text.charsmap import Charsmap

KERNELS = TextKernels(from_environment())
KEY = "tokenizer.ggml."
SOUND = [*islice(corpus.Corpus(31).strings(), 400)]
DAMAGED = [*islice(corpus.Corpus(32).broken(), 150)]
ODD = [
    "\r\n\r\n a\r\n\nb\r", "e\u0301e\u0302\u0301", "a\u0e33 \u200d\u00a9\u200d\u00a9\u0301", "\u0600a\u06dd1",
    "\u0915\u0301\u0915\u094d\u0937\u0301", "\uac01\u0301\u1100\u1161\u11a8", "\U0001f1e9\U0001f1ea\u0301\U0001f1ef",
    "\ufb01\u0301\ufb01", " \u0301 \uff9e \uff41\uff9e", "\U0001f3fbx\U0001f3fb", "\u0378a\u0378",
    "x\u2581y \u2581 z\u2581", "\u2026!?.,-", "\0\x1f\x85 \u00a0\0a", "\u6f22\u5b57\uf900\U0002f800a\U00020000",
    "\u0130I\u0131\u00df \ufb03 \u01c4 \u0149", "\ufdd0\ufffd", "\u0627\u064e\u0628\u200c\u062c", "x" * 700,
    "\u6f22" * 700, "\u00e9" * 300, "\u2581" * 40, "\u1160\u3164 \u115f", "", "a" * 100, "a" * 101,
    "\u044f" * 100 + " " + "\u044f" * 101, "a\u302e\u1b44\u302f\u1b44", "\U0001d15e\U0001d15f\U0001d16d\U0001d165",
    "\u03a3\u03a3 \u1e9e",
]  # fmt: skip


def both(metadata: dict[str, object]) -> tuple[Tokenizer, Tokenizer]:
    """The one with kernels, which uses them from the first text on, and the one without."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "PATIENCE", 0)
        return Tokenizer.from_metadata(metadata, KERNELS), Tokenizer.from_metadata(metadata)


def read(folder: Path, name: str) -> dict[str, object]:
    with File.open(folder / f"ggml-vocab-{name}.gguf") as file:
        return dict(file.metadata)


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "SHORT", 1)


@pytest.mark.parametrize("rules", [{}, {"lowercase": False}, {"strip_accents": False}], ids=str)
def test_words_are_cut_into_the_longest_tokens(sources: Path, rules: dict[str, bool]) -> None:
    metadata = read(sources, "bert-bge") | {f"{KEY}normalizer.{name}": value for name, value in rules.items()}
    fast, plain = both(metadata)
    used = fast._encoder.encode_long(["word " * 300])
    assert used is not None
    for text in [*SOUND, *DAMAGED, *ODD, "\n".join(SOUND + ODD), "".join(DAMAGED)]:
        assert fast.encode(text) == plain.encode(text), text


@pytest.mark.parametrize("rules", [{}, {"remove_extra_whitespaces": False}], ids=str)
def test_pieces_become_the_likeliest_tokens(sources: Path, rules: dict[str, bool]) -> None:
    fast, plain = both(read(sources, "nomic-bert-moe") | {KEY + name: value for name, value in rules.items()})
    used = fast._encoder.encode_long(["word " * 300])
    assert used is not None
    for text in [*SOUND, *DAMAGED, *ODD, "\n".join(SOUND + ODD), "".join(DAMAGED)]:
        assert fast.encode(text) == plain.encode(text), text


@pytest.mark.parametrize("name", ["bert-bge", "nomic-bert-moe"])
def test_long_texts_of_special_tokens_and_words_keep_their_order(sources: Path, name: str) -> None:
    metadata = read(sources, name)
    fast, plain = both(metadata)
    token = metadata[f"{KEY}tokens"][int(metadata[f"{KEY}mask_token_id"])]
    text = token.join(SOUND[:300]) + "\ufdd0" + token * 3 + "\ufdd0\ufdd1" + token
    text += " ".join(SOUND) * 3 + "x" * 5000
    found = fast.encode(text, special=True, add_special=True)
    assert found.count(metadata[f"{KEY}mask_token_id"]) >= 303
    assert found == plain.encode(text, special=True, add_special=True)


@pytest.mark.parametrize("strip", [True, False])
def test_each_character_is_rewritten_as_alone(sources: Path, strip: bool) -> None:
    """Every character of Unicode between letters."""
    fast, plain = both(read(sources, "bert-bge") | {f"{KEY}normalizer.strip_accents": strip})
    codes = [*range(0xD800), *range(0xE000, 0x32000), *range(0xE0000, 0xE0200), sys.maxunicode]
    kept = 0
    for start in range(0, len(codes), 500):
        text = "".join(f"a{chr(code)}b " for code in codes[start : start + 500])
        found = fast._encoder.encode_long([text])
        kept += found is not None
        assert fast.encode(text) == plain.encode(text), hex(codes[start])
    assert kept > 0.9 * len(codes) / 500  # others have marks that are put in order


def test_marks_that_are_put_in_order_are_left_to_the_library(sources: Path) -> None:
    """Some marks are no accents, so that they stay; decomposed text has them in an order of their own."""
    fast, plain = both(read(sources, "bert-bge"))
    marks = [chr(code) for code in range(0x1E000) if unicodedata.combining(chr(code)) and chr(code) not in "\u0300"]
    chance = random.Random(4)
    texts = ["a" + "".join(chance.choices(marks, k=4)) + "b" for _ in range(4000)]
    stay = [mark for mark in marks if unicodedata.category(mark) == "Mc"]
    texts += ["a" + one + other + "b" for one in stay for other in stay]
    for text in texts:
        assert fast.encode(text) == plain.encode(text), text.encode("unicode_escape")
    assert fast._encoder.encode_long(["word " * 200 + stay[0]]) is None


def test_a_zero_byte_in_a_token_is_no_beginning_of_a_word(sources: Path) -> None:
    texts = ["[PAD]", "[UNK]", "▁", "\0a", "▁\0b", "▁a", "a", "▁▁", "▁▁a", "", "\0", "b\0"]
    fast, plain = both({
        f"{KEY}model": "bert", f"{KEY}tokens": texts, f"{KEY}token_type": [3, 3, *[1] * 10],
        f"{KEY}unknown_token_id": 1, f"{KEY}bos_token_id": 0, f"{KEY}seperator_token_id": 0,
    })  # fmt: skip
    assert fast._encoder.encode_long(["a " * 300]) is not None
    for text in ("a", "aa a", "\0a", "▁", "▁a", "a▁a", "▁▁a ▁", "b", "ab", "\0"):
        assert fast.encode(text) == plain.encode(text), text
    assert plain.encode("aa") == [5, 6]


@pytest.fixture
def charsmap(sources: Path) -> Charsmap:
    return Charsmap(
        np.asarray(read(sources, "nomic-bert-moe")[f"{KEY}precompiled_charsmap"]).astype(np.uint8).tobytes()
    )


def test_every_character_is_normalised_as_by_the_library(charsmap: Charsmap) -> None:
    singles = charsmap.singles()
    assert singles is not None
    codes = [code for code in [*range(0x32000), sys.maxunicode] if not 0xD800 <= code < 0xE000]
    for start in range(0, len(codes), 256):
        text = "xyz\n\n".join(map(chr, codes[start : start + 256]))
        assert singles.normalize(text) == charsmap.normalize(text), hex(codes[start])
        assert singles.normalize(text + "e\u0301") == charsmap.normalize(text + "e\u0301"), hex(codes[start])


def test_short_graphemes_are_left_to_the_library(charsmap: Charsmap) -> None:
    singles = charsmap.singles()
    assert singles is not None
    marks = [chr(code) for code in range(0x32000) if unicodedata.category(chr(code)) in ("Mn", "Mc", "Me", "Cf", "Sk")]
    letters = "aﬁé\u00a0 Ａ漢😀\u0600ا"
    chance = random.Random(5)
    texts = ["".join(chance.choices(letters, k=2)) + mark + chance.choice(letters) for mark in marks for _ in range(3)]
    texts += ["".join(chance.choices([*letters, *marks, "\r\n", "\n", "\r"], k=8)) for _ in range(1500)]
    for text in [*texts, *SOUND, *ODD]:
        assert singles.normalize(text) == charsmap.normalize(text), text.encode("unicode_escape")


def test_rules_for_two_characters_that_end_a_line_are_left_to_the_library() -> None:
    class Odd(Charsmap):
        def __init__(self) -> None:
            pass

        def normalize(self, text: str) -> str:
            return text.replace("\r\n", "\n")

    assert Odd().singles() is None


def damaged(raw: bytes, chance: random.Random) -> bytes:
    """Cut off, with other numbers in many places, in its first units, in its size, or altogether noise."""
    changed, how = bytearray(raw), chance.randrange(6)
    if how == 0:
        return raw[: chance.randrange(len(raw))]
    if how == 1:
        changed[:4] = chance.randbytes(4)
    elif how == 2:
        changed[4:2000] = chance.randbytes(1996)
    elif how == 3:
        return chance.randbytes(chance.randrange(2000))
    elif how == 4:
        changed[:4] = (len(raw) // 8 * 4).to_bytes(4, "little")
    for _ in range(chance.choice((1, 3, 300))):
        changed[chance.randrange(len(raw))] = chance.randrange(256)
    return bytes(changed)


def test_damaged_rules_are_refused_or_harmless(sources: Path) -> None:
    """The library would end the thread."""
    raw = np.asarray(read(sources, "nomic-bert-moe")[f"{KEY}precompiled_charsmap"]).astype(np.uint8).tobytes()
    chance, refused = random.Random(6), 0
    text = "".join(map(chr, chance.sample([*range(0xD800), *range(0xE000, 0x2FA20)], 3000)))
    for _ in range(300):
        try:
            assert len(Charsmap(damaged(raw, chance)).normalize(text)) < 100_000
        except FileError:
            refused += 1
    assert 100 < refused < 300


@pytest.mark.parametrize(
    ("raw", "wrong"),
    [
        (b"", "0 units in 0 bytes"), (b"\4\0\0\0", "1 units in 4 bytes"), (bytes(4), "0 units in 4 bytes"),
        (b"\4\0\0\0" + bytes(4), "lead out of it"), (b"\0\4\0\0\0\4" + bytes(1022), None),
        (b"\0\4\0\0" + b"\xff" * 1024, "lead out of it"),
        (b"\0\4\0\0" + (1 << 10).to_bytes(4, "little") + bytes(1020), None),
        (b"\0\4\0\0" + (256 << 10).to_bytes(4, "little") + bytes(1020), "lead out of it"),
        (b"\0\4\0\0" + (1 << 8).to_bytes(4, "little") + bytes(1020), "lead out of its texts"),
        (b"\0\4\0\0" + (1 << 8).to_bytes(4, "little") + bytes(1276) + b"a" * 255, None),
        (b"\0\4\0\0" + (1 << 8).to_bytes(4, "little") + bytes(1276) + b"a" * 256, "more than 255 bytes"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_rules_is_said(raw: bytes, wrong: str | None) -> None:
    if wrong is None:
        assert Charsmap(raw).normalize("x\n")
    else:
        with pytest.raises(FileError, match=f"charsmap is damaged: .*{wrong}"):
            Charsmap(raw)


def unigram(tokens: dict[str, float]) -> dict[str, object]:
    """A tiny vocabulary: nothing of which stands for what is unknown."""
    texts = ["<pad>", "</s>", "<unk>", "▁", *tokens]
    return {
        f"{KEY}model": "t5", f"{KEY}tokens": texts, f"{KEY}scores": [0.0, 0.0, 0.0, -3.0, *tokens.values()],
        f"{KEY}token_type": [3, 3, 2, *[1] * (len(tokens) + 1)], f"{KEY}remove_extra_whitespaces": True,
    }  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(
    tokens=st.dictionaries(st.text("abcé", min_size=1, max_size=5), st.integers(-12, 0).map(float), min_size=1),
    text=st.text("abcdé  \ufdd0", min_size=1, max_size=60),
)
def test_equal_sums_give_the_tokens_of_the_library(tokens: dict[str, float], text: str) -> None:
    fast, plain = both(unigram(tokens))
    assert fast._encoder.encode_long([text + " "]) is not None
    assert fast.encode(text) == plain.encode(text)


def test_scores_that_would_be_rounded_are_left_to_the_library() -> None:
    fast, plain = both(unigram({"a": -0.1, "b": -1e-30}))
    assert fast._encoder.encode_long(["ab " * 300]) is None
    assert fast.encode("ab " * 300) == plain.encode("ab " * 300)


def test_no_text_becomes_a_token_that_is_none_of_text(sources: Path) -> None:
    for made in both(read(sources, "nomic-bert-moe")):
        for id in (0, 2, 3, 250001):
            assert id == 3 or id not in made.encode(f"a \ufddf{id} b{id}\ufddf{id}")
