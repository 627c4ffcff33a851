"""Cuts pieces of a text further. One item.

`pattern` cuts at the matches of a pattern (see `text/automaton.py`); what lies between matches stays as a piece.
Arguments: text, ends of the pieces (int32), their count, where the first begins, where to write the ends of the
new ones, how many fit, results (the count; -1 where the pattern looked too far ahead too often), table, classes of
code points, how many classes, bytes after which it may stop behind a match.

`joints` cuts wherever no text of the vocabulary has two characters side by side (see `text/joints.py`). Arguments: the
same seven, whether each pair of characters is joined by its digest, the shift of that, whether a character may join
with any on its right, with any on its left, and a byte: pieces that begin with it stay whole.
"""

from __future__ import annotations

from typing import Any

from opsin.ops.cpu.kernels.letters import letters
from opsin.ops.cpu.kernels.shared import jit
from opsin.ops.cpu.simd import Simd

TEXT, ENDS, COUNT, BEGIN, CUTS, ROOM, RESULT = (8 * i for i in range(7))
TABLE, CLASSES, COLUMNS, ENOUGH = (8 * i for i in range(7, 11))
JOINED, SHIFT, RIGHT, LEFT, KEPT = (8 * i for i in range(7, 12))
FACTORS = 0x9E3779B1, 0x85EBCA77
PATIENCE, SLACK = 16, 1 << 16  # look-ups a byte, and beyond that


def make(simd: Simd, by: str) -> Any:
    return _pattern(simd) if by == "pattern" else _joints(simd)


def _pattern(simd: Simd) -> Any:
    at, i32, byte, put, put_i32 = simd.i64_at, simd.i32_at, simd.u8_at, simd.put_i64, simd.put_i32
    size_at, code_at = letters(simd)[:2]

    @jit
    def match(args: int, begin: int, end: int) -> int:
        """Where the match ends that begins here; -1 for none. Then twice the steps that it took, above 32 bits."""
        classes, table = at(args + CLASSES), at(args + TABLE)
        state, place, last, steps = at(args + COLUMNS), begin, 0, 0
        while True:
            size, kind = 1, 0
            if place < end:
                first = byte(place)
                if first < 0x80:
                    kind = byte(classes + first)
                else:
                    size = size_at(place)
                    kind = byte(classes + code_at(place))
            entry = i32(table + 4 * (state + kind))
            if entry & 1:
                last = place - begin
            state = entry >> 1
            steps += 1
            if state == 0:
                return steps << 32 | last
            place += size

    def cut(args: int) -> int:
        text, ends, cuts, room = at(args + TEXT), at(args + ENDS), at(args + CUTS), at(args + ROOM)
        begin, made, steps = at(args + BEGIN), 0, 0
        first = begin
        for piece in range(at(args + COUNT)):
            end = i32(ends + 4 * piece)
            place = begin
            while place < end:
                found = match(args, text + place, text + end)
                steps += found >> 32
                size = found & 0xFFFFFFFF
                if steps > PATIENCE * (place - first) + SLACK:
                    put(at(args + RESULT), -1)
                    return 0
                if size == 0:
                    place += size_at(text + place)
                    continue
                if begin < place:
                    put_i32(cuts + 4 * made, place)
                    made += 1
                place += size
                put_i32(cuts + 4 * made, place)
                made += 1
                begin = place
                if begin - first >= at(args + ENOUGH) or made + 3 > room:
                    put(at(args + RESULT), made)
                    return 0
            if begin < end:
                put_i32(cuts + 4 * made, end)
                made += 1
            begin = end
        put(at(args + RESULT), made)
        return 0

    return cut


def _joints(simd: Simd) -> Any:
    at, i32, byte, put, put_i32, shift_right = (
        simd.i64_at, simd.i32_at, simd.u8_at, simd.put_i64, simd.put_i32, simd.shift_right,
    )  # fmt: skip
    size_at, code_at = letters(simd)[:2]
    one, other = FACTORS

    def cut(args: int) -> int:
        text, ends, cuts = at(args + TEXT), at(args + ENDS), at(args + CUTS)
        joined, right, left, shift = at(args + JOINED), at(args + RIGHT), at(args + LEFT), at(args + SHIFT)
        begin, made = at(args + BEGIN), 0
        for piece in range(at(args + COUNT)):
            end = i32(ends + 4 * piece)
            if byte(text + begin) != at(args + KEPT):
                before = code_at(text + begin)
                begin += size_at(text + begin)
                while begin < end:
                    code = code_at(text + begin)
                    mixed = shift_right((before * one + code * other) & 0xFFFFFFFF, shift)
                    if byte(joined + mixed) + byte(right + before) + byte(left + code) == 0:
                        put_i32(cuts + 4 * made, begin)
                        made += 1
                    before = code
                    begin += size_at(text + begin)
            put_i32(cuts + 4 * made, end)
            made += 1
            begin = end
        put(at(args + RESULT), made)
        return 0

    return cut
