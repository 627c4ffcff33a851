"""Byte-pair encoding: cut text by the patterns of the file, then merge each piece by rank.

Text repeats its words, so pieces are remembered with their ids. New pieces go to the Rust `tokenizers` library, whose
merge loop is that of the models. It drops characters that are no token; here every byte is given a token, a private
one where the file has none, so that nothing vanishes before the merges.
"""

from __future__ import annotations

from codecs import charmap_decode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, filterfalse
from threading import Lock

import regex
import tokenizers
from tokenizers.models import BPE

from opsin.text.merge_boundaries import BETWEEN, WINDOW, ChunkedBpe, merge_in_windows
from opsin.text.pretokenizers import PreTokenizer
from opsin.text.vocabulary import CONTROL, Vocabulary
from opsin.text.words import SPACE, SURROGATES, WordCache, cut_pattern


def byte_table() -> dict[int, str]:
    """The character that stands for each byte in byte-level vocabularies (GPT-2's table)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in shown}
    hidden = [byte for byte in range(256) if byte not in table]
    return table | {byte: chr(256 + index) for index, byte in enumerate(hidden)}


BYTE_TO_CHARACTER = byte_table()
CHARACTER_TO_BYTE = {character: byte for byte, character in BYTE_TO_CHARACTER.items()}
_BYTE_LETTERS = "".join(BYTE_TO_CHARACTER[byte] for byte in range(256))
_SPACED_WORD = regex.compile(f"({SPACE}[^{SPACE}]*)")
_UNSPACED_LINE = regex.compile(f"^(?=[^\n{SPACE}])", regex.MULTILINE)
_SLICE = 1 << 16
_CODE_TO_BYTE = {ord(character): byte for byte, character in BYTE_TO_CHARACTER.items()}


class BytePairs:
    """Encodes ordinary text, without special tokens, for the models `gpt2` and `gemma4`. Threads may share one."""

    space_prefix = False

    def __init__(
        self, vocabulary: Vocabulary, merges: Sequence[str], pre: PreTokenizer, *, lowercase: bool = False
    ) -> None:
        self._pre = pre
        self._lowercase = lowercase
        self._size = len(vocabulary)
        self._byte_encoded = pre.byte_encoded
        self._whole = pre.ignore_merges
        self._ids = dict(vocabulary.ids)
        for id in vocabulary.of_kind(CONTROL):
            del self._ids[vocabulary.texts[id]]
        self._merges = merges
        self._merging: Merging | None = None
        self._making = Lock()
        self._chunked = ChunkedBpe(self._encode_part, lambda: self._spell_out(self.prepare().ids))
        patterns = [regex.compile(f"({pattern})", regex.V1) for pattern in pre.patterns]
        self._to_words = patterns[: pre.word_patterns]
        self._within_words = patterns[pre.word_patterns :]
        if not pre.byte_encoded and not pre.spaces_vanish:
            joining = _read_pairs(merge for merge in merges if f" {SPACE}" in merge)
            before_space = cut_pattern(left[-1] for left, right in joining if right[0] == SPACE)
            self._to_words = [*patterns, _SPACED_WORD if pre.space_begins_words else before_space]
        self._word_cache = WordCache(self._encode_word)
        self._piece_cache = WordCache(self._encode_piece)

    def prepare(self) -> Merging:
        """What merges. Made now, unless a piece has asked for it: half of what it takes to read a vocabulary."""
        with self._making:
            if self._merging is None:
                self._merging = Merging(self._ids, self._size, self._merges, byte_encoded=self._byte_encoded)
                self._merges = ()
            return self._merging

    def encode(self, text: str, *, first: bool) -> Iterator[Sequence[int]]:
        """Ids of `text`. `first` tells whether nothing or a special token stands before it, which BPE ignores."""
        text = SURROGATES.sub("\ufffd", text)
        if self._pre.spaces_vanish:
            words = (match.group() for match in self._to_words[0].finditer(text))
            return self._word_cache.encode(map(_lower, words) if self._lowercase else words)
        if not self._byte_encoded:
            text = text.replace(" ", SPACE)
        if self._pre.space_begins_words:
            text = _UNSPACED_LINE.sub(SPACE, text)
        return self._word_cache.encode(cut(self._to_words, text))

    def count_kept(self, text: str) -> int:
        """See `TokenEncoder`. A character is lost where none of its bytes has a token."""
        if self._pre.spaces_vanish:
            return 0
        if not self._byte_encoded:
            return len(text) if all(f"<0x{byte:02X}>" in self._ids for byte in range(256)) else 0
        lost = [byte for byte, letter in BYTE_TO_CHARACTER.items() if letter not in self._ids]
        if any(0x80 <= byte < 0xC0 for byte in lost) and any(0xC2 <= byte < 0xF5 for byte in lost):
            return 0
        return len(text) - sum(text.count(chr(byte)) for byte in lost if byte < 0x80)

    def _encode_word(self, word: str) -> Iterable[Sequence[int]]:
        if not self._within_words:
            return self._encode_piece(word)
        return self._piece_cache.encode(cut(self._within_words, word))

    def _find_whole(self, piece: str) -> int | None:
        """The id of a piece that is a token and is not merged: by the rules of the file, or as no merge makes it."""
        if self._whole:
            return self._ids.get(self._write(piece))
        return self._ids.get(piece) if self._pre.newline_runs and piece[0] == "\n" else None

    def _encode_piece(self, piece: str) -> Iterable[Sequence[int]]:
        id = self._find_whole(piece)
        return self._chunked.encode(piece) if id is None else ((id,),)

    def _encode_part(self, part: str) -> Iterator[Sequence[int]]:
        written = "".join([self._write(part[start : start + _SLICE]) for start in range(0, len(part), _SLICE)])
        return self.prepare().encode(written)

    def _write(self, text: str) -> str:
        """A text in the letters of the vocabulary."""
        return charmap_decode(text.encode(), "strict", _BYTE_LETTERS)[0] if self._byte_encoded else text

    def _spell_out(self, texts: Iterable[str]) -> str:
        """What the texts of the vocabulary stand for. Bytes of half characters become lone surrogates."""
        lines = BETWEEN.join(texts)
        if not self._byte_encoded:
            return lines
        return lines.translate(_CODE_TO_BYTE).encode("latin-1", "replace").decode("utf-8", "surrogateescape")


class Merging:
    """Merges what is written in the letters of a vocabulary.

    Args:
        ids: of the texts that are tokens, all below `size`.
        byte_encoded: whether letters are those of GPT-2's table; else a byte is a token `<0xXX>`.
    """

    def __init__(self, ids: Mapping[str, int], size: int, merges: Iterable[str], *, byte_encoded: bool) -> None:
        self._own, self._size, self._byte_encoded = ids, size, byte_encoded
        pairs = _read_pairs(merges)
        letters = BYTE_TO_CHARACTER.values() if byte_encoded else ()
        texts = chain(letters, chain.from_iterable(pairs), map("".join, pairs))
        missing = sorted(set(filterfalse(ids.__contains__, texts)))
        private = {text: size + index for index, text in enumerate(missing)}
        self.ids = {**ids, **private}  # of all texts that may stand before, between and after merges
        self._spelled = {id: self._spell(text) for text, id in private.items()}
        self._model = BPE(self.ids, pairs, cache_capacity=0, byte_fallback=not byte_encoded)

    def encode(self, written: str) -> Iterator[Sequence[int]]:
        """Ids of a text, in portions."""
        if len(written) <= WINDOW:
            yield self._spell_private([token.id for token in self._model.tokenize(written)])
            return
        # The library keeps the interpreter while it merges, except for many texts at once.
        try:
            texts = merge_in_windows(written, self._merge_window)
        except _Unspelled:
            ids = tokenizers.Tokenizer(self._model).encode_batch_fast([written], add_special_tokens=False)[0].ids
            yield from (self._spell_private(ids[start : start + _SLICE]) for start in range(0, len(ids), _SLICE))
        else:
            for start in range(0, len(texts), _SLICE):
                yield self._spell_private([self.ids[text] for text in texts[start : start + _SLICE]])

    def _merge_window(self, written: str) -> list[str]:
        texts: list[str] = [token.value for token in self._model.tokenize(written)]
        if sum(map(len, texts)) != len(written):
            raise _Unspelled
        return texts

    def _spell_private(self, ids: list[int]) -> list[int]:
        if max(ids, default=0) < self._size:
            return ids
        return [*chain.from_iterable([self._spelled.get(id, (id,)) for id in ids])]

    def _spell(self, text: str) -> tuple[int, ...]:
        """A text that is no token, as the tokens of its bytes; bytes without a token are lost, as in llama.cpp."""
        letters = text if self._byte_encoded else [f"<0x{byte:02X}>" for byte in text.encode("utf-8", "replace")]
        return tuple(self._own[letter] for letter in letters if letter in self._own)


class _Unspelled(Exception):  # noqa: N818 - an answer, no error
    """There are characters without a token of their own: their bytes stand for them."""


def _lower(word: str) -> str:
    """In small letters, character by character; one that would become several keeps the first."""
    lowered = word.lower()
    return lowered if len(lowered) == len(word) else "".join(letter.lower()[:1] for letter in word)


def _read_pairs(merges: Iterable[str]) -> list[tuple[str, str]]:
    """The merges as pairs of texts. A side may begin with a space, so the search starts behind it."""
    return [(merge[:cut], merge[cut + 1 :]) for merge in merges if 0 < (cut := merge.find(" ", 1)) < len(merge) - 1]


def cut(patterns: Sequence[regex.Pattern[str]], text: str) -> Iterator[str]:
    """Matches and what lies between them, pattern after pattern."""
    pieces: Iterator[str] = iter([text] if text else [])
    for number, pattern in enumerate(patterns):
        long = number == 0 and len(text) > _SLICE  # slower, but it makes no list of all
        split = pattern.splititer if long else pattern.split
        pieces = filter(None, chain.from_iterable(map(split, pieces)))
    return pieces
