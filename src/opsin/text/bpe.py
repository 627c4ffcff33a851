"""Byte-pair encoding: cut text by the patterns of the file, then merge each piece by rank.

Text repeats its words, so pieces are remembered with their ids. New pieces go to the Rust `tokenizers` library, whose
merge loop is that of the models. It drops characters that are no token; here every byte is given a token, a private
one where the file has none, so that nothing vanishes before the merges.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final

import regex
from tokenizers.models import BPE

from opsin.text.pretokenizers import PreTokenizer
from opsin.text.vocabulary import CONTROL, Vocabulary

MAX_REMEMBERED: Final = 1 << 17
LONGEST_REMEMBERED: Final = 64
SPACE: Final = "\u2581"
SURROGATES: Final = re.compile("[\ud800-\udfff]")  # bytes that were no UTF-8 stand in a str as these


def byte_table() -> dict[int, str]:
    """The character that stands for each byte in byte-level vocabularies (GPT-2's table)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in shown}
    hidden = [byte for byte in range(256) if byte not in table]
    return table | {byte: chr(256 + index) for index, byte in enumerate(hidden)}


BYTE_TO_CHARACTER: Final = byte_table()
CHARACTER_TO_BYTE: Final = {character: byte for byte, character in BYTE_TO_CHARACTER.items()}


class BytePairs:
    """Encodes ordinary text, without special tokens, for the models `gpt2` and `gemma4`."""

    space_prefix = False

    def __init__(self, vocabulary: Vocabulary, merges: Sequence[str], pre: PreTokenizer) -> None:
        self._vocabulary = vocabulary
        self._byte_encoded = pre.byte_encoded
        self._patterns = [regex.compile(f"({pattern})", regex.V1) for pattern in pre.patterns]
        self._spelled: dict[int, tuple[int, ...]] = {}  # private ids -> the ids of their bytes
        self._ids = {text: id for text, id in vocabulary.ids.items() if vocabulary.kinds[id] != CONTROL}
        pairs = self._read_pairs(merges)
        self._model = BPE(
            self._add_private(pairs), pairs, cache_capacity=0, ignore_merges=pre.ignore_merges,
            byte_fallback=not pre.byte_encoded,
        )  # fmt: skip
        self._remembered: dict[str, tuple[int, ...]] = {}

    def encode(self, text: str, *, first: bool) -> list[int]:
        """Ids of `text`. `first` tells whether nothing or a special token stands before it, which BPE ignores."""
        text = SURROGATES.sub("\ufffd", text)
        if not self._byte_encoded:
            text = text.replace(" ", SPACE)
        remembered = self._remembered
        try:
            return list(chain.from_iterable([remembered[piece] for piece in self._cut(text)]))
        except KeyError:
            return list(chain.from_iterable([self._encode_piece(piece) for piece in self._cut(text)]))

    def _cut(self, text: str) -> list[str]:
        pieces: Iterable[str] = (text,)
        for pattern in self._patterns:
            pieces = list(filter(None, chain.from_iterable(map(pattern.split, pieces))))
        return list(pieces)

    def _encode_piece(self, piece: str) -> tuple[int, ...]:
        known = self._remembered.get(piece)
        if known is not None:
            return known
        ids = self._merge(piece)
        if len(piece) <= LONGEST_REMEMBERED:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[piece] = ids
        return ids

    def _merge(self, piece: str) -> tuple[int, ...]:
        if self._byte_encoded:
            piece = piece.encode("utf-8").decode("latin-1").translate(BYTE_TO_CHARACTER)
        elif piece[0] == "\n" and piece in self._ids:  # such vocabularies hold runs of newlines that no merge makes
            return (self._ids[piece],)
        spelled = self._spelled
        return tuple(chain.from_iterable([spelled.get(id, (id,)) for id in self._tokenize(piece)]))

    def _tokenize(self, piece: str) -> list[int]:
        return [token.id for token in self._model.tokenize(piece)]

    def _read_pairs(self, merges: Sequence[str]) -> list[tuple[str, str]]:
        """The merges as pairs of texts. A side may begin with a space, so the search starts behind it."""
        pairs = []
        for merge in merges:
            cut = merge.find(" ", 1)
            if cut > 0:
                pairs.append((merge[:cut], merge[cut + 1 :]))
        return pairs

    def _add_private(self, pairs: Sequence[tuple[str, str]]) -> dict[str, int]:
        """All texts that may stand between two merges, with their ids."""
        ids = dict(self._ids)
        wanted = chain(BYTE_TO_CHARACTER.values() if self._byte_encoded else (), chain.from_iterable(pairs))
        size = len(self._vocabulary)
        for text in chain(wanted, map("".join, pairs)):
            if text not in ids:
                private = size + len(self._spelled)
                ids[text] = private
                self._spelled[private] = self._spell(text)
        return ids

    def _spell(self, text: str) -> tuple[int, ...]:
        """A text that is no token, as the tokens of its bytes; bytes without a token are lost, as in llama.cpp."""
        letters = text if self._byte_encoded else [f"<0x{byte:02X}>" for byte in text.encode("utf-8", "replace")]
        return tuple(self._ids[letter] for letter in letters if letter in self._ids)
