"""A file with a part of a model for pictures or sound: known by its metadata at once, its weights read once, later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import finalize

from opsin.engine.encoding import Turn
from opsin.gguf import File
from opsin.nn.meta import MetaReader
from opsin.nn.module import FileReader, Reader
from opsin.ops.device import Device

Part = TypeVar("Part")


class PartFile(Generic[Part]):
    """What reads the part, and the file, which stays open until then.

    Thread: made by whoever loads the model; what `load` gives runs on the encoding thread.

    Args:
        file: kept, and closed by whoever loads the weights, or when nobody holds this any more.
        read: makes the part of a file, with weights or without.
        told: the same file, if another one's keys are to count as asked for.
    """

    def __init__(self, file: File, read: Callable[[File, Reader], Part], *, told: File | None = None) -> None:
        self.file, self._read = file, read
        self.close = finalize(self, file.close)
        known = file if told is None else told
        self.meta = read(known, MetaReader(known))

    def load(self, device: Device) -> Callable[[Turn], Part]:
        """What reads the weights, once, see `engine.encoding`."""

        def read(turn: Turn) -> Part:
            made = self._read(self.file, FileReader(self.file, device.eager(turn)))
            self.close()
            return made

        return read
