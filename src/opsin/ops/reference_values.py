"""Values of the definition: ndarrays behind Arrays, and functions of single ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from opsin.ops import Activation, Array

Values = npt.NDArray[Any]  # float32, float64 or int32


def data(x: Array) -> Values:
    """The ndarray behind a reference Array."""
    assert isinstance(x.data, np.ndarray)
    return x.data


def activated(x: Values, kind: Activation) -> Values:
    """The activations by name; formulas as in the docstring of `opsin.ops.Ops`."""
    v = x.astype(np.float64)
    if kind == "relu":
        return np.maximum(x, 0)
    if kind == "silu":
        return _as(v / (1 + np.exp(-v)), x)
    if kind == "sigmoid":
        return _as(1 / (1 + np.exp(-v)), x)
    if kind == "gelu":  # the tanh form of Hendrycks and Gimpel 2016
        return _as(0.5 * v * (1 + np.tanh(np.sqrt(2 / np.pi) * (v + 0.044715 * v**3))), x)
    if kind == "gelu_quick":
        return _as(v / (1 + np.exp(-1.702 * v)), x)
    from math import erf

    return _as(0.5 * v * (1 + np.vectorize(erf)(v / np.sqrt(2.0))), x)


def _as(v: Values, x: Values) -> Values:
    return v.astype(x.dtype)
