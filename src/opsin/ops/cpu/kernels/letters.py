"""What kernels of texts share: characters out of UTF-8, digests of texts, tables of texts and of pairs.

Texts are sound UTF-8 with eight bytes behind the end that may be read. A table of texts has slots of two words, the
digest and the number of the text plus 1; 0 is an empty slot. A table of pairs has slots of three words: the two
symbols (left above right) plus 1, the value, and the symbol that they become.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from opsin.ops.cpu.kernels.shared import jit
from opsin.ops.cpu.simd import Simd

TEXT_SLOT, PAIR_SLOT = 16, 24


class Letters(NamedTuple):
    """Inner functions over texts."""

    size_at: Any  # bytes of the character that begins at an address
    code_at: Any  # its code point
    digest: Any  # of `size` bytes
    alike: Any  # whether `size` bytes at two addresses are the same
    find_text: Any  # the number of a text, -1 for none
    find_pair: Any  # the slot of a pair, 0 for none


def letters(simd: Simd) -> Letters:
    """These functions for one instruction set."""
    byte, word, shift_right = simd.u8_at, simd.word_at, simd.shift_right

    @jit
    def size_at(place: int) -> int:
        first = byte(place)
        if first < 0x80:
            return 1
        if first < 0xE0:
            return 2
        return 3 if first < 0xF0 else 4

    @jit
    def code_at(place: int) -> int:
        first = byte(place)
        if first < 0x80:
            return first
        second = byte(place + 1) & 63
        if first < 0xE0:
            return (first & 31) << 6 | second
        third = byte(place + 2) & 63
        if first < 0xF0:
            return (first & 15) << 12 | second << 6 | third
        return (first & 7) << 18 | second << 12 | third << 6 | byte(place + 3) & 63

    @jit
    def tail(place: int, size: int) -> int:
        """The last bytes, fewer than eight, as a word."""
        return word(place) & ((1 << (8 * size)) - 1)

    @jit
    def digest(place: int, size: int, factor: int) -> int:
        found = size
        while size >= 8:
            found = (found ^ word(place)) * factor
            found ^= shift_right(found, 29)
            place += 8
            size -= 8
        found = (found ^ tail(place, size)) * factor
        found ^= shift_right(found, 32)
        return found * factor

    @jit
    def alike(one: int, other: int, size: int) -> bool:
        while size >= 8:
            if word(one) != word(other):
                return False
            one += 8
            other += 8
            size -= 8
        return tail(one, size) == tail(other, size)

    @jit
    def find_text(place: int, size: int, table: int, shift: int, factor: int, texts: int, ends: int) -> int:
        mask = (1 << (64 - shift)) - 1
        wanted = digest(place, size, factor)
        slot = shift_right(wanted, shift)
        while True:
            number = word(table + slot * TEXT_SLOT + 8) - 1
            if number < 0:
                return -1
            if word(table + slot * TEXT_SLOT) == wanted:
                begin = word(ends + 8 * number)
                if word(ends + 8 * number + 8) - begin == size and alike(texts + begin, place, size):
                    return number
            slot = (slot + 1) & mask

    @jit
    def find_pair(left: int, right: int, table: int, shift: int, factor: int) -> int:
        mask = (1 << (64 - shift)) - 1
        key = (left << 32 | right) + 1
        mixed = key * factor
        slot = shift_right((mixed ^ shift_right(mixed, 32)) * factor, shift)
        while True:
            place = table + slot * PAIR_SLOT
            found = word(place)
            if found == key:
                return place
            if found == 0:
                return 0
            slot = (slot + 1) & mask

    return Letters(size_at, code_at, digest, alike, find_text, find_pair)
