"""Pieces of a text to symbols, and pairs of neighbours merged, the best first, the leftmost of equals. One item.

Symbols are the ids of tokens, and larger numbers for what is none. `unit`: a piece begins as its `bytes` or as its
`characters`. `by`: pairs merge by a table of `pairs`, or by `ranks`, where what two symbols spell together is a text
of the vocabulary. `whole`: a piece that is a text of the vocabulary becomes its symbol at once: `no`, `any`, or those
that begin with a `newline`.

A piece that is too long, or that holds a symbol for which there is nothing to write, is the caller's.

Arguments: those of `remembered`, then symbols of bytes or code points (int32), symbols that are ids, number of the
symbol of code point 0 that is no token, ids of bytes (int32, negative: none), texts, their bounds, their table, its
shift, symbols of texts (int32), their ranks (int32), pairs, their shift, letters of bytes (two bytes each), room for
work.
"""

from __future__ import annotations

from typing import Any

from opsin.ops.cpu.kernels.letters import letters
from opsin.ops.cpu.kernels.remembered import FACTOR, LONGEST, SHARED, remembering
from opsin.ops.cpu.kernels.shared import jit
from opsin.ops.cpu.simd import Simd

UNITS, SIZE, UNKNOWN, BYTES, TEXTS, BOUNDS, TABLE, TABLE_SHIFT, SYMBOLS, RANKS, PAIRS, PAIRS_SHIFT, LETTERS, WORK = (
    SHARED + 8 * i for i in range(14)
)
NEWLINE = 10
NOTHING = 1 << 60
VALUES, MADES, STARTS, SPELLED = (8 * (LONGEST + 2) * i for i in range(1, 5))  # behind the symbols
WORK_BYTES = 8 * (LONGEST + 2) * 5


def make(simd: Simd, unit: str, by: str, whole: str) -> Any:
    at, word, put, put_i32 = simd.i64_at, simd.word_at, simd.put_word, simd.put_i32
    begin_symbols, value_pair = _units(simd, unit), _pairs(simd) if by == "pairs" else _ranks(simd)
    find_whole, write = _whole(simd, unit), _writer(simd, unit)
    any_whole, newline = whole == "any", whole == "newline"
    byte = simd.u8_at

    @jit
    def merge(args: int, place: int, count: int) -> int:
        """Merges the symbols of a piece; how many are left."""
        work = at(args + WORK)
        for i in range(count - 1):
            value_pair(args, place, count, i)
        while count > 1:
            best, least = 0, NOTHING
            for i in range(count - 1):
                value = word(work + VALUES + 8 * i)
                if value < least:
                    best, least = i, value
            if least == NOTHING:
                break
            put(work + 8 * best, word(work + MADES + 8 * best))
            count -= 1
            for i in range(best + 1, count):
                put(work + 8 * i, word(work + 8 * i + 8))
                put(work + STARTS + 8 * i, word(work + STARTS + 8 * i + 8))
                put(work + VALUES + 8 * i, word(work + VALUES + 8 * i + 8))
                put(work + MADES + 8 * i, word(work + MADES + 8 * i + 8))
            put(work + STARTS + 8 * count, word(work + STARTS + 8 * count + 8))
            if best < count - 1:
                value_pair(args, place, count, best)
            if best > 0:
                value_pair(args, place, count, best - 1)
        return count

    @jit
    def encode(args: int, place: int, size: int, to: int) -> int:
        """The ids of a piece; how many, or -1 where it is the caller's."""
        if any_whole or (newline and byte(place) == NEWLINE):
            found = find_whole(args, place, size)
            if 0 <= found < at(args + SIZE):
                put_i32(to, found)
                return 1
        count = merge(args, place, begin_symbols(args, place, size))
        return write(args, count, to)

    return remembering(simd, encode)


