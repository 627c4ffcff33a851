"""Words of a text, each rewritten character by character and with a zero byte in front. One item.

What a character becomes is a number: 0 itself; 1 a word that is itself; from 2 on one of the `parts`, texts in which a
space ends a word; negative, not known. Fragments end where the bounds say, and so do words there. The work goes on from
its state: next byte of the text, bytes written, words written, fragments done, whether a word is open. It ends when
all fragments are done, behind the character that reaches `stop`, before one whose number is not known, and where fewer
than SPARE bytes are left to write to. No part takes as many, with the zero bytes of its words.

Arguments: text, ends of the fragments, their count, numbers by code point (int32), parts, their bounds, where to write
the text, how many bytes fit, the ends of its words (int32), the ends of the fragments there, state, stop.
"""

from __future__ import annotations

from typing import Any

from opsin.ops.cpu.kernels.letters import letters
from opsin.ops.cpu.kernels.shared import jit
from opsin.ops.cpu.simd import Simd

TEXT, ENDS, COUNT, NUMBERS, PARTS, BOUNDS, TO, ROOM, CUTS, FRAGMENTS, STATE, STOP = (8 * i for i in range(12))
SPARE = 64
SPACE = 0x20


def make(simd: Simd) -> Any:
    at, i32, byte, word = simd.i64_at, simd.i32_at, simd.u8_at, simd.word_at
    put, put_i32, put_byte = simd.put_word, simd.put_i32, simd.put_i8
    size_at, code_at = letters(simd)[:2]

    @jit
    def open_word(args: int, written: int, begun: int) -> int:
        """Where the next byte of the word goes."""
        if begun == 0:
            put_byte(at(args + TO) + written, 0)
            return written + 1
        return written

    @jit
    def close_word(args: int, written: int, words: int, begun: int) -> int:
        """How many words there are when the open one has ended."""
        if begun == 0:
            return words
        put_i32(at(args + CUTS) + 4 * words, written)
        return words + 1

    def rewrite(args: int) -> int:
        state, text, to = at(args + STATE), at(args + TEXT), at(args + TO)
        place, written, words, fragment, begun = (
            word(state), word(state + 8), word(state + 16), word(state + 24), word(state + 32),
        )  # fmt: skip
        number = 0
        while fragment < at(args + COUNT) and place < at(args + STOP) and number >= 0:
            end = word(at(args + ENDS) + 8 * fragment)
            while place < end and place < at(args + STOP):
                size = size_at(text + place)
                number = i32(at(args + NUMBERS) + 4 * code_at(text + place))
                if written + SPARE > at(args + ROOM):
                    number = -1
                if number < 0:
                    break
                if number == 1:
                    words = close_word(args, written, words, begun)
                    begun = 0
                if number < 2:
                    written = open_word(args, written, begun)
                    put(to + written, word(text + place))
                    written += size
                    begun = 1
                    if number == 1:
                        words = close_word(args, written, words, begun)
                        begun = 0
                else:
                    part = at(args + BOUNDS) + 8 * (number - 2)
                    for i in range(word(part), word(part + 8)):
                        letter = byte(at(args + PARTS) + i)
                        if letter == SPACE:
                            words = close_word(args, written, words, begun)
                            begun = 0
                        else:
                            written = open_word(args, written, begun)
                            put_byte(to + written, letter)
                            written += 1
                            begun = 1
                place += size
            if place == end and number >= 0:
                words = close_word(args, written, words, begun)
                begun = 0
                put(at(args + FRAGMENTS) + 8 * fragment, written)
                fragment += 1
        put(state, place)
        put(state + 8, written)
        put(state + 16, words)
        put(state + 24, fragment)
        put(state + 32, begun)
        return 0

    return rewrite
