"""IQ1, IQ2 and IQ3: groups of weights that choose vectors from large tables.

The tables come from the `gguf` package, which is imported when such a tensor is decoded.
"""

from __future__ import annotations

import numpy as np

from opsin.arrays import Bytes, Floats
from opsin.errors import OpsinError
from opsin.quants._format import QuantType


def _codebook(name: str, id: int, size: int) -> QuantType:
    @np.errstate(over="ignore", invalid="ignore")
    def decode(blocks: Bytes) -> Floats:
        try:
            from gguf import GGMLQuantizationType
            from gguf.quants import dequantize
        except (ImportError, AttributeError) as error:  # also where a folder or a file is called gguf
            raise OpsinError(
                f"{name} is a codebook format, and its tables come with the package gguf", hint="pip install gguf"
            ) from error
        if not len(blocks):  # gguf cannot reshape nothing
            return np.zeros((0, 256), dtype=np.float32)
        values: Floats = dequantize(np.ascontiguousarray(blocks), GGMLQuantizationType(id))
        return values

    return QuantType(name, id, elements=256, bytes=size, decode=decode)


TYPES = (
    _codebook("IQ2_XXS", 16, 66),
    _codebook("IQ2_XS", 17, 74),
    _codebook("IQ3_XXS", 18, 98),
    _codebook("IQ1_S", 19, 50),
    _codebook("IQ3_S", 21, 110),
    _codebook("IQ2_S", 22, 82),
    _codebook("IQ1_M", 29, 56),
)
