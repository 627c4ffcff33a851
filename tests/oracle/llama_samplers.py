"""llama.cpp's own samplers, called in its library: what each leaves of a row of logits, and how likely it is."""

from __future__ import annotations

import ctypes
import importlib.util
from ctypes import POINTER, Structure, byref, c_bool, c_float, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from pathlib import Path

import numpy as np
import pytest


class Token(Structure):
    _fields_ = [("id", c_int32), ("logit", c_float), ("p", c_float)]


class Tokens(Structure):
    _fields_ = [("data", POINTER(Token)), ("size", c_size_t), ("selected", c_int64), ("sorted", c_bool)]


SIGNATURES = {
    "penalties": (c_int32, c_int32, c_float, c_float, c_float),
    "dry": (c_void_p, c_float, c_float, c_int32, c_int32, c_void_p, c_size_t),
    "top_n_sigma": (c_float,),
    "top_k": (c_int32,),
    "typical": (c_float, c_size_t),
    "top_p": (c_float, c_size_t),
    "min_p": (c_float, c_size_t),
    "xtc": (c_float, c_float, c_size_t, c_uint32),
    "temp_ext": (c_float, c_float, c_float),
}


def find_library() -> ctypes.CDLL:
    """Of the package xllamacpp, or one that the system's loader knows; skips the test where there is neither."""
    spec = importlib.util.find_spec("xllamacpp")
    packaged = next(Path(spec.origin).parent.glob("xllamacpp*.so"), None) if spec and spec.origin else None
    for name in filter(None, (packaged, "libllama.so.0", "libllama.so")):
        try:
            library = ctypes.CDLL(str(name))
        except OSError:
            continue
        if hasattr(library, "llama_sampler_init_top_n_sigma"):
            return library
    return pytest.skip("neither xllamacpp nor libllama is installed")


class LlamaSamplers:
    """A chain of samplers by llama.cpp's names, with their arguments."""

    def __init__(self, library: ctypes.CDLL, *samplers: tuple[str, tuple[object, ...]]) -> None:
        self.made = []
        self.apply, self.accept, self.free = (library[f"llama_sampler_{n}"] for n in ("apply", "accept", "free"))
        self.apply.argtypes, self.accept.argtypes = (c_void_p, POINTER(Tokens)), (c_void_p, c_int32)
        self.free.argtypes = (c_void_p,)
        for name, arguments in samplers:
            init = library[f"llama_sampler_init_{name}"]
            init.restype, init.argtypes = c_void_p, SIGNATURES[name]
            self.made.append(init(*arguments))

    def left(self, logits: np.ndarray, seen: list[int]) -> dict[int, float]:
        """{id: probability} of what is left of a row, after ids that were seen."""
        room = (Token * len(logits))(*(Token(i, x, 0.0) for i, x in enumerate(logits.tolist())))
        tokens = Tokens(room, len(logits), -1, False)
        for sampler in self.made:
            for id in seen:
                self.accept(sampler, id)
            self.apply(sampler, byref(tokens))
        found = {tokens.data[i].id: float(tokens.data[i].logit) for i in range(tokens.size)}
        for sampler in self.made:
            self.free(sampler)
        finite = {id: x for id, x in found.items() if x > -np.inf}
        largest = max(finite.values())
        shares = {id: float(np.exp(x - largest)) for id, x in finite.items()}
        return {id: share / sum(shares.values()) for id, share in shares.items()}
