"""Why llama.cpp's ids are not the published ones: Hugging Face's pipelines, and the changes that make them llama.cpp.

A cause is a change to a pipeline. A difference is explained by the fewest causes with which the pipeline gives
llama.cpp's ids; where no set of them does, it has no known cause.
"""

from __future__ import annotations

import re
import struct
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

import regex
from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Pipeline
from tokenizers.models import BPE, Unigram, WordPiece
from tokenizers.normalizers import BertNormalizer, Precompiled
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel, Metaspace, Split

from opsin.text.bpe import BYTE_TO_CHARACTER
from opsin.text.pretokenizers import PATTERNS, PRE_TOKENIZERS, PreTokenizer
from opsin.text.vocabulary import CONTROL, NORMAL, USER_DEFINED

KEY = "tokenizer.ggml."
FIRST = "the first of a decomposition"
MARKS = "marks that take room"
NEWER = "newer Unicode"
CONTROLS = "controls as spaces"
LONG = "words of more than 100"
INSIDE = "U+2581 inside a word"
IDEOGRAPHIC = "U+3000 is no sign"
CODE_POINTS = "code points, not graphemes"
UNKNOWN_BYTES = "damage is no space"
OVERLONG = "overlong forms"
SURROGATES = "surrogates in UTF-8"
PROMISED = "as many bytes as the first promises"

STAND = "\U0010abcd"  # private: in no vocabulary, so that it falls into its bytes or is unknown
UNASSIGNED = "\u0378"
_DAMAGED = re.compile("[\udc80-\udcff]")
_TAIL = "[\udc80-\udcbf]"
_OVERLONG = re.compile(f"[\udcc0\udcc1]{_TAIL}|\udce0[\udc80-\udc9f]{_TAIL}|\udcf0[\udc80-\udc8f]{_TAIL}{{2}}")
_SURROGATE = re.compile(f"\udced[\udca0-\udcbf]{_TAIL}")
_ROOMY = regex.compile(r"[\p{Mc}\p{Me}]")
_PROMISE = (1,) * 12 + (2, 2, 3, 4)  # bytes of a character, by the upper half of its first

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Published:
    """`read` gives the ids of a text; with causes, those that llama.cpp gives where they are the only ones."""

    read: Callable[[str, frozenset[str]], list[int]]
    causes: tuple[str, ...]

    def explain(self, text: str, theirs: Sequence[int]) -> tuple[str, ...] | None:
        """The fewest causes that turn the published ids of `text` into `theirs`; none where they are the same."""
        for count in range(len(self.causes) + 1):
            for some in combinations(self.causes, count):
                if self.read(text, frozenset(some)) == theirs:
                    return some
        return None


def published(metadata: Mapping[str, object], ours: Encode) -> Published:
    """The pipeline of a file. `ours` reads where the Rust library has none that gives the same ids."""
    model, pre = metadata[f"{KEY}model"], metadata.get(f"{KEY}pre")
    if model == "bert":
        return word_pieces(metadata)
    if model == "t5":
        return unigram(metadata)
    if model == "llama":
        return scored(metadata)
    return byte_pairs(metadata) if model == "gpt2" and pre != "falcon" else damaged(metadata, ours)


def word_pieces(metadata: Mapping[str, object]) -> Published:
    """BERT: `BertNormalizer`, `BertPreTokenizer`, `WordPiece`."""
    tokens, kinds = _lists(metadata, "tokens", "token_type")
    words = {
        text if kinds[id] == CONTROL else text[1:] if text.startswith("▁") else f"##{text}": id
        for id, text in enumerate(tokens)
    }
    pipelines = []
    for longest in (100, 10_000):
        pipeline = Pipeline(WordPiece(words, unk_token="[UNK]", max_input_chars_per_word=longest))
        pipeline.normalizer, pipeline.pre_tokenizer = BertNormalizer(), BertPreTokenizer()
        pipelines.append(pipeline)

    def read(text: str, causes: frozenset[str]) -> list[int]:
        if OVERLONG in causes:
            text = _OVERLONG.sub(_spell, text)
        if SURROGATES in causes:
            text = _SURROGATE.sub(UNASSIGNED, text)
        text = _DAMAGED.sub("\ufffd", text)
        if CONTROLS in causes:
            text = re.sub("[\v\f\x85]", " ", text)
        if INSIDE in causes:
            text = re.sub(r"(?<=\S)▁(?=\S)", " ", text)
        if FIRST in causes:
            text = "".join(unicodedata.normalize("NFD", letter)[0] for letter in text)
        if NEWER in causes:
            text = "".join(map(_renew, text))
        if MARKS in causes:
            text = _ROOMY.sub("", text)
        return pipelines[LONG in causes].encode(text, add_special_tokens=False).ids

    return Published(read, (FIRST, MARKS, CONTROLS, NEWER, OVERLONG, SURROGATES, LONG, INSIDE))


