"""Pieces of a text to ids of texts of the vocabulary that stand side by side in them. One item.

`by`: the `longest` text that a piece begins with, then the longest at its end, and so on; a piece with a place where no
text fits, or with more characters than `most`, is unknown as a whole. Or the `likeliest` sequence, that of the best sum
of scores (A. Viterbi, 1967); a character that is no text is unknown, and of equal sums the one wins whose last text is
the longest.

Arguments: those of `remembered`, then texts, their bounds, their table, its shift, their ids (int32), bytes of the
longest text that begins with each code point (one byte each), the id of what is unknown (negative: none), most,
scores of the texts, that of an unknown character, room for work.
"""

from __future__ import annotations

from typing import Any

from opsin.ops.cpu.kernels.letters import letters
from opsin.ops.cpu.kernels.remembered import FACTOR, LONGEST, SHARED, remembering
from opsin.ops.cpu.kernels.shared import jit
from opsin.ops.cpu.simd import Simd

TEXTS, BOUNDS, TABLE, TABLE_SHIFT, NUMBERS, REACH, UNKNOWN, MOST, SCORES, UNKNOWN_SCORE, WORK = (
    SHARED + 8 * i for i in range(11)
)
STARTS, CHOSEN = (8 * (LONGEST + 1) * i for i in (1, 2))  # behind the best sums
WORK_BYTES = 8 * (LONGEST + 1) * 3


def make(simd: Simd, by: str) -> Any:
    return remembering(simd, _longest(simd) if by == "longest" else _likeliest(simd))


def _find(simd: Simd) -> Any:
    at, byte = simd.i64_at, simd.u8_at
    find_text = letters(simd).find_text

    @jit
    def find(args: int, place: int, size: int, left: int) -> int:
        """The number of the text of `size` bytes; -1 for none, or where the last character is cut. `left`: bytes."""
        if size < left and byte(place + size) & 0xC0 == 0x80:
            return -1
        number: int = find_text(place, size, at(args + TABLE), at(args + TABLE_SHIFT), at(args + FACTOR),
                                at(args + TEXTS), at(args + BOUNDS))  # fmt: skip
        return number

    return find


def _longest(simd: Simd) -> Any:
    at, i32, byte, put_i32 = simd.i64_at, simd.i32_at, simd.u8_at, simd.put_i32
    code_at, find = letters(simd).code_at, _find(simd)

    @jit
    def count_characters(place: int, size: int) -> int:
        count = 0
        for i in range(size):
            if byte(place + i) & 0xC0 != 0x80:
                count += 1
        return count

    @jit
    def encode(args: int, place: int, size: int, to: int) -> int:
        count, start = 0, 0
        fits = count_characters(place, size) <= at(args + MOST)
        while start < size:
            left, number = size - start, -1
            taken = min(left, byte(at(args + REACH) + code_at(place + start)))
            while taken > 0 and fits:
                number = find(args, place + start, taken, left)
                if number >= 0:
                    break
                taken -= 1
            if number < 0:
                put_i32(to, at(args + UNKNOWN))
                return 0 if at(args + UNKNOWN) < 0 else 1
            put_i32(to + 4 * count, i32(at(args + NUMBERS) + 4 * number))
            count += 1
            start += taken
        return count

    return encode


def _likeliest(simd: Simd) -> Any:
    at, i32, byte, word, put, put_i32 = (
        simd.i64_at, simd.i32_at, simd.u8_at, simd.word_at, simd.put_word, simd.put_i32,
    )  # fmt: skip
    size_at, code_at, find = letters(simd).size_at, letters(simd).code_at, _find(simd)

    @jit
    def offer(best: int, end: int, start: int, total: int, id: int) -> None:
        """A way to reach `end`: from `start`, by the text of this id."""
        if word(best + STARTS + 8 * end) < 0 or total > word(best + 8 * end):
            put(best + 8 * end, total)
            put(best + STARTS + 8 * end, start)
            put(best + CHOSEN + 8 * end, id)

    @jit
    def encode(args: int, place: int, size: int, to: int) -> int:
        best, start = at(args + WORK), 0
        put(best, 0)
        for end in range(1, size + 1):
            put(best + STARTS + 8 * end, -1)
        while start < size:
            total, left, first = word(best + 8 * start), size - start, size_at(place + start)
            reach = min(left, byte(at(args + REACH) + code_at(place + start)))
            single, taken = 0, first
            while taken <= reach:
                number = find(args, place + start, taken, left)
                if number >= 0:
                    offer(best, start + taken, start, total + word(at(args + SCORES) + 8 * number),
                          i32(at(args + NUMBERS) + 4 * number))  # fmt: skip
                    if taken == first:
                        single = 1
                taken += size_at(place + start + taken)
            if single == 0:
                offer(best, start + first, start, total + at(args + UNKNOWN_SCORE), at(args + UNKNOWN))
            start += first
        count, end = 0, size
        while end > 0:
            end = word(best + STARTS + 8 * end)
            count += 1
        written, end = count, size
        while end > 0:
            written -= 1
            put_i32(to + 4 * written, word(best + CHOSEN + 8 * end))
            end = word(best + STARTS + 8 * end)
        return count

    return encode
