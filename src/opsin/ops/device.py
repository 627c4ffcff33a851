"""A device, as the rooms above see it: operations that run at once or are written down, and its threads.

What is computed stands in `opsin.ops`, how weights and pages lie in memory in `opsin.ops.layout`. A device is a folder
beside this file; nobody outside `ops` names one but the place that loads models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from opsin.ops import Array, Count, Ops, Rows, Size
from opsin.process import Home

Notice = Callable[[str], None]  # told, in a line, when something slow happens


class Stopped(Exception):  # noqa: N818 - a message between rooms, not an error
    """A program ended early because `Device.stop` was called."""


class Recorded(Protocol):
    """A recorded program with its inputs and outputs: fill, `run`, read. For one thread at a time.

    Attributes:
        inputs: arrays to be filled, by name; what is not written stays as it was.
        rows: tables for `overlay`, by name.
    """

    @property
    def inputs(self) -> Mapping[str, npt.NDArray[np.generic]]: ...

    @property
    def rows(self) -> Mapping[str, Rows]: ...

    @property
    def bytes(self) -> int:
        """Memory of the program's values and inputs."""
        ...

    def run(self, **counts: int) -> None:
        """Replay with these counts.

        Raises DeviceError for an operation's error, after a fork, or once closed; Stopped when `stop` ended it.
        """
        ...

    def output(self, name: str) -> npt.NDArray[np.generic]:
        """A view of an output, all its rows; it holds until the next run."""
        ...


class Recording(Protocol):
    """Operations that are written down: name what changes from run to run, compute with it, then `finish`."""

    def count(self, name: str, most: int) -> Count:
        """A size that `Recorded.run` is told."""
        ...

    def input(self, ops: Ops, name: str, shape: tuple[Size, ...], dtype: Literal["f32", "i32"]) -> Array:
        """An Array that is filled from outside before each run."""
        ...

    def rows(self, ops: Ops, name: str, count: int) -> Rows:
        """A table for `overlay`; `Recorded.rows` has it by name."""
        ...

    def finish(self, outputs: Mapping[str, Array]) -> Recorded:
        """End the recording. The outputs keep their memory."""
        ...


class Device(Protocol):
    """Something that computes. What lies on it stays on it, and in the process that it was made in."""

    @property
    def threads(self) -> int:
        """Threads of this process that take part."""
        ...

    @property
    def home(self) -> Home:
        """The process that it runs in. Whoever uses it from another one is refused."""
        ...

    def eager(self, turn: Callable[[], None] | None = None) -> Ops:
        """Operations that run when they are called. `turn` is called before each, and may wait for the device."""
        ...

    def record(self) -> tuple[Ops, Recording]:
        """Operations that are written down, and the recording to finish."""
        ...

    def stop(self) -> None:
        """End what runs between two operations, and all that comes later until `resume`. From any thread."""
        ...

    def resume(self) -> None:
        """Let programs run again after a stop."""
        ...

    def close(self) -> None:
        """Give back threads and what else it holds. Nothing of this device runs afterwards."""
        ...


@dataclass(frozen=True)
class Processor:
    """What computes. `instructions` is the set in use; the features are those that any set asks for."""

    name: str
    llvm_name: str
    features: list[str]
    instructions: str
    instructions_available: list[str]
    vector_floats: int
    dot_product: str


@dataclass(frozen=True)
class KernelCache:
    """Compiled kernels. `stale_bytes` belong to other versions or CPUs and may be deleted."""

    folder: str
    writable: bool
    kernels: int
    bytes: int
    stale_bytes: int


@dataclass(frozen=True)
class KeptModel:
    """A model whose weights are kept as the device has them.

    Attributes:
        label: the name of its file.
        used: when last, in seconds of the epoch.
    """

    folder: str
    label: str
    files: int
    bytes: int
    used: float


@dataclass(frozen=True)
class KeptWeights:
    """Models in a folder, the longest unused first, and how many bytes it may have. No folder: none are kept."""

    folder: str | None
    most: int
    models: list[KeptModel]


@dataclass(frozen=True)
class Findings:
    """What can be said of a device before it is opened.

    Attributes:
        rounds: whether it makes integers of floats of 16 bits where it may (`Ops.pack`).
        kernels: each module of kernels, and what it says about itself in a line.
    """

    processor: Processor
    rounds: bool
    kernels: dict[str, str]
    cache: KernelCache
    weights: KeptWeights
