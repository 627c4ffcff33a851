"""Runs steps on the device: a plan becomes a flat batch, the recorded program gives logits."""

from __future__ import annotations

from collections.abc import Sequence as Numbers
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from opsin.engine.scheduler import Plan
from opsin.errors import RequestError
from opsin.models import Decoder
from opsin.nn.batch import Batch, Group
from opsin.ops import PAGE, Pages, PageType, Reads
from opsin.ops.cpu import Cpu, Recorded

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Limits:
    """What one step and one cache can hold.

    Attributes:
        rows: rows of a step.
        outputs: rows of a step whose logits are wanted.
        sequences: sequences that run at once.
        context: rows of one sequence.
        pages: pages of the cache, shared by all sequences.
    """

    rows: int = 512
    outputs: int = 64
    sequences: int = 32
    context: int = 8192
    pages: int = 8192 // PAGE

    def __post_init__(self) -> None:
        fewest = min(self.rows, self.outputs, self.context, self.pages)
        if not 0 < self.sequences <= min(self.rows, self.outputs) or fewest < 1:
            raise RequestError(f"{self}", hint="a step needs a row and an output for each sequence")


class Runner:
    """One decoder, one cache, one recorded program for every step."""

    def __init__(self, device: Cpu, decoder: Decoder, limits: Limits, kind: PageType) -> None:
        self.device, self.decoder, self.limits = device, decoder, limits
        ops, tape = device.record()
        shape = decoder.groups["self"]
        self.pages: Pages = ops.pages(
            layers=shape.layers, heads=shape.heads, width=shape.width, count=limits.pages, kind=kind
        )
        rows, outputs = tape.count("rows", limits.rows), tape.count("outputs", limits.outputs)
        table = (limits.sequences, -(-limits.context // PAGE))
        reads = Reads(
            tables=tape.input(ops, "tables", table, "i32"),
            sequence=tape.input(ops, "sequence", (rows,), "i32"),
            first=tape.input(ops, "first", (rows,), "i32"),
            last=tape.input(ops, "last", (rows,), "i32"),
        )
        batch = Batch(
            ids=tape.input(ops, "ids", (rows,), "i32"),
            positions=tape.input(ops, "positions", (rows,), "i32"),
            groups={"self": Group(self.pages, reads, tape.input(ops, "slots", (rows,), "i32"))},
            outputs=tape.input(ops, "outputs", (outputs,), "i32"),
        )
        logits = decoder.forward(batch)
        best = ops.argmax(logits)
        self.program: Recorded = tape.finish({"logits": logits, "best": best})

    @property
    def bytes(self) -> int:
        """Memory of a step's values, without weights and cache."""
        return self.program.bytes

    def step(self, plan: Plan) -> tuple[Floats, npt.NDArray[np.int32]]:
        """Logits [wanted, vocabulary] and likeliest ids [wanted], for the slices that want them, in order.

        Both are views that hold until the next step. Raises as `Recorded.run`; then nothing counts as computed.
        """
        row, outputs = 0, 0
        for number, part in enumerate(plan):
            ids = part.sequence.ids[part.start : part.start + part.rows]
            self._fill(row, number, ids, part.start, part.sequence.pages)
            row += part.rows
            if part.wanted:
                self.program.inputs["outputs"][outputs] = row - 1
                outputs += 1
        self.program.run(rows=row, outputs=outputs)
        return self._results(outputs)

    def score(self, ids: Numbers[int], pages: list[int]) -> Floats:
        """Logits [rows, vocabulary] after each of `ids`, in a sequence of their own on `pages`."""
        result = np.empty((len(ids), self.decoder.vocabulary), np.float32)
        size = min(self.limits.outputs, self.limits.rows)
        for start in range(0, len(ids), size):
            part = ids[start : start + size]
            self._fill(0, 0, part, start, pages)
            self.program.inputs["outputs"][: len(part)] = np.arange(len(part))
            self.program.run(rows=len(part), outputs=len(part))
            result[start : start + len(part)] = self._results(len(part))[0]
        return result

    def _fill(self, row: int, number: int, ids: Numbers[int], start: int, pages: list[int]) -> None:
        """Rows of one sequence into the program's inputs."""
        inputs, end = self.program.inputs, row + len(ids)
        places = np.arange(start, start + len(ids), dtype=np.int32)
        table = inputs["tables"][number]
        table[: len(pages)] = pages
        inputs["ids"][row:end] = ids
        inputs["positions"][row:end] = places
        inputs["sequence"][row:end] = number
        inputs["first"][row:end] = 0
        inputs["last"][row:end] = places + 1
        inputs["slots"][row:end] = table[places // PAGE] * PAGE + places % PAGE

    def _results(self, outputs: int) -> tuple[Floats, npt.NDArray[np.int32]]:
        logits = self.program.output("logits")[:outputs]
        return logits, self.program.output("best")[:outputs]  # type: ignore[return-value]
