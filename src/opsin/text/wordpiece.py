"""WordPiece (the model `bert`): words are cut greedily into the longest tokens.

GGUF files spell a token that begins a word with U+2581 in front and one inside a word without the `##` of BERT.
What a character becomes, and which stand alone, is asked of the Rust library `tokenizers`: its tables are those that
models are published with (and older than Python's).
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

import numpy as np
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from opsin.text.compiled import Fragments, LongTexts
from opsin.text.plans import Kernels, Searching
from opsin.text.vocabulary import CONTROL, Vocabulary
from opsin.text.words import SPACE, WordMemory

_HAN: Final = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
_HAN_CLASS: Final = "".join(f"{chr(low)}-{chr(high)}" for low, high in _HAN)
# Other controls, such as U+000B, are no spaces but dropped.
_SPACES: Final = " \t\n\r\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_CHUNKS: Final = re.compile(rf"[{_HAN_CLASS}]|[^{_SPACES}{_HAN_CLASS}]+")  # words touch no others across their bounds
_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_HEAD: Final = "\0"
_MOST: Final = 100  # characters of a word; all of BERT's vocabularies were published with this bound


class WordPiece:
    """Encodes ordinary text, without special tokens."""

    def __init__(
        self, vocabulary: Vocabulary, *, lowercase: bool, strip_accents: bool, kernels: Kernels | None = None
    ) -> None:
        self._decomposes = strip_accents
        self._normalizer = BertNormalizer(lowercase=lowercase, strip_accents=strip_accents)
        self._words_of = BertPreTokenizer().pre_tokenize_str
        texts = {text: id for text, id in vocabulary.ids.items() if vocabulary.kinds[id] != CONTROL}
        self._heads = {text[1:]: id for text, id in texts.items() if text.startswith(SPACE) and text != SPACE}
        self._tails = {text: id for text, id in texts.items() if not text.startswith(SPACE) or text == SPACE}
        self._longest = max(map(len, texts), default=1)
        self._unknown = vocabulary.unknown
        self._chunks = WordMemory(self._encode_chunk)
        self._words = WordMemory(self._encode_word)
        self._long = LongTexts(kernels, self._plan, lambda word: self._encode_word(word[len(_HEAD) :]), _drop_damage)

    def encode(self, text: str, *, first: bool) -> list[int]:
        """Ids of `text`. `first` tells what stands before it, which WordPiece ignores."""
        return self._chunks.encode(_CHUNKS.findall(text))

    def encode_long(self, fragments: Fragments) -> list[int] | None:
        """Ids of long texts and of what stands between them; None where they must be encoded one by one."""
        return self._long.encode(fragments)

    def _plan(self) -> Searching:
        """How kernels encode long texts. A zero byte, which no word has, stands before the tokens that begin one."""
        known = {_HEAD + text: id for text, id in self._heads.items() if _may_stand(text)}
        known |= {text: id for text, id in self._tails.items() if _may_stand(text)}
        return Searching(
            texts=[*known],
            ids=np.fromiter(known.values(), np.int32, len(known)),
            unknown=-1 if self._unknown is None else self._unknown,
            most=_MOST + len(_HEAD),
            rewrite=self._rewrite,
        )

    def _rewrite(self, character: str) -> str | None:
        """What a character becomes between others: see `Plan`."""
        words = [word for chunk in _CHUNKS.findall(f"a{character}b") for word in self._split(chunk)]
        made = " ".join(words)[1:-1]
        moves = self._decomposes and any(map(unicodedata.combining, unicodedata.normalize("NFD", made)))
        return None if moves else made  # marks of several characters are put in order

    def _encode_chunk(self, chunk: str) -> tuple[int, ...]:
        return tuple(self._words.encode(self._split(chunk)))

    def _split(self, text: str) -> list[str]:
        """Words, normalised; punctuation and Chinese characters stand alone."""
        text = self._normalizer.normalize_str(_SURROGATES.sub("", text))
        return [word for word, _ in self._words_of(text)]

    def _encode_word(self, word: str) -> tuple[int, ...]:
        unknown = () if self._unknown is None else (self._unknown,)
        if len(word) > _MOST:
            return unknown
        ids = []
        known = self._heads
        place = 0
        while place < len(word):
            ends = range(min(len(word), place + self._longest), place, -1)
            end = next((end for end in ends if word[place:end] in known), None)
            if end is None:
                return unknown
            ids.append(known[word[place:end]])
            known = self._tails
            place = end
        return tuple(ids)


def _may_stand(text: str) -> bool:
    """Whether a word may have this text in it."""
    return text != "" and _HEAD not in text and not _SURROGATES.search(text)


def _drop_damage(fragments: Fragments) -> Fragments:
    """Bytes that were no UTF-8 stand in a str as lone surrogates, which BERT drops."""
    return [_SURROGATES.sub("", part) if isinstance(part, str) else part for part in fragments]
