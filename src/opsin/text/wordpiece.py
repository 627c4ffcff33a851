"""WordPiece (the model `bert`): words are cut greedily into the longest tokens.

GGUF files spell a token that begins a word with U+2581 in front and one inside a word without the `##` of BERT.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from opsin.text.vocabulary import CONTROL, Vocabulary
from opsin.text.words import SPACE, WordMemory

_HAN: Final = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
_HAN_CLASS: Final = "".join(f"{chr(low)}-{chr(high)}" for low, high in _HAN)
_CHUNKS: Final = re.compile(rf"[{_HAN_CLASS}]|[^\s{_HAN_CLASS}]+")  # words touch no others across their bounds


class WordPiece:
    """Encodes ordinary text, without special tokens."""

    def __init__(self, vocabulary: Vocabulary, *, lowercase: bool, strip_accents: bool) -> None:
        self._lowercase = lowercase
        self._strip_accents = strip_accents
        self._ids = {text: id for text, id in vocabulary.ids.items() if vocabulary.kinds[id] != CONTROL}
        self._longest = max(map(len, self._ids), default=1)
        self._unknown = vocabulary.unknown
        self._chunks = WordMemory(self._encode_chunk)
        self._words = WordMemory(self._encode_word)

    def encode(self, text: str, *, first: bool) -> list[int]:
        """Ids of `text`. `first` tells what stands before it, which WordPiece ignores."""
        return self._chunks.encode(_CHUNKS.findall(text))

    def encode_long(self, fragments: Sequence[str | int]) -> list[int] | None:
        """No kernels know this kind of vocabulary."""
        return None

    def _encode_chunk(self, chunk: str) -> tuple[int, ...]:
        return tuple(self._words.encode(self._split(chunk)))

    def _split(self, text: str) -> list[str]:
        """Words, normalised; punctuation and Chinese characters stand alone."""
        if self._strip_accents:
            text = unicodedata.normalize("NFD", text)
        parts = [self._part(character) for character in text]
        return "".join(parts).split(" ")

    def _part(self, character: str) -> str:
        """What a character contributes: itself, with spaces around it where it stands alone, a space, or nothing."""
        if character.isspace():
            return " "
        category = unicodedata.category(character)
        if category[0] == "C" or character == "\ufffd" or (self._strip_accents and category[0] == "M"):
            return ""
        shown = _lower(character) if self._lowercase else character
        alone = category[0] == "P" or (character < "\x7f" and category[0] == "S") or _is_han(character)
        return f" {shown} " if alone else shown

    def _encode_word(self, word: str) -> tuple[int, ...]:
        unknown = () if self._unknown is None else (self._unknown,)
        word = SPACE + word if word else ""
        ids = []
        place = 0
        while place < len(word):
            ends = range(min(len(word), place + self._longest), place, -1)
            end = next((end for end in ends if word[place:end] in self._ids), None)
            if end is None:
                return unknown
            ids.append(self._ids[word[place:end]])
            place = end
        return tuple(ids)


def _lower(character: str) -> str:
    lowered = character.lower()
    return lowered if len(lowered) == 1 else lowered[0]


def _is_han(character: str) -> bool:
    return any(low <= ord(character) <= high for low, high in _HAN)
