"""Experts: parts of a network of which each row passes through a few (Shazeer et al. 2017, arXiv 1701.06538).

What devices offer for them is a part of `opsin.ops.Ops`. Rows are put in the order of their experts, a pair of a row
and one of its experts at each place, so that every expert sees its rows side by side and is read once, and one that
nobody chose is not read at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from opsin.ops import Array, Raw

Gating = Literal["softmax", "sigmoid"]


@dataclass(frozen=True)
class Routing:
    """How the logits of a router become experts and their shares.

    Attributes:
        used: experts of a row.
        gating: what makes scores of logits. A softmax over the chosen alone is one over all that is `normalised`.
        normalised: whether a row's shares are divided by their sum.
        scale: what shares are multiplied by in the end.
        groups, used_groups: experts stand in so many groups, and those outside the best are not chosen. A group is as
            good as the sum of its two best (DeepSeek-AI 2024, arXiv 2412.19437).
    """

    used: int
    gating: Gating = "softmax"
    normalised: bool = True
    scale: float = 1.0
    groups: int = 1
    used_groups: int = 1

    def fits(self, experts: int) -> bool:
        """Whether so many experts can be chosen from like this."""
        if self.groups < 1 or experts % self.groups or not 1 <= self.used_groups <= self.groups:
            return False
        return self.groups <= MOST_GROUPS and 1 <= self.used <= self.used_groups * (experts // self.groups)


MOST_GROUPS = 64


@dataclass(frozen=True, eq=False)
class Routes:
    """Which experts the rows of a batch pass through, all [rows, used].

    Attributes:
        experts: int32, by row the experts, best first; equal ones in the order of their numbers.
        shares: by row, what is taken of each.
        pairs: int32, by place the pair that stands there: row * used + which of the row's experts. Places are those of
            the first expert that anybody chose, then those of the next; rows of one expert keep their order.
        places: int32, by pair its place.
        plan: what the device keeps beside them.
    """

    experts: Array
    shares: Array
    pairs: Array
    places: Array
    plan: object = None


class Stack(Protocol):
    """Matrices of one shape, one an expert, laid out for a device."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(experts, outputs, inputs)."""
        ...

    @property
    def bytes(self) -> int: ...


class ExpertOps(Protocol):
    """The operations for experts. A row's result depends on that row alone, bit for bit, as everywhere."""

    def pack_experts(self, raw: Raw, experts: int) -> Stack:
        """Lay out the matrices of a tensor of shape (experts * outputs, inputs). Done once, at load."""
        ...

    def route(self, logits: Array, how: Routing, bias: Array | None = None, gains: Array | None = None) -> Routes:
        """logits [n, experts] -> where rows go. Experts are chosen by score, or by score + bias [experts].

        The bias changes the choice alone. Shares are scores, `how` says what is done to them; then they are multiplied
        by gains [experts]. A row with a NaN has shares that are NaN.
        """
        ...

    def spread(self, x: Array, routes: Routes, *, weighed: bool = False) -> Array:
        """x [n, width] -> [n, used, width]: at each place the row that stands there; `weighed`: times its share."""
        ...

    def experts(self, x: Array, w: Stack, routes: Routes, bias: Array | None = None) -> Array:
        """x [n, used, inputs] by place -> [n, used, outputs]: each times its own expert (+ bias [experts, outputs]).

        To the bit what `Ops.linear` gives with that expert's matrix. An expert that no row chose is not read.
        """
        ...

    def join(self, x: Array, routes: Routes, residual: Array | None = None, *, weighed: bool = True) -> Array:
        """x [n, used, width] by place -> [n, width]: sums of a row's values, times shares if `weighed` (+ residual)."""
        ...

    def gated(self, x: Array, by: Array, w: Array, residual: Array | None = None) -> Array:
        """x [n, width] -> sigmoid(by [n, inputs] . w [inputs]) * x (+ residual): of experts that all rows share."""
        ...
