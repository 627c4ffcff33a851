"""SentencePiece's unigram kind (the model `t5`): the likeliest sequence of tokens, by Viterbi.

The normaliser and the search are those of the Rust `tokenizers` library; what stands around them, spaces above all,
is written here as llama.cpp does it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from secrets import token_hex

import regex
import tokenizers
from tokenizers.models import Unigram as RustUnigram

from opsin.text.charsmap import Charsmap
from opsin.text.vocabulary import NORMAL, UNUSED, USER_DEFINED, Vocabulary
from opsin.text.words import SPACE, SURROGATES, WordCache

_GAPS = regex.compile(" +")
_LETTER = r"[\p{L}\p{N}_]"
_BETWEEN_LETTERS = regex.compile(
    rf"(?<=[{_LETTER}--\p{{GCB=Prepend}}]) (?=[{_LETTER}--\p{{GCB=Extend}}--\p{{GCB=SpacingMark}}])", regex.V1
)
_LONG = 1 << 12  # characters: the library keeps the interpreter while it searches, but for many texts at once


class Unigram:
    """Encodes ordinary text, without special tokens, by log probabilities."""

    def __init__(
        self, vocabulary: Vocabulary, charsmap: bytes | None, *, space_prefix: bool, merge_spaces: bool
    ) -> None:
        self._space_prefix = space_prefix
        self._merge_spaces = merge_spaces
        self._normalizer = Charsmap(charsmap) if charsmap else None
        entries = self._read_entries(vocabulary)
        self._model = RustUnigram(entries, vocabulary.unknown)
        self._unknown = vocabulary.unknown
        self._cuts = self._find_cuts(vocabulary)
        self._chunk_cache = WordCache(self._encode_chunk)

    def encode(self, text: str, *, first: bool) -> Iterator[Sequence[int]]:
        """Ids of `text`; llama.cpp puts the space in front of every fragment, so `first` changes nothing."""
        text = SURROGATES.sub("\ufffd", text)
        chunks = iter(self._cuts.splititer(text) if self._cuts else [text])
        yield self._encode(self._place_spaces(self._normalize(next(chunks))))
        yield from self._chunk_cache.encode(chunks)

    def prepare(self) -> None:
        """All is made."""

    def count_kept(self, text: str) -> int:
        """See `TokenEncoder`: a word of any length may be one unknown token."""
        return 0

    def _encode_chunk(self, chunk: str) -> Iterator[Sequence[int]]:
        """Ids of what stands behind a space within the text."""
        text = self._normalize(chunk)
        yield self._encode(self._place_spaces(text) if self._merge_spaces else SPACE + text.replace(" ", SPACE))

    def _normalize(self, text: str) -> str:
        return text if self._normalizer is None else self._normalizer.normalize(text)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for id in self._search(text) if text else []:
            if id != self._unknown or not ids or ids[-1] != id:
                ids.append(id)
        return ids

    def _search(self, text: str) -> list[int]:
        if len(text) <= _LONG:
            return [token.id for token in self._model.tokenize(text)]
        found: list[int] = tokenizers.Tokenizer(self._model).encode_batch_fast([text], add_special_tokens=False)[0].ids
        return found

    def _place_spaces(self, text: str) -> str:
        if self._merge_spaces:
            words = text.strip(" ")
            return SPACE + _GAPS.sub(SPACE, words) if words else ""
        lead = len(text) - len(text.lstrip(" "))
        prefix = SPACE if self._space_prefix and lead < len(text) else ""
        return SPACE * lead + prefix + text[lead:].replace(" ", SPACE)

    @staticmethod
    def _find_cuts(vocabulary: Vocabulary) -> regex.Pattern[str] | None:
        """Matches the spaces at which a text can be cut: between letters that form no grapheme with a space.

        None where some token reaches over such a place, or where the space itself is no token of text.
        """
        within = re.search(f"[^{SPACE}\n]{SPACE}", "\n".join(vocabulary.texts))
        id = vocabulary.ids.get(SPACE)
        return None if within or id is None or not _is_text(vocabulary.kinds[id]) else _BETWEEN_LETTERS

    @staticmethod
    def _read_entries(vocabulary: Vocabulary) -> list[tuple[str, float]]:
        """Texts and scores for the search. What text cannot become gets one that nobody can know."""
        secret = token_hex(16)
        return [
            (f"\ufddf{secret}{id}", 0.0) if not _is_text(kind) else (text, 0.0 if kind == USER_DEFINED else score)
            for id, (text, score, kind) in enumerate(
                zip(vocabulary.texts, vocabulary.scores, vocabulary.kinds, strict=True)
            )
        ]


def _is_text(kind: int) -> bool:
    """Whether ordinary text can become a token of this kind."""
    return kind in (NORMAL, UNUSED, USER_DEFINED)
