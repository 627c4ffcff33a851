"""Turns the blocks of a tensor from one byte order into the other.

The reference names the multi-byte scalars of each block; single bytes and packed nibbles stay where they are.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from opsin.gguf.tensor_type import TensorType


def swap_blocks(blocks: npt.NDArray[np.uint8], kind: TensorType) -> None:
    """Swap the bytes of every scalar in `blocks`, which holds whole blocks of `kind`, in place."""
    rows = blocks.reshape(-1, kind.block_bytes)  # [blocks, bytes]
    for run in kind.scalars:
        field = rows[:, run.start : run.start + run.width * run.count]
        field[:] = field.reshape(-1, run.count, run.width)[:, :, ::-1].reshape(field.shape)
