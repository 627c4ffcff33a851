"""WordPiece (the model `bert`): words are cut greedily into the longest tokens.

GGUF files spell a token that begins a word with U+2581 in front and one inside a word without the `##` of BERT.
What a character becomes, and which stand alone, is asked of the Rust library `tokenizers`: its tables are those that
models are published with (and older than Python's).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import regex
import tokenizers
from tokenizers.models import WordPiece as RustWordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from opsin.text.vocabulary import CONTROL, Vocabulary
from opsin.text.words import SPACE, SURROGATES, WordCache

_HAN = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
_HAN_CLASS = "".join(f"{chr(low)}-{chr(high)}" for low, high in _HAN)
# Other controls, such as U+000B, are no spaces but dropped.
_SPACES = " \t\n\r\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_CHUNKS = regex.compile(rf"[{_HAN_CLASS}]|[^{_SPACES}{_HAN_CLASS}]+")  # words touch no others across their bounds
_LONG = 1 << 12  # characters of a chunk: the library keeps the interpreter, but for many texts at once
_NOTHING = (1 << 32) - 1  # the id of what has none
_SECRET = "\0"  # no word has it: it is a control character, which BERT drops
_MOST = 100  # characters of a word; all of BERT's vocabularies were published with this bound


class WordPiece:
    """Encodes ordinary text, without special tokens."""

    def __init__(self, vocabulary: Vocabulary, *, lowercase: bool, strip_accents: bool) -> None:
        self._normalizer = BertNormalizer(lowercase=lowercase, strip_accents=strip_accents)
        self._pre_tokenizer = BertPreTokenizer()
        texts = {text: id for text, id in vocabulary.ids.items() if vocabulary.kinds[id] != CONTROL}
        self._heads = {text[1:]: id for text, id in texts.items() if text.startswith(SPACE) and text != SPACE}
        self._tails = {text: id for text, id in texts.items() if not text.startswith(SPACE) or text == SPACE}
        self._longest = max(map(len, texts), default=1)
        self._unknown = vocabulary.unknown
        self._chunk_cache = WordCache(self._encode_chunk)
        self._word_cache = WordCache(lambda word: (self._encode_word(word),))
        self._whole = self._make_whole()

    def encode(self, text: str, *, first: bool) -> Iterator[Sequence[int]]:
        """Ids of `text`. `first` tells what stands before it, which WordPiece ignores."""
        return self._chunk_cache.encode(match.group() for match in _CHUNKS.finditer(text))

    def prepare(self) -> None:
        """All is made."""

    def count_kept(self, text: str) -> int:
        """See `TokenEncoder`: a word of any length may be one unknown token."""
        return 0

    def _encode_chunk(self, chunk: str) -> Iterator[Sequence[int]]:
        if len(chunk) <= _LONG:
            yield from self._word_cache.encode(self._split(chunk))
            return
        found = self._whole.encode_batch_fast([SURROGATES.sub("", chunk)], add_special_tokens=False)[0].ids
        yield found if self._unknown is not None else [id for id in found if id != _NOTHING]

    def _make_whole(self) -> tokenizers.Tokenizer:
        """The library's way from a chunk to ids, which are the same."""
        tail, unknown = f"{_SECRET}tail", f"{_SECRET}unknown"
        ids = self._heads | {tail + text: id for text, id in self._tails.items()}
        ids[unknown] = _NOTHING if self._unknown is None else self._unknown
        made = tokenizers.Tokenizer(
            RustWordPiece(ids, unk_token=unknown, max_input_chars_per_word=_MOST, continuing_subword_prefix=tail)
        )
        made.normalizer, made.pre_tokenizer = self._normalizer, self._pre_tokenizer
        return made

    def _split(self, text: str) -> list[str]:
        """Words, normalised; punctuation and Chinese characters stand alone."""
        text = self._normalizer.normalize_str(SURROGATES.sub("", text))
        return [word for word, _ in self._pre_tokenizer.pre_tokenize_str(text)]

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
