"""Sums of byte products where one instruction takes two rows and two outputs: the same sums as `GroupDots`.

`smmla` adds to [2 rows][2 outputs] the sums of eight products each, of bytes [2 rows][8] and [2 outputs][8]. Weights
lie as [4 outputs][4] a step, so two steps zipped by words are two outputs, and two more.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from opsin.ops.cpu.group_dots import GroupDots
from opsin.ops.cpu.simd import I8, I32, I64, call, constant, load

_ZIPPED = ((0, 4, 1, 5), (2, 6, 3, 7))  # words of two steps: outputs 0 and 1, 2 and 3
_OF_ROW = ((0, 1, 4, 5), (2, 3, 6, 7))  # words of two blocks: the first row's four outputs, the second's


class BlockDots(GroupDots):
    """Writes the code of one group for an even number of rows."""

    def emit(self, first: int, last: int) -> Any:
        tile = self.tile
        pairs = range(tile.tokens // 2)
        starts = [self._start_of_two(p) for p in pairs]
        acc = [[[starts[p], starts[p]] for p in pairs] for _ in range(tile.vectors)]
        for step in range(first, last, 2):
            x = [self._bytes_of_two(p, step) for p in pairs]
            for v in range(tile.vectors):
                w, later = (self.signed(self.values(v, s)) for s in (step, step + 1))
                for half, words in enumerate(_ZIPPED):
                    outputs = self._shuffled(w, later, words)
                    for p in pairs:
                        acc[v][p][half] = self._block(acc[v][p][half], x[p], outputs)
        result = ir.Constant(tile.I.ir, ir.Undefined)
        for t in range(tile.tokens):
            for v in range(tile.vectors):
                low, high = acc[v][t // 2]
                row = self._shuffled(low, high, _OF_ROW[t % 2])
                result = self.b.insert_value(result, row, t * tile.vectors + v)
        return result

    def _block(self, acc: Any, x: Any, w: Any) -> Any:
        name = f"llvm.aarch64.neon.{self.isa.block}.v4i32.v16i8"
        return call(self.b, name, self.words, (acc, x, self.b.bitcast(w, self.bytes)))

    def _bytes_of_two(self, pair: int, step: int) -> Any:
        """Bytes 4*step..4*step+7 of two rows."""
        b, eight = self.b, ir.VectorType(I8, 8)
        rows = [load(b, b.add(self.tokens[2 * pair + i], I64(4 * step)), eight) for i in range(2)]
        return b.shuffle_vector(*rows, ir.Constant(ir.VectorType(I32, 16), list(range(16))))

    def _start_of_two(self, pair: int) -> Any:
        """As `_start`, of two rows."""
        if self.tile.zero in (0, 128):
            return constant(self.words, 0)
        b, sums = self.b, ir.Constant(self.words, ir.Undefined)
        for i in range(4):
            sums = b.insert_element(sums, load(b, self.sums[2 * pair + i // 2], I32), I32(i))
        return sums

    def _shuffled(self, x: Any, y: Any, words: tuple[int, ...]) -> Any:
        return self.b.shuffle_vector(x, y, ir.Constant(self.words, words))
