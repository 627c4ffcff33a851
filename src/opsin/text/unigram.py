"""SentencePiece's unigram kind (the model `t5`): the likeliest sequence of tokens, by Viterbi.

The normaliser and the search are those of the Rust `tokenizers` library; what stands around them, spaces above all,
is written here as llama.cpp does it.
"""

from __future__ import annotations

import re
from secrets import token_hex
from typing import Final

import numpy as np
from tokenizers.models import Unigram as RustUnigram

from opsin.text.charsmap import Charsmap, Singles
from opsin.text.compiled import Fragments, LongTexts
from opsin.text.joints import BETWEEN, Joints
from opsin.text.plans import Kernels, Searching
from opsin.text.vocabulary import NORMAL, UNUSED, USER_DEFINED, Vocabulary
from opsin.text.words import SPACE, WordMemory

_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_PREPENDED: Final = "\u0d4e\U000111c2\U000111c3\U0001193f\U00011941\U00011a3a\U00011a84-\U00011a89\U00011d46\U00011f02"
_BETWEEN_LETTERS: Final = re.compile(rf"(?<=[^\W{_PREPENDED}]) (?=\w)")
_UNKNOWN_PENALTY: Final = 10.0  # the library's: an unknown character is so much worse than the worst token
_FINEST: Final = 30  # bits behind the point: scores with no more are added without rounding, here and in the library
_MOST: Final = 1 << 20  # of a score


class Unigram:
    """Encodes ordinary text, without special tokens, by log probabilities."""

    def __init__(
        self, vocabulary: Vocabulary, charsmap: bytes | None, *, space_prefix: bool, merge_spaces: bool,
        kernels: Kernels | None = None,
    ) -> None:  # fmt: skip
        self._space_prefix = space_prefix
        self._merge_spaces = merge_spaces
        self._normalizer = Charsmap(charsmap) if charsmap else None
        self._singles: Singles | None = None
        entries = self._read_entries(vocabulary)
        self._model = RustUnigram(entries, vocabulary.unknown)
        self._unknown = vocabulary.unknown
        self._cuts = self._find_cuts(vocabulary)
        self._chunks = WordMemory(self._encode_chunk)
        self._long = LongTexts(kernels, lambda: self._plan(vocabulary), self._encode, self._write)

    def encode(self, text: str, *, first: bool) -> list[int]:
        """Ids of `text`; llama.cpp puts the space in front of every fragment, so `first` changes nothing."""
        text = _SURROGATES.sub("\ufffd", text)
        head, *chunks = self._cuts.split(text) if self._cuts else [text]
        return [*self._encode(self._place_spaces(self._normalize(head))), *self._chunks.encode(chunks)]

    def encode_long(self, fragments: Fragments) -> list[int] | None:
        """Ids of long texts and of what stands between them; None where they must be encoded one by one."""
        return self._long.encode(fragments)

    def _write(self, fragments: Fragments) -> Fragments:
        """What is searched: normalised, with spaces in their places."""
        return [self._write_text(part) if isinstance(part, str) else part for part in fragments]

    def _write_text(self, text: str) -> str:
        text = _SURROGATES.sub("\ufffd", text)
        return self._place_spaces(text if self._singles is None else self._singles.normalize(text))

    def _plan(self, vocabulary: Vocabulary) -> Searching | None:
        """How kernels encode long texts; None where rounding, or rules of the file, would matter."""
        if self._cuts is None or self._unknown is None:
            return None
        if self._normalizer is not None:
            self._singles = self._normalizer.singles()
            if self._singles is None:
                return None
        entries = self._read_entries(vocabulary)
        all_scores = np.array([score for _, score in entries], np.float64)
        worst = float(all_scores.min()) - _UNKNOWN_PENALTY
        fixed = np.append(all_scores, worst) * 2.0**_FINEST
        if not (np.abs(fixed) < _MOST * 2.0**_FINEST).all() or (fixed != np.rint(fixed)).any() or worst > 0:
            return None
        ids = [id for id in range(len(vocabulary)) if _is_text(vocabulary.kinds[id]) and vocabulary.texts[id]]
        texts = [vocabulary.texts[id] for id in ids]
        return Searching(
            texts=texts,
            ids=np.array(ids, np.int32),
            unknown=self._unknown,
            fused=self._unknown,
            joints=Joints(BETWEEN.join(texts)),
            scores=fixed[ids].astype(np.int64),
            unknown_score=int(fixed[-1]),
        )

    def _encode_chunk(self, chunk: str) -> tuple[int, ...]:
        """Ids of what stands behind a space within the text."""
        text = self._normalize(chunk)
        return tuple(self._encode(self._place_spaces(text) if self._merge_spaces else SPACE + text.replace(" ", SPACE)))

    def _normalize(self, text: str) -> str:
        return text if self._normalizer is None else self._normalizer.normalize(text)

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
