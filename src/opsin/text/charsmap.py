"""The normaliser of SentencePiece's files (`precompiled_charsmap`): fast where it needs no graphemes.

The rules are those of the Rust `tokenizers` library, which looks at graphemes: one of fewer than six bytes becomes what
the first of its beginnings becomes that has a rule; of others, each character. So characters can be looked up one by
one unless a short grapheme has several. Which do form one depends on the version of Unicode: lines with characters that
may join a neighbour to fewer than six bytes are left to the library.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
from tokenizers.normalizers import Precompiled

from opsin.errors import FileError
from opsin.text.automaton import find_spans
from opsin.text.characters import is_of, write_class

_JOINS_LEFT: Final = r"[\p{GCB=Extend}\p{GCB=SpacingMark}\p{GCB=ZWJ}]"
_JOINS_RIGHT: Final = r"\p{GCB=Prepend}"
_SIZES: Final = ((0x80, 0x800), (0x800, 0x10000), (0x10000, 0x110000))  # code points of two, three, four bytes
_SMALL: Final = ("[\0-\uffff]", "[\0-\u07ff]", "[\0-\x7f]")  # with which these have fewer than six bytes
_MOST_RULES: Final = 1 << 16
_VALUE, _LEAF, _LARGE = (1 << 31) - 1, 1 << 8, 1 << 9
_LONGEST: Final = 255  # bytes that something may become: published are 33


class Charsmap:
    """Normalises text. Raises FileError for rules that the library cannot read, or that would end it."""

    def __init__(self, raw: bytes) -> None:
        wrong = _find_damage(raw)
        if wrong is not None:
            raise FileError(f"precompiled_charsmap is damaged: {wrong}", hint="download the file again")
        try:
            self._library = Precompiled(raw)
        except Exception as error:
            raise FileError(f"precompiled_charsmap is damaged: {error}", hint="download the file again") from error

    def normalize(self, text: str) -> str:
        """By the library."""
        normal: str = self._library.normalize_str(text)
        return normal

    def singles(self) -> Singles | None:
        """Normalises long texts; None where two characters make another text than the first of them."""
        return None if self.normalize("\r\n") != self.normalize("\r") else Singles(self)


def _find_damage(raw: bytes) -> str | None:
    """What is wrong with rules: the library follows their numbers wherever these lead, and ends the thread beyond them.

    They lie in a double array (https://github.com/s-yata/darts-clone) of so many bytes as the first four tell: a unit
    has the byte that leads to it in its lowest 8 bits, whether a rule ends there in the next one, and in the rest how
    far its children are away. Behind it lie the texts, each with a zero at its end.
    """
    size = int.from_bytes(raw[:4], "little") // 4
    if not 0 < size <= (len(raw) - 4) // 4:
        return f"{size} units in {len(raw)} bytes"
    units = np.frombuffer(raw, "<u4", size, 4).astype(np.int64)
    texts = np.frombuffer(raw, np.uint8, -1, 4 + 4 * size) if len(raw) > 4 + 4 * size else np.empty(0, np.uint8)
    nodes = np.flatnonzero(units <= _VALUE)
    children = nodes ^ (units[nodes] >> 10 << ((units[nodes] & _LARGE) >> 6))
    if not len(nodes) or nodes[0] != 0 or ((children | 0xFF) >= size).any():
        return "its numbers lead out of it"
    values = units[children[units[nodes] & _LEAF != 0]] & _VALUE
    if (values >= len(texts)).any() or (texts[values] & 0xC0 == 0x80).any():
        return "its numbers lead out of its texts"
    ends = np.append(np.flatnonzero(texts == 0), len(texts))
    if (ends[np.searchsorted(ends, values)] - values > _LONGEST).any():
        return f"something becomes more than {_LONGEST} bytes"
    return None


class Singles:
    """Normalises long texts to what `Charsmap` makes of them."""

    def __init__(self, whole: Charsmap) -> None:
        self._whole = whole
        self._rules = _Rules(whole)
        self._newline = whole.normalize("\n")

    def normalize(self, text: str) -> str:
        """The same text as from `Charsmap`."""
        text = text.replace("\r\n", "\r")  # one grapheme
        if text.isascii() or not _may_join(text):
            return text.translate(self._rules)
        return self._newline.join(map(self._normalize_line, text.split("\n")))  # graphemes end at a newline

    def _normalize_line(self, line: str) -> str:
        return self._whole.normalize(line) if _may_join(line) else line.translate(self._rules)


class _Rules(dict[int, str]):
    """What the library makes of each character alone: it is asked when one comes for the first time."""

    def __init__(self, whole: Charsmap) -> None:
        self._whole = whole

    def __missing__(self, code: int) -> str:
        if len(self) > _MOST_RULES:
            self.clear()
        made = self[code] = self._whole.normalize(chr(code))
        return made


def _may_join(text: str) -> bool:
    """Whether some characters may be a grapheme of fewer than six bytes."""
    return any(pattern.search(text) for pattern in _joining_patterns())


@cache
def _joining_patterns() -> tuple[re.Pattern[str], ...]:
    """One for each size. Each begins with a class for which `re` looks quickly, and then asks more."""
    unsure = is_of("Cf", "Cn")  # what is unassigned here may be assigned in the library's version
    left, right = _mark(_JOINS_LEFT) | is_of("M") | unsure, _mark(_JOINS_RIGHT) | unsure
    patterns = []
    for (low, high), small in zip(_SIZES, _SMALL, strict=True):
        before, after, either = (
            write_class((np.flatnonzero(found[low:high]) + low).tolist()) for found in (left, right, left | right)
        )
        first = either if high <= 0x10000 else f"[{chr(low)}-{chr(high - 1)}]"  # `re` is slow in classes beyond
        patterns.append(f"{first}(?:(?<={small}{first})(?<={before})|(?={small})(?<={after}))")
    return tuple(map(re.compile, patterns))


def _mark(text: str) -> npt.NDArray[np.bool_]:
    """Which code points are of a class."""
    starts, ends = find_spans(text)
    change = np.zeros(0x110001, np.int64)
    change[starts] += 1
    change[ends] -= 1
    marked: npt.NDArray[np.bool_] = np.cumsum(change)[:-1] > 0
    return marked
