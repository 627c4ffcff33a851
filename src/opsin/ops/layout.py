"""How weights and the KV cache lie in memory, on every device. Pure facts: no kernel, no compiler.

A weight matrix [outputs, inputs] is cut into strips of STRIP outputs, each one run of memory that a kernel
reads from front to back. Quantised weights come in records of 32 inputs:

    scales   f16 [32 / group][STRIP]
    minima   f16 [32 / group][STRIP]            where the format has them
    planes   4 bits: [4][STRIP][4] bytes        step s = inputs 4s..4s+3; low nibble step 2j, high nibble step 2j+1
             2 bits: [2][STRIP][4] bytes        bits 2i..2i+1 of plane j hold step 4j+i
             1 bit:  [1][STRIP][4] bytes        bit s holds step s
             8 bits: [8][STRIP][4] bytes

Where scales are whole numbers times a factor of 256 inputs (the k-quants), they are int8 instead, and before every
eight records stand the factors: f16 [STRIP], and f16 [STRIP] for the minima. Where scales and minima are paired, a byte
holds both: the scale in its low nibble.

Where steps are uneven, 4 bits choose one of 16 bytes of a table, which the kernel knows.

Widths are built from planes: 5 = 4 + 1 (the top bit), 6 = 4 + 2, 3 = 2 + 1. Float weights are [inputs][STRIP].

Floats of 16 bits may become integers of 16 bits, pairs of inputs side by side, in blocks of BLOCK inputs, of which
the last may be shorter:

    scales   f32 [STRIP]
    values   i16 [inputs of the block / 2][STRIP][2]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from opsin.ops import PAGE
from opsin.quants import QuantType

STRIP = 32
RECORD = 32  # inputs a record
RECORDS = 8  # records that share factors, where a format has them
BLOCK = 128  # inputs that share a scale of 16-bit integers
PAIR_BYTES = 4 * STRIP  # of two inputs of a strip as 16-bit integers; a block's scales take as many
_PLANE_BYTES = {1: 4 * STRIP, 2: 8 * STRIP, 4: 16 * STRIP, 8: 32 * STRIP}
PLANES = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 8: (8,)}
FLOAT_BYTES = {"f32": 4, "f16": 2, "bf16": 2}


@dataclass(frozen=True)
class Layout:
    """Where the parts of a record lie. `bits` 0 means floats of kind `kind`, or 16-bit integers."""

    kind: str  # "planes", "f32", "f16", "bf16", "int16"
    bits: int = 0
    group: int = 32
    zero: int = 0
    minimum: bool = False
    codes: bool = False
    paired: bool = False
    table: tuple[int, ...] = ()

    @property
    def scale_size(self) -> int:
        """Bytes of one scale."""
        return 1 if self.codes else 2

    @property
    def scale_bytes(self) -> int:
        return self.scale_size * STRIP * (RECORD // self.group)

    @property
    def factor_bytes(self) -> int:
        """Bytes before every RECORDS records."""
        return 0 if not self.codes else 2 * STRIP * (2 if self.minimum else 1)

    @property
    def head_bytes(self) -> int:
        """Bytes before the planes of a record."""
        return self.minima_at + (self.scale_bytes if self.minimum else 0)

    @property
    def minima_at(self) -> int:
        """Where a record's minima begin: behind its scales, or with them."""
        return 0 if self.paired else self.scale_bytes

    @property
    def numbers(self) -> tuple[str, str]:
        """How scales and minima are held: as "f16", as "i8", or as nibbles of one byte, "low" and "high"."""
        if self.paired:
            return "low", "high"
        return ("i8", "i8") if self.codes else ("f16", "f16")

    @property
    def record_bytes(self) -> int:
        return self.head_bytes + sum(_PLANE_BYTES[p] for p in PLANES[self.bits])

    @property
    def block_records(self) -> int:
        """Records that share factors; more than there are of a format without."""
        return RECORDS if self.codes else 1 << 30

    @property
    def strip_bytes(self) -> Callable[[int], int]:
        """strip_bytes(inputs): bytes of one strip of a matrix with so many columns. Kernels compile it."""
        if self.kind == "int16":
            return lambda inputs: PAIR_BYTES * ((inputs + BLOCK - 1) // BLOCK + (inputs + 1) // 2)
        if self.kind != "planes":
            column = STRIP * FLOAT_BYTES[self.kind]
            return lambda inputs: inputs * column
        record, factors = self.record_bytes, self.factor_bytes
        return lambda inputs: inputs // RECORD * record + inputs // RECORD // RECORDS * factors

    @property
    def options(self) -> dict[str, int | str | bool]:
        """What a kernel's `make` is told of it."""
        if self.kind != "planes":
            return {"kind": self.kind}
        return asdict(self)

    @property
    def name(self) -> str:
        if self.kind != "planes":
            return self.kind
        return (
            f"{self.bits}bit/{self.group}"
            + ("+min" if self.minimum else "")
            + (" coded" if self.codes else "")
            + (" paired" if self.paired else "")
            + (" table" if self.table else "")
        )


SHARED = 16  # values of a page that share a scale: with 32 the divergence of 8 bits on SmolLM2 was a fifth larger
VALUE_BITS = {"f32": 32, "f16": 16, "q8_0": 8, "q4_0": 4}  # of a page, without its scales
SCALED = frozenset({"q8_0", "q4_0"})


def page_bytes(width: int, kind: str) -> int:
    """Bytes of the keys, or of the values, of one head in one page of the KV cache."""
    return width * PAGE * VALUE_BITS[kind] // 8 + (2 * (width // SHARED) * PAGE if kind in SCALED else 0)


def strips(outputs: int) -> int:
    return -(-outputs // STRIP)


def layout_of(kind: QuantType, *, rounded: bool = False) -> Layout:
    """How a format lies in memory. Those without planes are kept as f16; `rounded`: floats of 16 bits as integers."""
    if kind.planes is not None:
        p = kind.planes
        return Layout("planes", p.bits, p.group, p.zero, p.minimum, p.codes, p.paired, p.table)
    plain = {"F32": "f32", "F64": "f32", "BF16": "bf16"}
    name = plain.get(kind.name, "f16")
    return Layout("int16" if rounded and name != "f32" else name)


def weight_bytes(kind: QuantType, outputs: int, inputs: int, *, rounded: bool = False) -> int:
    """Bytes that a matrix of a format takes in memory; `rounded`: on devices that do so, and nearly so on others."""
    return strips(outputs) * layout_of(kind, rounded=rounded).strip_bytes(inputs)
