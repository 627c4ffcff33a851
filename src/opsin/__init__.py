"""opsin answers questions about pictures, sound and text with GGUF models.

>>> import opsin
>>> model = opsin.load("model.gguf")
>>> for piece in model.chat("Hi", max_tokens=32):
...     print(piece, end="")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from opsin.errors import BusyError, ContextError, DeviceError, FileError, ModelError, OpsinError, RequestError

if TYPE_CHECKING:
    from opsin.api import Answer, MediaFolder, Message, Model, PictureUse, Question, Usage, load
    from opsin.api.videos import Video
    from opsin.api.vision import Embeddings
    from opsin.engine.sampling import Sampling
    from opsin.grammar import Grammar
    from opsin.media.budget import PictureBudget
    from opsin.media.sound import Sound
    from opsin.spans import Patches

__all__ = [
    "Answer",
    "BusyError",
    "ContextError",
    "DeviceError",
    "Embeddings",
    "FileError",
    "Grammar",
    "MediaFolder",
    "Message",
    "Model",
    "ModelError",
    "OpsinError",
    "Patches",
    "PictureBudget",
    "PictureUse",
    "Question",
    "RequestError",
    "Sampling",
    "Sound",
    "Usage",
    "Video",
    "load",
]
__version__ = "0.1.0.dev0"

_ELSEWHERE = {
    "Embeddings": "opsin.api.vision",
    "Grammar": "opsin.grammar",
    "Sampling": "opsin.engine.sampling",
    "PictureBudget": "opsin.media.budget",
    "Sound": "opsin.media.sound",
    "Video": "opsin.api.videos",
    "Patches": "opsin.spans",
}


def __getattr__(name: str) -> object:
    # The parts that need NumPy and LLVM come when they are first used: `opsin --help` must not wait for them.
    if name in __all__:
        return getattr(import_module(_ELSEWHERE.get(name, "opsin.api")), name)
    raise AttributeError(f"module 'opsin' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
