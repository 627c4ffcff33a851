"""SentencePiece's unigram kind (the model `t5`): the likeliest sequence of tokens, by Viterbi.

The normaliser and the search are those of the Rust `tokenizers` library; what stands around them, spaces above all,
is written here as llama.cpp does it.
"""

from __future__ import annotations

import re
from typing import Final

from tokenizers.models import Unigram as RustUnigram
from tokenizers.normalizers import Precompiled

from opsin.errors import FileError
from opsin.text.vocabulary import NORMAL, UNUSED, USER_DEFINED, Vocabulary
from opsin.text.words import SPACE

_SURROGATES: Final = re.compile("[\ud800-\udfff]")


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
        entries = [self._entry(vocabulary, id) for id in range(len(vocabulary))]
        self._model = RustUnigram(entries, vocabulary.unknown)
        self._unknown = vocabulary.unknown

    def encode(self, text: str, *, first: bool) -> list[int]:
        """Ids of `text`; llama.cpp puts the space in front of every fragment, so `first` changes nothing."""
        text = _SURROGATES.sub("\ufffd", text)
        if self._normalizer is not None:
            text = self._normalizer.normalize_str(text)
        text = self._place_spaces(text)
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
    def _entry(vocabulary: Vocabulary, id: int) -> tuple[str, float]:
        """A token for the search. What text cannot become gets a noncharacter for its text."""
        kind = vocabulary.kinds[id]
        if kind in (NORMAL, UNUSED):
            return vocabulary.texts[id], vocabulary.scores[id]
        if kind == USER_DEFINED:
            return vocabulary.texts[id], 0.0
        return f"\ufddf{id}", 0.0