@cache
def _renew(letter: str) -> str:
    """What makes a character's newer category known to the library's older tables."""
    kept = BertNormalizer().normalize_str(letter).strip() != ""
    alone = len(BertPreTokenizer().pre_tokenize_str(f"a{letter}a")) == 3
    if kept and regex.match(r"[\p{Mn}\p{Cf}]", letter):
        return ""
    if regex.match(r"\p{P}", letter):
        return letter if alone else f" {letter} "
    return UNASSIGNED if alone and letter > "\x7f" and not letter.isspace() else letter


def byte_pairs(metadata: Mapping[str, object]) -> Published:
    """The patterns of the file as `Split`s, `ByteLevel`, `BPE`; DeepSeek's digits one by one."""
    patterns = _pre(metadata).patterns
    if patterns != PATTERNS["deepseek_llm"]:
        return damaged(metadata, _byte_level(metadata, [_split(pattern) for pattern in patterns]))
    digits = pre_tokenizers.Digits(individual_digits=True)
    # To its patterns, every space beyond ASCII is U+000B for llama.cpp, so that U+3000 is none of the signs.
    departing = [pattern.replace("\u3000-", "\u3001-") for pattern in patterns]
    both = ([*map(_split, some[:-1]), digits] for some in (patterns, departing))
    return damaged(metadata, *(_byte_level(metadata, some) for some in both))


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return Split(Regex(pattern), "isolated")


def _byte_level(metadata: Mapping[str, object], splits: Sequence[pre_tokenizers.PreTokenizer]) -> Encode:
    tokens, kinds, merges = _lists(metadata, "tokens", "token_type", "merges")
    pairs = [tuple(merge.split(" ")) for merge in merges]
    whole = _pre(metadata).ignore_merges
    pipeline = Pipeline(BPE({text: id for id, text in enumerate(tokens)}, pairs, ignore_merges=whole))
    pipeline.pre_tokenizer = pre_tokenizers.Sequence([*splits, ByteLevel(add_prefix_space=False, use_regex=False)])
    own = [text for text, kind in zip(tokens, kinds, strict=True) if kind == USER_DEFINED]
    pipeline.add_tokens([AddedToken(text, normalized=False) for text in own])
    return _encoder(pipeline)


def damaged(metadata: Mapping[str, object], encode: Encode, departing: Encode | None = None) -> Published:
    """Byte pairs: damaged bytes become U+FFFD each."""
    put_back = _put_back(metadata)

    def read(text: str, causes: frozenset[str]) -> list[int]:
        kept: list[bytes] = []
        if OVERLONG in causes:
            text = _OVERLONG.sub(_spell, text)
        if SURROGATES in causes:
            kept = [found.encode("utf-8", "surrogateescape") for found in _SURROGATE.findall(text)]
            text = _SURROGATE.sub(STAND, text)
        chosen = departing if departing and IDEOGRAPHIC in causes else encode
        return put_back(chosen(_DAMAGED.sub("\ufffd", text)), kept)

    return Published(read, (OVERLONG, SURROGATES, *([IDEOGRAPHIC] if departing else [])))


def scored(metadata: Mapping[str, object]) -> Published:
    """SentencePiece's byte pairs: spaces as U+2581, merges by scores, characters without a token as bytes."""
    tokens, kinds, scores = _lists(metadata, "tokens", "token_type", "scores")
    ids = {text: id for id, text in enumerate(tokens)}
    normal = {text for text, kind in zip(tokens, kinds, strict=True) if kind == NORMAL}
    merges = [
        (-scores[ids[text]], ids[text[:at]], ids[text[at:]], text[:at], text[at:])
        for text in normal
        for at in range(1, len(text))
        if text[:at] in normal and text[at:] in normal
    ]
    pairs = [(left, right) for *_, left, right in sorted(merges)]
    pipeline = Pipeline(BPE(ids, pairs, unk_token=tokens[0], fuse_unk=True, byte_fallback=True))
    prefix = [normalizers.Prepend("▁")] if metadata.get(f"{KEY}add_space_prefix", True) else []
    pipeline.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", "▁")])
    encode = _encoder(pipeline)
    put_back = _put_back(metadata)

    def read(text: str, causes: frozenset[str]) -> list[int]:
        kept: list[bytes] = []
        shown = []
        for symbol in _promised(text.replace(" ", "▁")) if PROMISED in causes else text:
            raw = symbol if isinstance(symbol, bytes) else symbol.encode("utf-8", "surrogateescape")
            try:
                shown.append(raw.decode())
            except UnicodeDecodeError:
                shown.append(STAND)
                kept.append(raw)
        return put_back(encode("".join(shown)), kept)

    return Published(read, (PROMISED,))


