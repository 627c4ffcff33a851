"""How much of a product or of attention the CPU's kernels take at once. Pure facts: no kernel, no compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opsin.ops import CHUNK, PAGE
from opsin.ops.layout import RECORD, STRIP, Layout

if TYPE_CHECKING:
    from opsin.ops.cpu.isa import Isa

AHEAD, FAR_AHEAD = 4096, 8192  # bytes between weights that are read and those that are fetched from memory meanwhile
DENSE_INPUTS = 768  # inputs of a strip that `dense` takes at once
SOME_ROWS = 64  # rows that pass 8-bit weights a stretch of records after the other, so that the next one can be fetched
STRETCH = 32  # records of it
FEW_ROWS = 16  # rows whose numbers are worth repeating (see `repeated.py`); more are worth unpacking weights for
REPEATED_ROWS = 8  # of them side by side
REPEATED_RECORDS = 64  # of them at once, which the second cache holds
REPEATED_SCALE, REPEATED_GROUPS, REPEATED_BYTES = 256, 288, 352  # where parts of a row's record begin, and all of it
QUERIES = 120  # most queries of a tile of attention: rows times query heads a KV head
PANEL = 6  # queries whose scores stand in registers at once
EXPERT_CALL = 256  # bytes of a thread's scratch before that of `linear`: the arguments of one call, and its row count
PACK_SCRATCH = 2048  # bytes of a thread of `pack`: a block's values, and behind them its scales and minima
SUMS_PIECE = 1 << 18  # bytes that one of the sums that find damage is of
STATE_STRIP = 32  # values that recurrent states are padded to
DELTA_ROWS = 16  # rows that pass a strip of a recurrent state at once
SCORES = CHUNK + 16  # floats between the scores of queries: a power of 2 would crowd a few lines of the cache

INT_ROWS, INT_KEYS = 512, 512  # most rows of a tile of attention by integers, keys that it takes at once


def int_panel(lanes: int) -> int:
    """Queries of attention by integers that are taken side by side."""
    return 64 if lanes >= 16 else 16


def int_rows(rows: int, heads: int, threads: int) -> int:
    """Rows of a tile of attention by integers: each rounds its keys anew, so many, if all threads get some tiles."""
    return max(64, min(INT_ROWS, rows * heads // (4 * threads) // 64 * 64))


def int_parts(lanes: int) -> tuple[int, int, int]:
    """Where scores, scales of keys, and what depends on the width begin in a thread's scratch of `attend_integers`."""
    row = 4 * int_panel(lanes)
    scores = 16 * INT_ROWS + 3 * row
    scales = scores + PAGE * row + PAGE * row // 2
    return scores, scales, scales + 4 * INT_KEYS


def int_scratch(width: int, lanes: int, bits: int) -> int:
    """Bytes of one thread in `attend_integers`."""
    padded = -(-width // lanes) * lanes
    each = bits // 8
    return int_parts(lanes)[2] + padded * (4 + (4 + each) * INT_ROWS + 2 * each * INT_KEYS + 4 * INT_KEYS // PAGE)


def dense_strips(lanes: int, registers: int) -> int:
    """Strips of outputs that `dense` takes at once."""
    return 2 if lanes >= 16 and registers >= 32 else 1


def dense_rows(rows: int, items: int, lanes: int, threads: int) -> int:
    """Rows of x that share a stretch of weights; `items` of as many rows are taken side by side.

    Where weights become float32 first, more rows share that, if there is enough to do for all threads nevertheless.
    """
    few, many = 96, 204
    return many if lanes < 16 and -(-rows // many) * items >= 4 * threads else few


def score_vectors(registers: int) -> int:
    """Vectors of keys whose scores for PANEL queries fit the registers."""
    return 4 if registers >= 32 else 2


def delta_vectors(lanes: int, registers: int) -> int:
    """Vectors of a recurrent state taken at once, a strip: thrice as many sums and values stand in registers."""
    return 4 if registers >= 32 and lanes < 16 else 2


def value_vectors(width: int, lanes: int, registers: int) -> int:
    """Vectors of values taken at once: the most that fit the registers and leave the fewest of `width` unused."""
    needed = -(-width // lanes)
    fitting = (4, 6, 5, 3, 2, 1) if registers >= 32 else (2, 3, 1)
    return min(fitting, key=lambda v: -(-needed // v) * v + (v < min(needed, 2)) * needed)


def attention_scratch(width: int, group: int, lanes: int, vectors: int) -> int:
    """Bytes of one thread in `attend`: queries, sums of a chunk and of all, states, ranges; scores, a block."""
    queries = -(-max(QUERIES, group) // PANEL) * PANEL
    padded = -(-width // (vectors * lanes)) * vectors * lanes
    block = PAGE * max(-(-width // lanes) * lanes, padded)
    return 4 * (queries * (3 * padded + 6 + SCORES) + block) + 512


def fetched_ahead(isa: Isa, rows: int, layout: Layout) -> tuple[int, int]:
    """(bytes ahead of the first rows that pass, into the first cache; or into the second one only), or 0 and 0.

    The longer products take, the further ahead. Some CPUs see themselves what comes in so plain an order, if products
    are few, and reach more of memory's bandwidth than a kernel that asks for it. Measured in docs/log.md.
    """
    integers = layout.kind == "int16"
    if isa.foresees and (rows == 1 or layout.bits == 8 or (integers and rows <= 4)):
        return 0, 0
    if isa.lanes < 16 or integers or rows == 1 or (rows == 2 and layout.bits in (4, 8)):
        return AHEAD, 0
    return 0, FAR_AHEAD


def is_apart(dot: str, layout: Layout) -> bool:
    """Whether products of more than two rows want weights, or rows, to be laid out for them first."""
    return dot == "maddubs" and layout.kind == "planes"


def linear_scratch(dot: str, layout: Layout, inputs: int) -> int:
    """Bytes of one thread in `linear`: sums of a strip, unpacked weights of one, or a few rows repeated."""
    if not is_apart(dot, layout):
        return 4 * STRIP * 2 * SOME_ROWS if layout.bits == 8 else 0
    numbers = 4 * (RECORD // layout.group) * (2 if layout.minimum else 1)
    records = min(REPEATED_RECORDS, inputs // RECORD)
    repeated = REPEATED_ROWS * (4 * STRIP + REPEATED_BYTES * records)
    return max(inputs // RECORD * STRIP * (RECORD + numbers), repeated)
