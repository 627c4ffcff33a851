"""Programs by shape, recorded where something is computed again and again: `Ops.recorded`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from opsin.ops import Array
from opsin.ops.cpu.tape import Recorder, Replay, Tape

if TYPE_CHECKING:
    from opsin.ops.cpu.operations import Operations

PROGRAMS = 8  # that are kept


class Programs:
    """A program costs one call where its operations cost one each; the PROGRAMS used last are kept."""

    def __init__(self, ops: Operations, operations: Callable[[Tape], Operations]) -> None:
        self._ops, self._operations = ops, operations
        self._kept: dict[Hashable, Replay] = {}  # the one used last stands last

    def run(self, key: Hashable, build: Callable[..., Array], inputs: Sequence[npt.NDArray[np.generic]]) -> Array:
        """See `opsin.ops.Ops.recorded`."""
        kinds = ["i32" if np.issubdtype(values.dtype, np.integer) else "f32" for values in inputs]
        name = (key, *((values.shape, kind) for values, kind in zip(inputs, kinds, strict=True)))
        program = self._kept.pop(name, None)
        if program is None:
            tape = Recorder(self._ops.tape.code, self._ops.tape.team, guarded=self._ops.tape.guarded)
            ops = self._operations(tape)
            places = [
                tape.input(ops, str(i), a.shape, kind) for i, (a, kind) in enumerate(zip(inputs, kinds, strict=True))
            ]
            program = tape.finish({"result": build(ops, *places)})
        self._kept[name] = program
        if len(self._kept) > PROGRAMS:
            del self._kept[next(iter(self._kept))]
        for i, values in enumerate(inputs):
            program.inputs[str(i)][...] = values
        program.run()
        return self._ops.constant(program.output("result"))
