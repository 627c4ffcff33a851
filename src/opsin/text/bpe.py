"""Byte-pair encoding: cut text by the patterns of the file, then merge each piece by rank.

Text repeats its words, so pieces are remembered with their ids. New pieces go to the Rust `tokenizers` library, whose
merge loop is that of the models. It drops characters that are no token; here every byte is given a token, a private
one where the file has none, so that nothing vanishes before the merges.
"""

from __future__ import annotations

import re
import sys
from codecs import charmap_decode
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Final

import numpy as np
import regex
from tokenizers.models import BPE

from opsin.text.compiled import Fragments, LongTexts
from opsin.text.joints import BETWEEN, Joints, Parts
from opsin.text.plans import Ints, Kernels, Merging
from opsin.text.pretokenizers import PreTokenizer
from opsin.text.vocabulary import CONTROL, Vocabulary
from opsin.text.words import SPACE, WordMemory, cut_pattern

SURROGATES: Final = re.compile("[\ud800-\udfff]")  # bytes that were no UTF-8 stand in a str as these


def byte_table() -> dict[int, str]:
    """The character that stands for each byte in byte-level vocabularies (GPT-2's table)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in shown}
    hidden = [byte for byte in range(256) if byte not in table]
    return table | {byte: chr(256 + index) for index, byte in enumerate(hidden)}


BYTE_TO_CHARACTER: Final = byte_table()
CHARACTER_TO_BYTE: Final = {character: byte for byte, character in BYTE_TO_CHARACTER.items()}
_BYTE_LETTERS: Final = "".join(BYTE_TO_CHARACTER[byte] for byte in range(256))
_SPACED_WORD: Final = regex.compile(f"({SPACE}[^{SPACE}]*)")
_UNSPACED_LINE: Final = re.compile(f"^(?=[^\n{SPACE}])", re.MULTILINE)
_CODE_TO_BYTE: Final = {ord(character): byte for byte, character in BYTE_TO_CHARACTER.items()}


class BytePairs:
    """Encodes ordinary text, without special tokens, for the models `gpt2` and `gemma4`."""

    space_prefix = False

    def __init__(
        self, vocabulary: Vocabulary, merges: Sequence[str], pre: PreTokenizer, *, lowercase: bool = False,
        kernels: Kernels | None = None,
    ) -> None:  # fmt: skip
        self._pre = pre
        self._lowercase = lowercase
        self._size = len(vocabulary)
        self._byte_encoded = pre.byte_encoded
        self._whole = pre.ignore_merges
        self._ids = dict(vocabulary.ids)
        for id in vocabulary.of_kind(CONTROL):
            del self._ids[vocabulary.texts[id]]
        pairs = _read_pairs(merges)
        self._spelled: dict[int, tuple[int, ...]] = {}  # private ids -> the ids of their bytes
        texts = self._add_private(pairs)
        self._model = BPE(texts, pairs, cache_capacity=0, byte_fallback=not pre.byte_encoded)
        self._parts = Parts(self._encode_part, lambda: self._spell_out(texts))
        self._letters = _find_letters(texts, byte_encoded=self._byte_encoded)
        self._private = self._size + len(self._spelled)
        patterns = [regex.compile(f"({pattern})", regex.V1) for pattern in pre.patterns]
        self._to_words = patterns[: pre.word_patterns]
        self._within_words = patterns[pre.word_patterns :]
        if not pre.byte_encoded and not pre.spaces_vanish:
            before_space = cut_pattern(left[-1] for left, right in pairs if right[0] == SPACE)
            self._to_words = [*patterns, _SPACED_WORD if pre.space_begins_words else before_space]
        self._remembered = WordMemory(self._encode_word)
        self._pieces = WordMemory(self._encode_piece)
        self._long = LongTexts(kernels, lambda: self._plan(texts, merges), self._encode_piece, self._write_spaces)

    def encode(self, text: str, *, first: bool) -> list[int]:
        """Ids of `text`. `first` tells whether nothing or a special token stands before it, which BPE ignores."""
        text = SURROGATES.sub("\ufffd", text)
        if self._pre.spaces_vanish:
            words = self._to_words[0].findall(text)
            return self._remembered.encode([_lower(word) for word in words] if self._lowercase else words)
        if not self._byte_encoded:
            text = text.replace(" ", SPACE)
        if self._pre.space_begins_words:
            text = _UNSPACED_LINE.sub(SPACE, text)
        return self._remembered.encode(cut(self._to_words, [text]))

    def encode_long(self, fragments: Fragments) -> list[int] | None:
        """Ids of long texts and of what stands between them; None where they must be encoded one by one."""
        return self._long.encode(fragments)

    def _write_spaces(self, fragments: Fragments) -> Fragments:
        if self._byte_encoded:
            return fragments
        return [part.replace(" ", SPACE) if isinstance(part, str) else part for part in fragments]

    def _encode_word(self, word: str) -> tuple[int, ...]:
        if not self._within_words:
            return self._encode_piece(word)
        return tuple(self._pieces.encode(cut(self._within_words, [word])))

    def _find_whole(self, piece: str) -> int | None:
        """The id of a piece that is a token and is not merged: by the rules of the file, or as no merge makes it."""
        if self._whole:
            return self._ids.get(self._write(piece))
        return self._ids.get(piece) if self._pre.newline_runs and piece[0] == "\n" else None

    def _encode_piece(self, piece: str) -> tuple[int, ...]:
        id = self._find_whole(piece)
        return self._parts.encode(piece) if id is None else (id,)

    def _encode_part(self, part: str) -> tuple[int, ...]:
        ids = [token.id for token in self._model.tokenize(self._write(part))]
        if max(ids, default=0) < self._size:
            return tuple(ids)
        return tuple(chain.from_iterable([self._spelled.get(id, (id,)) for id in ids]))

    def _write(self, text: str) -> str:
        """A text in the letters of the vocabulary."""
        return charmap_decode(text.encode(), "strict", _BYTE_LETTERS)[0] if self._byte_encoded else text

    def _spell_out(self, texts: Iterable[str]) -> str:
        """What the texts of the vocabulary stand for. Bytes of half characters become lone surrogates."""
        lines = BETWEEN.join(texts)
        if not self._byte_encoded:
            return lines
        return lines.translate(_CODE_TO_BYTE).encode("latin-1", "replace").decode("utf-8", "surrogateescape")

    def _plan(self, texts: Mapping[str, int], merges: Sequence[str]) -> Merging | None:
        """How kernels encode long texts; None where words are made in a way that they do not know."""
        pre = self._pre
        if pre.spaces_vanish or pre.space_begins_words or (self._whole and not self._byte_encoded):
            return None
        units, byte_ids = self._letters, np.zeros(1, np.int32)
        if not self._byte_encoded:
            codes = np.arange(sys.maxunicode + 1, dtype=np.int32)
            known = self._letters[np.minimum(codes, len(self._letters) - 1)]
            units = np.where(known < 0, self._private + codes, known).astype(np.int32)
            byte_ids = np.array([self._ids.get(f"<0x{byte:02X}>", -1) for byte in range(256)], np.int32)
        return Merging(
            texts=[*texts],
            symbols=np.fromiter(texts.values(), np.int32, len(texts)),
            size=self._size,
            unit="bytes" if self._byte_encoded else "characters",
            units=units,
            unknown=self._private,
            byte_ids=byte_ids,
            patterns=pre.patterns,
            joints=None if self._byte_encoded else Joints(self._spell_out(texts)),
            merges=merges,
            whole="any" if self._whole else "newline" if pre.newline_runs else "no",
            kept=10 if pre.newline_runs and not self._whole else -1,
            letters=b"".join(letter.encode().ljust(2, b"\0") for letter in _BYTE_LETTERS),
        )

    def _add_private(self, pairs: Sequence[tuple[str, str]]) -> dict[str, int]:
        """All texts that may stand before, between and after merges, with their ids."""
        letters = BYTE_TO_CHARACTER.values() if self._byte_encoded else ()
        texts = {*letters, *chain.from_iterable(pairs), *map("".join, pairs)}
        missing = sorted(texts - self._ids.keys())
        private = {text: self._size + index for index, text in enumerate(missing)}
        self._spelled = {id: self._spell(text) for text, id in private.items()}
        return self._ids | private

    def _spell(self, text: str) -> tuple[int, ...]:
        """A text that is no token, as the tokens of its bytes; bytes without a token are lost, as in llama.cpp."""
        letters = text if self._byte_encoded else [f"<0x{byte:02X}>" for byte in text.encode("utf-8", "replace")]
        return tuple(self._ids[letter] for letter in letters if letter in self._ids)


def _find_letters(texts: Mapping[str, int], *, byte_encoded: bool) -> Ints:
    """The symbol of each byte; or of each character, -1 where it has none, and so the last."""
    if byte_encoded:
        return np.array([texts[BYTE_TO_CHARACTER[byte]] for byte in range(256)], np.int32)
    single = {ord(text): id for text, id in texts.items() if len(text) == 1}
    letters = np.full(max(single, default=0) + 2, -1, np.int32)
    letters[list(single)] = list(single.values())
    return letters


def _lower(word: str) -> str:
    """In small letters, character by character; one that would become several keeps the first."""
    lowered = word.lower()
    return lowered if len(lowered) == len(word) else "".join(letter.lower()[:1] for letter in word)


def _read_pairs(merges: Sequence[str]) -> list[tuple[str, str]]:
    """The merges as pairs of texts. A side may begin with a space, so the search starts behind it."""
    return [(merge[:cut], merge[cut + 1 :]) for merge in merges if 0 < (cut := merge.find(" ", 1)) < len(merge) - 1]


def cut(patterns: Iterable[regex.Pattern[str]], pieces: list[str]) -> list[str]:
    """Matches and what lies between them, pattern after pattern."""
    for pattern in patterns:
        pieces = list(filter(None, chain.from_iterable(map(pattern.split, pieces))))
    return pieces