def _promised(text: str) -> Iterator[bytes]:
    """As many bytes at a time as the first one promises, whatever the others are."""
    raw = text.encode("utf-8", "surrogateescape")
    place = 0
    while place < len(raw):
        size = _PROMISE[raw[place] >> 4]
        yield raw[place : place + size]
        place += size


def unigram(metadata: Mapping[str, object]) -> Published:
    """XLM-RoBERTa: `Precompiled`, spaces merged, `Metaspace`, `Unigram`."""
    tokens, scores, charsmap = _lists(metadata, "tokens", "scores", "precompiled_charsmap")
    pipeline = Pipeline(Unigram(list(zip(tokens, scores, strict=True)), int(str(metadata[f"{KEY}unknown_token_id"]))))
    pipeline.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    pipeline.pre_tokenizer = Metaspace(split=True)
    blob = bytes(byte & 255 for byte in charsmap)
    graphemes, code_points = Precompiled(blob).normalize_str, LongestPrefix(blob).normalize
    encode = _encoder(pipeline)

    def read(text: str, causes: frozenset[str]) -> list[int]:
        text = _DAMAGED.sub(STAND if UNKNOWN_BYTES in causes else "\ufffd", text)
        return encode(code_points(text) if CODE_POINTS in causes else graphemes(text))

    return Published(read, (CODE_POINTS, UNKNOWN_BYTES))


class LongestPrefix:
    """A charsmap (a double array of darts-clone and its texts), applied to the longest prefix again and again."""

    def __init__(self, blob: bytes) -> None:
        (size,) = struct.unpack_from("<I", blob)
        self._units = struct.unpack_from(f"<{size // 4}I", blob, 4)
        self._texts = blob[4 + size :]

    def normalize(self, text: str) -> str:
        raw = text.encode()
        written = bytearray()
        place = 0
        while place < len(raw):
            size, found = self._find(raw, place)
            if found is None:
                size = _PROMISE[raw[place] >> 4]
                found = raw[place : place + size]
            written += found
            place += size
        return written.decode()

    def _find(self, raw: bytes, start: int) -> tuple[int, bytes | None]:
        """How many bytes the longest known prefix has, and what it becomes."""
        size, found = 0, None
        node = _offset(self._units[0])
        for place in range(start, len(raw)):
            node ^= raw[place]
            unit = self._units[node]
            if raw[place] == 0 or unit & 0x800000FF != raw[place]:
                break
            node ^= _offset(unit)
            if unit >> 8 & 1:
                begin = self._units[node] & 0x7FFFFFFF
                size, found = place + 1 - start, self._texts[begin : self._texts.index(b"\0", begin)]
        return size, found


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & 0x200) >> 6)


def _spell(overlong: re.Match[str]) -> str:
    """The character that an overlong form stands for."""
    lead, *tail = overlong[0].encode("utf-8", "surrogateescape")
    code = lead & (0x3F >> len(tail))
    for byte in tail:
        code = code << 6 | byte & 0x3F
    if 0xD800 <= code <= 0xDFFF:
        return chr(code).encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
    return chr(code)


def _put_back(metadata: Mapping[str, object]) -> Callable[[list[int], list[bytes]], list[int]]:
    """Puts the ids of kept bytes where those of the characters are that stood for them."""
    (tokens,) = _lists(metadata, "tokens")
    ids = {text: id for id, text in enumerate(tokens)}
    of_byte = [ids.get(f"<0x{byte:02X}>", ids.get(BYTE_TO_CHARACTER[byte])) for byte in range(256)]
    stand = [id for id in (of_byte[byte] for byte in STAND.encode()) if id is not None]

    def put_back(found: list[int], kept: list[bytes]) -> list[int]:
        place = 0
        for raw in kept:
            place = next((at for at in range(place, len(found)) if found[at : at + len(stand)] == stand), len(found))
            wanted = [id for id in (of_byte[byte] for byte in raw) if id is not None]
            found = [*found[:place], *wanted, *found[place + len(stand) :]]
            place += len(wanted)
        return found

    return put_back


def _pre(metadata: Mapping[str, object]) -> PreTokenizer:
    return PRE_TOKENIZERS[str(metadata.get(f"{KEY}pre", "default"))]


def _encoder(pipeline: Pipeline) -> Encode:
    return lambda text: pipeline.encode(text, add_special_tokens=False).ids


def _lists(metadata: Mapping[str, object], *names: str) -> list[list[Any]]:
    return [list(metadata[f"{KEY}{name}"]) for name in names]  # type: ignore[call-overload]
