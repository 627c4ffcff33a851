"""What a step costs beside its program: planning, filling inputs, drawing ids and handing them out, all in Python.

    python bench/sampling.py [--sequences 1 32] [--vocabulary 4096 32768 49157 128256] [--tokens 150] [--only KIND ...]

The model is a table of embeddings and a head, so that steps are short; they end with logits of any width. What is
counted is the processor time of the engine's thread, without that inside the program: a busy neighbour changes
little of it. The clock's own time is taken off. Told is the median of the steps in which all sequences take part.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from opsin.config import from_environment
from opsin.engine.engine import Engine
from opsin.engine.runner import Limits, Runner
from opsin.engine.sampling import Sampling
from opsin.nn.batch import Batch, GroupShape, StateShape
from opsin.ops import PAGE, Array, Ops, Raw
from opsin.ops.cpu import Cpu
from opsin.quants import BY_NAME
from opsin.spans import Prompt

WIDTH = 64
KINDS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "sampled": {},
    "sampled, with log-probabilities": {"logprobs": 3},
    "sampled, no top-k": {"top_k": 0},
    "penalties": {"repeat_penalty": 1.1, "presence_penalty": 0.5},
    "biases": {"logit_bias": dict.fromkeys(range(100), -1.0)},
    "dry": {"dry_multiplier": 0.8},
    "typical": {"typical_p": 0.9},
    "mirostat": {"mirostat": 2},
}


class Head:
    """A decoder without layers: embeddings, and logits of them."""

    axes, segments = 1, 0
    width = media_width = WIDTH
    states: Mapping[str, StateShape] = {}

    def __init__(self, ops: Ops, vocabulary: int) -> None:
        self.vocabulary = self.ids = vocabulary
        values = np.random.default_rng(0).normal(0, 0.3, (vocabulary, WIDTH)).astype(np.float32)
        stored = values.view(np.uint8).reshape(vocabulary, -1)

        def read(first: int, last: int, into: np.ndarray) -> None:
            into[:] = stored[first:last].reshape(-1)

        self.table = ops.pack(Raw("head", BY_NAME["F32"].id, (vocabulary, WIDTH), read))

    @property
    def groups(self) -> Mapping[str, GroupShape]:
        """One, of which nothing is read."""
        return {"self": GroupShape(layers=1, heads=1, width=32)}

    def forward(self, batch: Batch) -> Array:
        """Logits [outputs, vocabulary]."""
        ops = batch.ids.ops
        return ops.linear(ops.take(ops.embed(batch.ids, self.table), batch.outputs), self.table)


class Watched:
    """A recorded program that notes when, in time of the engine's thread, it began and ended to run."""

    def __init__(self, program: object) -> None:
        self._program = program
        self.runs: list[tuple[int, float, float]] = []  # outputs, begin, end

    def run(self, **counts: int) -> None:
        """Replay."""
        begin = time.thread_time()
        self._program.run(**counts)  # type: ignore[attr-defined]
        self.runs.append((counts["outputs"], begin, time.thread_time()))

    def __getattr__(self, name: str) -> object:
        return getattr(self._program, name)


def measure(cpu: Cpu, vocabulary: int, sequences: int, tokens: int, sampling: Mapping[str, Any]) -> float:
    """Milliseconds of the engine's thread from the end of one step's program to the beginning of the next."""
    pages = sequences * -(-(tokens + 8) // PAGE)
    limits = Limits(rows=max(64, sequences), outputs=sequences, sequences=sequences, context=tokens + 8, pages=pages)
    runner = Runner(cpu, Head(cpu.eager(), vocabulary), limits, "f16")
    watched = runner.program = Watched(runner.program)  # type: ignore[assignment]
    engine = Engine(runner, frozenset())
    try:
        streams = [
            engine.submit(Prompt.of([[i + 1, 2, 3]]), Sampling(seed=i, max_tokens=tokens, **sampling))
            for i in range(sequences)
        ]
        for stream in streams:
            for _ in stream:
                pass
    finally:
        engine.close()
    pairs = list(zip(watched.runs, watched.runs[1:], strict=False))
    between = [after[1] - before[2] for before, after in pairs if before[0] == after[0] == sequences]
    return 1e3 * (statistics.median(between) - _clock_seconds())


def _clock_seconds() -> float:
    """What one look at the clock takes: some systems need a tenth of a millisecond."""
    looks = [time.thread_time() for _ in range(200)]
    return statistics.median(after - before for before, after in zip(looks, looks[1:], strict=False))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--vocabulary", type=int, nargs="+", default=[4096, 32768, 49157, 128256])
    parser.add_argument("--tokens", type=int, default=150, help="of each answer")
    parser.add_argument("--only", nargs="+", choices=[*KINDS], default=["greedy", "sampled"])
    args = parser.parse_args()
    cpu = Cpu(from_environment(), threads=2)
    print("| sequences | vocabulary | " + " | ".join(args.only) + " |")
    print("|---|---|" + "---|" * len(args.only))
    for sequences in args.sequences:
        for vocabulary in args.vocabulary:
            took = [measure(cpu, vocabulary, sequences, args.tokens, KINDS[kind]) for kind in args.only]
            print(f"| {sequences} | {vocabulary} | " + " | ".join(f"{ms:.2f} ms" for ms in took) + " |", flush=True)
    cpu.close()


if __name__ == "__main__":
    main()
