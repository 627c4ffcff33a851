"""Text to ids and back, as the metadata of a GGUF file describes it.

The families of vocabularies (byte pairs, SentencePiece, WordPiece, unigram) are files of their own; here is what they
share: special tokens, BOS and EOS, and the way back to text. It knows nothing of models or files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from opsin.errors import FileError, ModelError, RequestError
from opsin.process import Stays
from opsin.text.bpe import CHARACTER_TO_BYTE, BytePairs
from opsin.text.detokenizer import Detokenizer
from opsin.text.escaping import SpecialTokenEscaper, unescape
from opsin.text.keys import check_utf8, read_flag, read_numbers, read_text, read_texts
from opsin.text.partition import WHITESPACE, Fragment, Partition, SpecialToken
from opsin.text.pretokenizers import PRE_TOKENIZERS, PreTokenizer
from opsin.text.sentencepiece import SentencePiece
from opsin.text.unigram import Unigram
from opsin.text.vocabulary import BYTE, CONTROL, NORMAL, PREFIX, UNKNOWN, USER_DEFINED, Vocabulary
from opsin.text.wordpiece import WordPiece
from opsin.text.words import SPACE


class TokenEncoder(Protocol):
    """One family's way from ordinary text to ids."""

    def encode(self, text: str, *, first: bool) -> Iterator[Sequence[int]]:
        """Ids of `text`, in portions; `first` where nothing or a special token stands before it."""
        ...

    def count_kept(self, text: str) -> int:
        """Characters of `text` that cannot but be in its tokens, each of which spells no more than its own text has.

        0 where many can become one, or none.
        """
        ...

    def prepare(self) -> object:
        """Make what the first text would have to wait for."""
        ...


@dataclass(frozen=True)
class Defaults:
    """What a family does where the file is silent."""

    ids: Mapping[str, int]
    add_bos: bool
    add_eos: bool
    space_prefix: bool


@dataclass(frozen=True)
class TokenizerOptions:
    """What the file says, or its family's default."""

    add_bos: bool
    add_eos: bool
    space_prefix: bool
    byte_encoded: bool = False  # token texts spell bytes by GPT-2's table
    separator_ends: bool = False  # where `add_eos` adds a token, it is the separator
    add_separator: bool = True  # to the one that ends the first text of a pair


