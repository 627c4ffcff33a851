"""What holds an answer to a form: before each id a mask of those that may follow, after each the id that was taken.

Thread: the submitter's makes one; then the engine's accepts ids and the masks' thread makes masks, never both at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.uint8]


class Constraint(Protocol):
    """The state of one sequence: no other may have the same. What one raises ends its sequence with that error."""

    @property
    def ended(self) -> bool:
        """Whether nothing may follow, but for an end of the answer. The sequence ends with the id before, as "stop"."""
        ...

    def mask(self) -> Bits | None:
        """The ids that may come next: bit i % 8 of byte i // 8 of at least a vocabulary's bytes; None lets all.

        It depends on the ids accepted so far alone, may be asked for again, and holds until the next is made. An end
        of the answer is an id like others: where it may not come, its bit is 0. What takes long shall let the
        interpreter go.
        """
        ...

    def forced(self) -> Sequence[int]:
        """Ids that will most likely come next since the form lets no other text: guesses, drawn as all ids are."""
        ...

    def accept(self, id: int) -> None:
        """Take the next id. Ends of the answer are not told, unless they are ignored (`ignore_eos`)."""
        ...
