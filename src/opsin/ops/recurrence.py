"""Recurrent state: what layers keep of all rows before, in memory that does not grow with them.

What devices offer for it is a part of `opsin.ops.Ops`. States lie in slots; a row of numbers says which one a sequence
goes on from and where it leaves the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from opsin.arrays import Bytes
    from opsin.ops import Activation, Array


class States(Protocol):
    """Recurrent state: `count` slots, each of one float32 array of `shape` a layer. How it lies is the device's affair.

    What a slot holds before it is first written is undefined.
    """

    @property
    def layers(self) -> int: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def count(self) -> int: ...

    @property
    def bytes(self) -> int: ...

    def read(self, slot: int) -> Bytes:
        """What a slot holds in all layers: as it lies, for `write`."""
        ...

    def write(self, slot: int, contents: Bytes) -> None:
        """Put there what `read` gave. Only while nothing runs. Raises ModelError for another shape."""
        ...


@dataclass(frozen=True, eq=False)
class Runs:
    """Which rows of a batch stand one after another, and where their recurrent state comes from and goes. All int32.

    A sequence goes on from a state that others read, too, by writing elsewhere; nothing is ever copied. A slot that
    one sequence writes is neither read nor written by another in the same batch.

    Attributes:
        starts: [sequences + 1] the first row of each sequence, then where the last one ends. Sequences follow one
            another without gaps; one without rows reads and writes nothing.
        reads: [sequences] the slot whose state the first row begins from; negative: zeros.
        writes: [sequences] the slot that gets the state after the last row. It may be the one that is read.
    """

    starts: Array
    reads: Array
    writes: Array


class RecurrentOps(Protocol):
    """The operations of recurrent state. A row's result depends on its sequence's rows up to it, bit for bit.

    So it is the same in any chunks and company.
    """

    def states(self, *, layers: int, shape: tuple[int, ...], count: int) -> States:
        """Recurrent state of `shape` for `layers` layers, in `count` slots."""
        ...

    def conv_state(
        self, x: Array, w: Array, states: States, layer: int, runs: Runs, kind: Activation | None = None
    ) -> Array:
        """A causal convolution of each channel, and its activation: x [rows, channels] -> the same shape.

        y[r] = sum of w[i] * x[r - steps + 1 + i] over w [steps, channels]. What stands before a sequence's first row
        is the state [steps - 1, channels], and its last steps - 1 rows become it.
        """
        ...

    def delta(
        self, q: Array, k: Array, v: Array, decay: Array, beta: Array, states: States, layer: int, runs: Runs, *,
        scale: float, eps: float, grouped: bool = False,
    ) -> Array:  # fmt: skip
        """The gated delta rule (Yang et al. 2024, arXiv 2412.06464), row by row: [rows, value heads * value width].

        The state is S [value heads, key width, value width]. In each head q and k are made unit vectors,
        x / sqrt(sum of x**2 + eps); then, with the row's decay and beta of the head:
        S = decay * S; S = S + k (beta * (v - k' S))'; the result is scale * q' S.

        Args:
            q, k: [rows, key heads * key width].
            v: [rows, value heads * value width].
            decay, beta: [rows, value heads].
            grouped: value head j reads key head j // (value heads / key heads), else j % key heads.
        """
        ...

    def decay(self, x: Array, rate: Array) -> Array:
        """e**(rate * ln(1 + e**x)): x [n, heads], rate [heads] -> [n, heads] (Mamba's; Gu and Dao 2023)."""
        ...