class Tokenizer(Stays):
    """Text to ids and back. Make one with `from_metadata`; it never changes afterwards."""

    def __init__(self, vocabulary: Vocabulary, encoder: TokenEncoder, options: TokenizerOptions) -> None:
        self.vocabulary_size = len(vocabulary)
        self.bos = vocabulary.bos
        self.eos = vocabulary.eos
        self.end_ids = vocabulary.end_ids
        self.fim = vocabulary.fim  # ids for filling in the middle, by their roles
        self.notes = tuple(vocabulary.notes)  # what the file lacks or says wrongly
        self.add_bos = options.add_bos
        self.add_eos = options.add_eos
        self._last = vocabulary.separator if options.separator_ends else vocabulary.eos
        # Ids between the two texts of a pair, the first of which is encoded with what is added, and behind the second.
        separator = None if options.separator_ends or not options.add_separator else vocabulary.separator
        self.between = () if separator is None else (separator,)
        self.behind = (self._last,) if options.add_eos and self._last is not None else ()
        self._vocabulary = vocabulary
        self._encoder = encoder
        self._options = options
        self._longest = max(map(len, vocabulary.texts))
        self._specials = specials = _read_specials(vocabulary)
        self._all = Partition(specials)
        self._written = Partition(token for token in specials if vocabulary.kinds[token.id] == USER_DEFINED)
        escaped = {token.id for token in specials if _is_escaped(vocabulary, token.id)}
        self._never_escaped = Partition(token for token in specials if token.id not in escaped)
        self.escaper = SpecialTokenEscaper(vocabulary.texts[id] for id in escaped)

    def escaping(self, *markers: str) -> Tokenizer:
        """This tokenizer, but no user can write these markers, be they tokens or not: see `split_at_marker`."""
        kinds = self._vocabulary.kinds
        made = Tokenizer.__new__(Tokenizer)
        made.__dict__.update(self.__dict__)
        made.escaper = self.escaper.also(markers)
        made._specials = kept = [token for token in self._specials if not _is_marker(token.text, markers)]
        made._written = Partition(token for token in kept if kinds[token.id] == USER_DEFINED)
        made._never_escaped = Partition(token for token in kept if not _is_escaped(self._vocabulary, token.id))
        return made

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, object]) -> Tokenizer:
        """Read the keys `tokenizer.ggml.*`. Raises ModelError for an unknown kind."""
        model = read_text(metadata, f"{PREFIX}model")
        build = _FAMILIES.get(model or "")
        if build is None:
            raise ModelError(f"vocabularies of the kind {model!r} are not supported",
                             hint=f"supported are {', '.join(_FAMILIES)}")  # fmt: skip
        vocabulary, encoder, options = build(metadata)
        return cls(vocabulary, encoder, options)

    def encode(
        self, text: str, *, special: bool = False, add_special: bool = False, first: bool = True,
        check: Callable[[], None] = lambda: None,
    ) -> list[int]:  # fmt: skip
        """Ids of `text`.

        `special`: texts of special tokens become their ids, and what `escape_special_tokens` put in is taken out.
        `add_special`: BOS and EOS are added where the file asks for them. `first`: nothing stands before the text.
        `check` is called now and then while a long text is encoded: what it raises ends the work.
        """
        ids = [self.bos] if add_special and self.add_bos and self.bos is not None else []
        for fragment in self._fragments(text, special):
            if isinstance(fragment, int):
                ids.append(fragment)
                first = True
                continue
            for portion in self._encoder.encode(fragment, first=first):
                check()
                ids += portion
            first = False
        if add_special and self.add_eos and self._last is not None:
            ids.append(self._last)
        return ids

    def prepare(self) -> None:
        """Make now what the first text would wait for, up to half a second, and with it all other threads."""
        self._encoder.prepare()

    def fewest_tokens(self, text: str, *, special: bool = False) -> int:
        """Fewer ids than so many `encode` never gives for `text`: what its length tells, without encoding it.

        WordPiece and unigram make one unknown token of any word, so there it tells nothing (0).
        """
        if special:
            text = unescape(text)
        kept = self._encoder.count_kept(text)
        if kept and any(token.strip_left or token.strip_right for token in self._specials):
            kept -= sum(map(text.count, WHITESPACE))
        return -(-max(0, kept) // self._longest)

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """Text of `ids`, with U+FFFD for bytes that form no character. `special`: control tokens are shown as well."""
        stream = self.stream(special=special)
        return "".join([stream.push(id) for id in ids]) + stream.finish()

    def piece(self, id: int, *, special: bool = False) -> bytes:
        """The exact bytes of a token; of a control token none, unless `special`."""
        if not 0 <= id < self.vocabulary_size:
            raise RequestError(f"token {id} is not one of {self.vocabulary_size}", hint="give ids of this model")
        kind = self._vocabulary.kinds[id]
        text = self._vocabulary.texts[id]
        if kind in (CONTROL, UNKNOWN):
            return _to_bytes(text) if special else b""
        if kind == USER_DEFINED:
            return _to_bytes(text)
        if kind == BYTE:
            return _read_byte(text)
        if kind != NORMAL:
            return b""
        return _bytes_of_letters(text) if self._options.byte_encoded else _to_bytes(text.replace(SPACE, " "))

    def control_ids(self, has: Callable[[str], bool]) -> frozenset[int]:
        """Ids of those control tokens whose text is so."""
        kinds = self._vocabulary.kinds
        return frozenset(token.id for token in self._specials if kinds[token.id] == CONTROL and has(token.text))

    def pieces(self) -> list[bytes]:
        """The bytes of each token, as `piece` gives them where control tokens are shown, but quicker."""
        if not self._options.byte_encoded:
            return [self.piece(id, special=True) for id in range(self.vocabulary_size)]
        return [
            _bytes_of_letters(text) if kind == NORMAL else self.piece(id, special=True)
            for id, (text, kind) in enumerate(zip(self._vocabulary.texts, self._vocabulary.kinds, strict=True))
        ]

    @property
    def special_ids(self) -> list[int]:
        """Ids that no text is spelt with: control tokens, ends, and user-defined ones that look like `<...>`."""
        texts = self._vocabulary.texts
        marked = {id for id in self._vocabulary.of_kind(USER_DEFINED) if texts[id][0] == "<" and texts[id][-1] == ">"}
        return sorted({*self._vocabulary.of_kind(CONTROL, UNKNOWN), *self.end_ids, *marked})

    def split(self, text: str) -> list[str | int]:
        """A text's runs without special tokens, and the ids of those between them."""
        special, found = set(self.special_ids), list[str | int]()
        for part in self._all.split(text):
            known = part if isinstance(part, int) and part in special else None
            written = self._vocabulary.texts[part] if isinstance(part, int) and known is None else part
            if known is None and found and isinstance(found[-1], str):
                found[-1] += str(written)
            else:
                found.append(written if known is None else known)
        return found

    def stream(self, *, special: bool = False, shown: Collection[int] = (), after: int | None = None) -> Detokenizer:
        """A new stream of text, to push ids into. `shown`: control tokens that have their text there.

        `after`: the id before the first, where the text goes on another one and keeps the space that it begins with.
        """
        begins = after is None or self._vocabulary.kinds[after] == CONTROL
        strip = self._options.space_prefix and begins
        return Detokenizer(lambda id: self.piece(id, special=special or id in shown), strip_space=strip)

    def _fragments(self, text: str, special: bool) -> Iterable[Fragment]:
        if not special:
            yield from self._written.split(text)
            return
        for fragment in self._all.split(text):
            if isinstance(fragment, int) or (plain := unescape(fragment)) == fragment:
                yield fragment
            else:
                yield from self._never_escaped.split(plain)


def _is_escaped(vocabulary: Vocabulary, id: int) -> bool:
    """Control tokens, and those that files call user-defined although they structure a chat (`<|channel|>`)."""
    text = vocabulary.texts[id]
    return vocabulary.kinds[id] != USER_DEFINED or text.startswith(("<|", "<｜")) or text.endswith(("|>", "｜>"))


def _is_marker(text: str, markers: Sequence[str]) -> bool:
    """Whether this token is a marker or a word of one; its blank parts are tokens of ordinary text as well."""
    return text in markers or (len(text.strip()) > 2 and any(text in marker for marker in markers))


def _read_specials(vocabulary: Vocabulary) -> list[SpecialToken]:
    """Tokens found by their text."""
    strips, kept = vocabulary.strips_right, ("<unk>", "<s>", "<|endoftext|>")
    return [
        SpecialToken(id, text, strip_right=strips and text not in kept)
        for id in vocabulary.of_kind(CONTROL, USER_DEFINED, UNKNOWN)
        for text in [vocabulary.texts[id]]
    ]


def _read_options(metadata: Mapping[str, object], defaults: Defaults) -> TokenizerOptions:
    def flag(name: str, default: bool) -> bool:
        return read_flag(metadata, PREFIX + name, default)

    return TokenizerOptions(
        add_bos=flag("add_bos_token", defaults.add_bos),
        add_eos=flag("add_eos_token", defaults.add_eos),
        space_prefix=flag("add_space_prefix", defaults.space_prefix),
        add_separator=flag("add_sep_token", True),
    )


def _find_pre(metadata: Mapping[str, object]) -> PreTokenizer:
    given = read_text(metadata, f"{PREFIX}pre")
    name = "default" if given is None else given
    if name not in PRE_TOKENIZERS:
        raise ModelError(f"the pre-tokenizer {name!r} is not known", hint="a newer opsin may know it")
    return PRE_TOKENIZERS[name]


def _read_merges(metadata: Mapping[str, object]) -> Sequence[str]:
    return check_utf8([*read_texts(metadata, f"{PREFIX}merges")], f"{PREFIX}merges")


def _read_vocabulary(metadata: Mapping[str, object], defaults: Mapping[str, int]) -> Vocabulary:
    """A vocabulary for an encoder that takes nothing but UTF-8."""
    vocabulary = Vocabulary(metadata, defaults)
    check_utf8(vocabulary.texts, f"{PREFIX}tokens")
    return vocabulary


def _need_none(vocabulary: Vocabulary, what: str) -> None:
    """Raises FileError where tokens are made by what the file lacks: no other way leads to the model's ids."""
    made = next((vocabulary.texts[id] for id in vocabulary.of_kind(NORMAL) if len(vocabulary.texts[id]) > 1), None)
    if made is not None:
        raise FileError(
            f"{PREFIX}{what} is missing, without which nobody can make tokens such as {made!r:.40}",
            hint="fetch or convert the model again",
        )


def _build_gpt2(metadata: Mapping[str, object]) -> tuple[Vocabulary, TokenEncoder, TokenizerOptions]:
    pre = _find_pre(metadata)
    ids = {"bos": 11, "eos": 11} if pre.default_bos else {"eos": 11}
    options = replace(_read_options(metadata, Defaults(ids, pre.add_bos, False, False)), byte_encoded=pre.byte_encoded)
    vocabulary = _read_vocabulary(metadata, ids)
    lowercase = read_flag(metadata, f"{PREFIX}normalizer.lowercase", False)
    merges = _read_merges(metadata)
    if f"{PREFIX}pre" not in metadata:
        vocabulary.notes.append(
            f"{PREFIX}pre is missing: text is cut in llama.cpp's oldest way, which may not be the model's; a newer "
            "file of it says how"
        )
    if not merges and pre is not PRE_TOKENIZERS["whitespace"]:
        _need_none(vocabulary, "merges")
    return vocabulary, BytePairs(vocabulary, merges, pre, lowercase=lowercase), options


def _build_gemma4(metadata: Mapping[str, object]) -> tuple[Vocabulary, TokenEncoder, TokenizerOptions]:
    options = _read_options(metadata, Defaults({}, True, False, False))
    vocabulary = _read_vocabulary(metadata, {})
    merges = _read_merges(metadata)
    if not merges:
        _need_none(vocabulary, "merges")
    return vocabulary, BytePairs(vocabulary, merges, PRE_TOKENIZERS["gemma4"]), options


def _build_llama(metadata: Mapping[str, object]) -> tuple[Vocabulary, TokenEncoder, TokenizerOptions]:
    ids = {"bos": 1, "eos": 2, "unknown": 0}
    options = _read_options(metadata, Defaults(ids, True, False, True))
    vocabulary = Vocabulary(metadata, ids)
    if f"{PREFIX}scores" not in metadata:
        _need_none(vocabulary, "scores")
    return vocabulary, SentencePiece(vocabulary, space_prefix=options.space_prefix), options


def _build_bert(metadata: Mapping[str, object]) -> tuple[Vocabulary, TokenEncoder, TokenizerOptions]:
    ids = {"bos": 101, "unknown": 100, "seperator": 102}
    options = replace(_read_options(metadata, Defaults(ids, True, True, False)), separator_ends=True)
    vocabulary = Vocabulary(metadata, ids)
    lowercase = read_flag(metadata, f"{PREFIX}normalizer.lowercase", True)
    strip_accents = read_flag(metadata, f"{PREFIX}normalizer.strip_accents", lowercase)
    encoder = WordPiece(vocabulary, lowercase=lowercase, strip_accents=strip_accents)
    return vocabulary, encoder, options


def _build_t5(metadata: Mapping[str, object]) -> tuple[Vocabulary, TokenEncoder, TokenizerOptions]:
    ids = {"eos": 1, "unknown": 2}
    options = _read_options(metadata, Defaults(ids, False, True, True))
    vocabulary = _read_vocabulary(metadata, ids)
    raw = read_numbers(metadata, f"{PREFIX}precompiled_charsmap", whole=True)
    charsmap = None if raw is None else np.asarray(raw).astype(np.uint8).tobytes()
    merge_spaces = read_flag(metadata, f"{PREFIX}remove_extra_whitespaces", False)
    encoder = Unigram(vocabulary, charsmap, space_prefix=options.space_prefix, merge_spaces=merge_spaces)
    return vocabulary, encoder, options


_FAMILIES = {
    "gpt2": _build_gpt2, "llama": _build_llama, "gemma4": _build_gemma4, "bert": _build_bert, "t5": _build_t5,
    "whitespace": _build_gpt2,
}  # fmt: skip


def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _read_byte(text: str) -> bytes:
    """The byte of `<0xXX>`, or of a token that is that one byte."""
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        return bytes.fromhex(text[3:5])
    return _to_bytes(text)


class _Letters(dict[int, int]):
    """Letters of GPT-2's table by their bytes; others become one that is no byte."""

    def __missing__(self, letter: int) -> int:
        return 256


_LETTERS = _Letters({ord(letter): byte for letter, byte in CHARACTER_TO_BYTE.items()})


def _bytes_of_letters(text: str) -> bytes:
    """`_spell_bytes`, quicker."""
    try:
        return text.translate(_LETTERS).encode("latin-1")
    except UnicodeEncodeError:
        return _spell_bytes(text)


def _spell_bytes(text: str) -> bytes:
    """Bytes of a byte-level token. A character outside the table stands for itself."""
    return b"".join(
        bytes([CHARACTER_TO_BYTE[letter]]) if letter in CHARACTER_TO_BYTE else _to_bytes(letter) for letter in text
    )
