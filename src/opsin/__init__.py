"""opsin answers questions about pictures, sound and text with GGUF models.

>>> import opsin
>>> model = opsin.load("model.gguf")
>>> for piece in model.chat([{"role": "user", "content": "Hi"}], max_tokens=32):
...     print(piece, end="")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opsin.errors import OpsinError

if TYPE_CHECKING:
    from opsin.api import Model, load
    from opsin.engine.sampling import Sampling

__all__ = ["Model", "OpsinError", "Sampling", "load"]
__version__ = "0.1.0.dev0"


def __getattr__(name: str) -> object:
    # The parts that need NumPy and LLVM come when they are first used: `opsin --help` must not wait for them.
    if name in ("Model", "load"):
        from opsin import api

        return getattr(api, name)
    if name == "Sampling":
        from opsin.engine.sampling import Sampling

        return Sampling
    raise AttributeError(f"module 'opsin' has no attribute {name!r}")