def _units(simd: Simd, unit: str) -> Any:
    """Writes the symbols of a piece and where each begins, and the end of the last."""
    at, i32, byte, put = simd.i64_at, simd.i32_at, simd.u8_at, simd.put_word
    size_at, code_at = letters(simd)[:2]
    single = unit == "bytes"

    @jit
    def begin_symbols(args: int, place: int, size: int) -> int:
        work, units, count, start = at(args + WORK), at(args + UNITS), 0, 0
        while start < size:
            code = byte(place + start) if single else code_at(place + start)
            put(work + 8 * count, i32(units + 4 * code))
            put(work + STARTS + 8 * count, start)
            start += 1 if single else size_at(place + start)
            count += 1
        put(work + STARTS + 8 * count, size)
        return count

    return begin_symbols


def _pairs(simd: Simd) -> Any:
    at, word, put = simd.i64_at, simd.word_at, simd.put_word
    find = letters(simd).find_pair

    @jit
    def value_pair(args: int, place: int, count: int, i: int) -> None:
        """Writes the value of the pair of symbols i and i + 1, and what it becomes."""
        work = at(args + WORK)
        slot = find(word(work + 8 * i), word(work + 8 * i + 8), at(args + PAIRS), at(args + PAIRS_SHIFT),
                    at(args + FACTOR))  # fmt: skip
        put(work + VALUES + 8 * i, NOTHING if slot == 0 else word(slot + 8))
        put(work + MADES + 8 * i, 0 if slot == 0 else word(slot + 16))

    return value_pair


def _ranks(simd: Simd) -> Any:
    at, i32, word, put = simd.i64_at, simd.i32_at, simd.word_at, simd.put_word
    find = letters(simd).find_text

    @jit
    def value_pair(args: int, place: int, count: int, i: int) -> None:
        work = at(args + WORK)
        start = word(work + STARTS + 8 * i)
        size = word(work + STARTS + 8 * i + 16) - start
        number = find(place + start, size, at(args + TABLE), at(args + TABLE_SHIFT), at(args + FACTOR),
                      at(args + TEXTS), at(args + BOUNDS))  # fmt: skip
        put(work + VALUES + 8 * i, NOTHING if number < 0 else i32(at(args + RANKS) + 4 * number))
        put(work + MADES + 8 * i, 0 if number < 0 else i32(at(args + SYMBOLS) + 4 * number))

    return value_pair


def _whole(simd: Simd, unit: str) -> Any:
    """The symbol of a piece that is a text of the vocabulary; -1 where it is none."""
    at, i32, byte, put = simd.i64_at, simd.i32_at, simd.u8_at, simd.put_i8
    find = letters(simd).find_text
    spelled = unit == "bytes"

    @jit
    def find_whole(args: int, place: int, size: int) -> int:
        if spelled:
            to, length = at(args + WORK) + SPELLED, 0
            for i in range(size):
                letter = at(args + LETTERS) + 2 * byte(place + i)
                put(to + length, byte(letter))
                length += 1
                if byte(letter) >= 0x80:
                    put(to + length, byte(letter + 1))
                    length += 1
            place, size = to, length
        number = find(place, size, at(args + TABLE), at(args + TABLE_SHIFT), at(args + FACTOR), at(args + TEXTS),
                      at(args + BOUNDS))  # fmt: skip
        return -1 if number < 0 else i32(at(args + SYMBOLS) + 4 * number)

    return find_whole


def _writer(simd: Simd, unit: str) -> Any:
    at, i32, word, put = simd.i64_at, simd.i32_at, simd.word_at, simd.put_i32
    spells = unit == "characters"

    @jit
    def write(args: int, count: int, to: int) -> int:
        """Ids of the symbols that are left; -1 where one has none."""
        work, ids, written = at(args + WORK), at(args + BYTES), 0
        for i in range(count):
            symbol = word(work + 8 * i)
            if symbol < at(args + SIZE):
                put(to + 4 * written, symbol)
                written += 1
                continue
            code = symbol - at(args + UNKNOWN)
            if not spells or code < 0:
                return -1
            size = 1 if code < 0x80 else 2 if code < 0x800 else 3 if code < 0x10000 else 4
            for k in range(size):
                part = code >> (6 * (size - 1 - k))
                if k > 0:
                    part = 0x80 | part & 63
                elif size > 1:
                    part = (0xF00 >> size) & 0xFF | part
                found = i32(ids + 4 * part)
                if found < 0:
                    return -1
                put(to + 4 * written, found)
                written += 1
        return written

    return write
