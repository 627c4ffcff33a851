"""Tables for `merge_texts`, from the texts of a vocabulary and from its merges. One item.

`texts` puts texts into a table under their digests. Arguments: texts, their bounds (one more than there are), count,
table, shift, factor.
`pairs` puts merges ("left right") into a table of pairs; one that comes twice counts as it comes last. Arguments:
merges, their bounds, count, texts, their bounds, their table, shift, factor, the symbol of each text, table of pairs,
its shift, its factor, address of a word for the number of merges that name a text that is not there, and behind it
room for the longest merge and eight bytes.
"""

from __future__ import annotations

from typing import Any

from opsin.ops.cpu.kernels.letters import PAIR_SLOT, TEXT_SLOT, letters
from opsin.ops.cpu.kernels.shared import jit
from opsin.ops.cpu.simd import Simd

TEXTS, ENDS, COUNT, TABLE, SHIFT, FACTOR = (8 * i for i in range(6))
MERGES, BOUNDS, MERGE_COUNT, KNOWN, KNOWN_ENDS, KNOWN_TABLE, KNOWN_SHIFT, KNOWN_FACTOR, SYMBOLS = (
    8 * i for i in range(9)
)
PAIRS, PAIRS_SHIFT, PAIRS_FACTOR, MISSING = (8 * i for i in range(9, 13))
SPACE = 0x20


def make(simd: Simd, part: str) -> Any:
    return _texts(simd) if part == "texts" else _pairs(simd)


def _texts(simd: Simd) -> Any:
    at, word, put, shift_right = simd.i64_at, simd.word_at, simd.put_word, simd.shift_right
    digest = letters(simd).digest

    def index(args: int) -> int:
        shift, table = at(args + SHIFT), at(args + TABLE)
        mask = (1 << (64 - shift)) - 1
        for number in range(at(args + COUNT)):
            begin, end = at(at(args + ENDS) + 8 * number), at(at(args + ENDS) + 8 * number + 8)
            found = digest(at(args + TEXTS) + begin, end - begin, at(args + FACTOR))
            slot = shift_right(found, shift)
            while word(table + slot * TEXT_SLOT + 8) != 0:
                slot = (slot + 1) & mask
            put(table + slot * TEXT_SLOT, found)
            put(table + slot * TEXT_SLOT + 8, number + 1)
        return 0

    return index


def _pairs(simd: Simd) -> Any:
    at, i32, byte, word = simd.i64_at, simd.i32_at, simd.u8_at, simd.word_at
    put, put_byte, shift_right = simd.put_word, simd.put_i8, simd.shift_right
    tools = letters(simd)
    size_at, find = tools.size_at, tools.find_text

    @jit
    def symbol(args: int, place: int, size: int) -> int:
        number = find(
            place, size, at(args + KNOWN_TABLE), at(args + KNOWN_SHIFT), at(args + KNOWN_FACTOR), at(args + KNOWN),
            at(args + KNOWN_ENDS),
        )  # fmt: skip
        return -1 if number < 0 else i32(at(args + SYMBOLS) + 4 * number)

    @jit
    def add(args: int, left: int, right: int, value: int, made: int) -> None:
        shift, factor = at(args + PAIRS_SHIFT), at(args + PAIRS_FACTOR)
        mask = (1 << (64 - shift)) - 1
        key = (left << 32 | right) + 1
        mixed = key * factor
        slot = shift_right((mixed ^ shift_right(mixed, 32)) * factor, shift)
        while True:
            place = at(args + PAIRS) + slot * PAIR_SLOT
            if word(place) == 0 or word(place) == key:
                put(place, key)
                put(place + 8, value)
                put(place + 16, made)
                return
            slot = (slot + 1) & mask

    def index(args: int) -> int:
        missing, scratch = 0, at(args + MISSING) + 8
        for number in range(at(args + MERGE_COUNT)):
            begin = at(args + MERGES) + at(at(args + BOUNDS) + 8 * number)
            end = at(args + MERGES) + at(at(args + BOUNDS) + 8 * number + 8)
            cut = begin + size_at(begin)
            while cut < end and byte(cut) != SPACE:
                cut += 1
            if cut >= end - 1:
                continue
            size = 0
            for place in range(begin, end):
                if place != cut:
                    put_byte(scratch + size, byte(place))
                    size += 1
            left, right = symbol(args, begin, cut - begin), symbol(args, cut + 1, end - cut - 1)
            made = symbol(args, scratch, size)
            if left < 0 or right < 0 or made < 0:
                missing += 1
            else:
                add(args, left, right, number, made)
        put(at(args + MISSING), missing)
        return 0

    return index
