"""Pieces of a text to ids, for kernels that differ in what they do with a new piece.

What pieces became is remembered in lines of LINE bytes: size and number of ids, the piece, the ids. A piece has one
line where it may lie, and the next one of that line takes its place.

A piece that the kernel cannot encode, and any of more than LONGEST bytes, ends the work: the caller does it.

Arguments: text, ends of pieces (int32), count, where the first begins, where ids go (int32), how many fit, results
(pieces done, ids written, whether the next piece is the caller's), ids written up to the end of each piece (int32),
memory of lines, its shift, factor of digests. Those of the kernel itself follow.
"""

from __future__ import annotations

from typing import Any

from opsin.ops.cpu.kernels.letters import letters
from opsin.ops.cpu.kernels.shared import jit
from opsin.ops.cpu.simd import Simd

TEXT, ENDS, COUNT, BEGIN, IDS, ROOM, RESULT, MARKS, MEMORY, MEMORY_SHIFT, FACTOR, SHARED = (8 * i for i in range(12))
LINE, LINE_TEXT, LINE_IDS = 128, 56, 16
LONGEST = 512  # bytes of a piece


def remembering(simd: Simd, encode: Any) -> Any:
    """The kernel. `encode(args, place, size, to)` writes the ids of a piece: how many, or -1 where it is the caller's.

    It writes no more ids than the piece has bytes.
    """
    at, i32, word, put, put_i32 = simd.i64_at, simd.i32_at, simd.word_at, simd.put_word, simd.put_i32
    shift_right = simd.shift_right
    digest = letters(simd).digest

    @jit
    def look_up(line: int, place: int, size: int) -> int:
        """How many ids the line has for this piece; -1 where it holds another."""
        head = word(line)
        if head & 0xFFFFFFFF != size:
            return -1
        at_line = line + 8
        while size >= 8:
            if word(at_line) != word(place):
                return -1
            at_line += 8
            place += 8
            size -= 8
        if word(at_line) != word(place) & ((1 << (8 * size)) - 1):
            return -1
        return head >> 32

    @jit
    def keep(line: int, place: int, size: int, ids: int, count: int) -> None:
        put(line, count << 32 | size)
        to = line + 8
        while size >= 8:
            put(to, word(place))
            to += 8
            place += 8
            size -= 8
        put(to, word(place) & ((1 << (8 * size)) - 1))
        for i in range(count):
            put_i32(line + 64 + 4 * i, i32(ids + 4 * i))

    def to_ids(args: int) -> int:
        text, begin, to, room = at(args + TEXT), at(args + BEGIN), at(args + IDS), at(args + ROOM)
        piece, written, foreign = 0, 0, 0
        while piece < at(args + COUNT):
            end = i32(at(args + ENDS) + 4 * piece)
            place, size = text + begin, end - begin
            if written + size > room and size <= LONGEST:
                break
            line, count = at(args + MEMORY), -1
            if size < LINE_TEXT:
                line += shift_right(digest(place, size, at(args + FACTOR)), at(args + MEMORY_SHIFT)) * LINE
                count = look_up(line, place, size)
            if count >= 0:
                for i in range(count):
                    put_i32(to + 4 * (written + i), i32(line + 64 + 4 * i))
            else:
                count = encode(args, place, size, to + 4 * written) if size <= LONGEST else -1
                if count < 0:
                    foreign = 1
                    break
                if size < LINE_TEXT and count <= LINE_IDS:
                    keep(line, place, size, to + 4 * written, count)
            written += count
            put_i32(at(args + MARKS) + 4 * piece, written)
            begin = end
            piece += 1
        put(at(args + RESULT), piece)
        put(at(args + RESULT) + 8, written)
        put(at(args + RESULT) + 16, foreign)
        return 0

    return to_ids
