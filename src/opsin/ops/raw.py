"""Tensors as files hold them, and what tells where they come from: what devices lay out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Origin:
    """A file that tensors come from, for devices that keep what they made of them.

    Attributes:
        label: what people call it.
        state: what tells it from all other files, and from itself before somebody wrote into it; None where nobody can
            tell, and nothing is to be kept.
        bytes: of its tensors.
    """

    label: str
    state: Callable[[], bytes | None]
    bytes: int


@dataclass(frozen=True)
class Raw:
    """A tensor as it lies in a file, for `Ops.pack`.

    Attributes:
        name: for messages.
        type: ggml type id.
        shape: (outputs, inputs).
        read: read(first_row, last_row, into) fills `into` with the bytes of some rows.
        origin: the file, where these are bytes of it.
        place: what tells which.
    """

    name: str
    type: int
    shape: tuple[int, int]
    read: Callable[[int, int, npt.NDArray[np.uint8]], None]
    origin: Origin | None = None
    place: str = ""
