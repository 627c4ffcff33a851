"""Turns tokens into text one at a time, whole characters only.

A character may be spread over several tokens; its first bytes wait until the rest has come. Bytes that can be no
character become U+FFFD, the replacement character, as soon as that is certain.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable


class Detokenizer:
    """Text of one sequence of tokens. `push` and `finish` together give what `Tokenizer.decode` gives at once."""

    def __init__(self, piece: Callable[[int], bytes], *, strip_space: bool) -> None:
        self._piece = piece
        self.strips_space = strip_space  # the next piece loses one leading space
        self._rest = b""  # of an unfinished character

    def push(self, id: int) -> str:
        """The text that this token completes; empty while a character is unfinished."""
        piece = self._piece(id)
        if self.strips_space and piece:
            self.strips_space = False
            piece = piece.removeprefix(b" ")
        return self._decode(piece)

    def finish(self) -> str:
        """What is left: a replacement character for an unfinished one, else nothing."""
        return self._decode(b"", final=True)

    def _decode(self, piece: bytes, *, final: bool = False) -> str:
        data = self._rest + piece
        text, used = codecs.utf_8_decode(data, "replace", final)
        self._rest = data[used:]
        return text
