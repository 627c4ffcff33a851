"""SentencePiece's unigram kind (the model `t5`): the likeliest sequence of tokens, by Viterbi.

The normaliser and the search are those of the Rust `tokenizers` library; what stands around them, spaces above all,
is written here as llama.cpp does it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from secrets import token_hex
from typing import Final

from tokenizers.models import Unigram as RustUnigram
from tokenizers.normalizers import Precompiled

from opsin.errors import FileError
from opsin.text.vocabulary import NORMAL, UNUSED, USER_DEFINED, Vocabulary
from opsin.text.words import SPACE, WordMemory

_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_PREPENDED: Final = "\u0d4e\U000111c2\U000111c3\U0001193f\U00011941\U00011a3a\U00011a84-\U00011a89\U00011d46\U00011f02"
_BETWEEN_LETTERS: Final = re.compile(rf"(?<=[^\W{_PREPENDED}]) (?=\w)")


class Unigram:
    """Encodes ordinary text, without special tokens, by log probabilities."""

    def __init__(
        self, vocabulary: Vocabulary, charsmap: bytes | None, *, space_prefix: bool, merge_spaces: bool
    ) -> None:
        self._space_prefix = space_prefix
        self._merge_spaces = merge_spaces
        self._normalizer = None
        if charsmap:
            try:
                self._normalizer = Precompiled(charsmap)
            except Exception as error:
                raise FileError(f"precompiled_charsmap is damaged: {error}", hint="download the file again") from error
        secret = token_hex(16)  # what people write must not become a token that is no text
        entries = [self._entry(vocabulary, id, secret) for id in range(len(vocabulary))]
        self._model = RustUnigram(entries, vocabulary.unknown)
        self._unknown = vocabulary.unknown
        self._cuts = self._find_cuts(vocabulary)
        self._chunks = WordMemory(self._encode_chunk)

    def encode(self, text: str, *, first: bool) -> list[int]:
        """Ids of `text`; llama.cpp puts the space in front of every fragment, so `first` changes nothing."""
        text = _SURROGATES.sub("\ufffd", text)
        head, *chunks = self._cuts.split(text) if self._cuts else [text]
        return [*self._encode(self._place_spaces(self._normalize(head))), *self._chunks.encode(chunks)]

    def encode_long(self, fragments: Sequence[str | int]) -> list[int] | None:
        """No kernels know this kind of vocabulary."""
        return None

    def _encode_chunk(self, chunk: str) -> tuple[int, ...]:
        """Ids of what stands behind a space within the text."""
        text = self._normalize(chunk)
        return tuple(self._encode(self._place_spaces(text) if self._merge_spaces else SPACE + text.replace(" ", SPACE)))

    def _normalize(self, text: str) -> str:
        return text if self._normalizer is None else self._normalizer.normalize_str(text)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for token in self._model.tokenize(text) if text else []:
            if token.id != self._unknown or not ids or ids[-1] != token.id:
                ids.append(token.id)
        return ids

    def _place_spaces(self, text: str) -> str:
        if self._merge_spaces:
            return "".join(SPACE + word for word in text.split(" ") if word)
        lead = len(text) - len(text.lstrip(" "))
        prefix = SPACE if self._space_prefix and lead < len(text) else ""
        return SPACE * lead + prefix + text[lead:].replace(" ", SPACE)

    @staticmethod
    def _find_cuts(vocabulary: Vocabulary) -> re.Pattern[str] | None:
        """Matches the spaces at which a text can be cut: between letters that form no grapheme with a space.

        None where some token reaches over such a place, or where the space itself is no token.
        """
        within = re.search(f"[^{SPACE}\n]{SPACE}", "\n".join(vocabulary.texts))
        return None if within or SPACE not in vocabulary.ids else _BETWEEN_LETTERS

    @staticmethod
    def _entry(vocabulary: Vocabulary, id: int, secret: str) -> tuple[str, float]:
        """A token for the search. What text cannot become gets a text that nobody can know."""
        kind = vocabulary.kinds[id]
        if kind in (NORMAL, UNUSED):
            return vocabulary.texts[id], vocabulary.scores[id]
        if kind == USER_DEFINED:
            return vocabulary.texts[id], 0.0
        return f"\ufddf{secret}{id}", 0.0
