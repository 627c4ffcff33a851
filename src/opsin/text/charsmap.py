"""The normaliser of SentencePiece's files (`precompiled_charsmap`).

The rules are applied by the Rust `tokenizers` library, which looks at graphemes: one of fewer than six bytes becomes
what the first of its beginnings becomes that has a rule; of others, each character.
"""

from __future__ import annotations

import numpy as np
import regex
from tokenizers.normalizers import Precompiled

from opsin.errors import FileError

_VALUE, _LEAF, _LARGE = (1 << 31) - 1, 1 << 8, 1 << 9
_LONGEST = 255  # bytes that something may become: published are 33
_SLICE = 1 << 14  # characters: the library keeps the interpreter while it normalises
_ALONE = r"[\p{GCB=Other}--\p{Cn}]"  # two of these side by side are two graphemes
_APART = regex.compile(f"(?<={_ALONE})(?={_ALONE})", regex.V1)


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
        """By the library, in slices."""
        parts, begin = [], 0
        while begin < len(text):
            apart = _APART.search(text, begin + _SLICE)
            end = len(text) if apart is None else apart.start()
            parts.append(self._library.normalize_str(text[begin:end]))
            begin = end
        return "".join(parts)


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
