"""How soon a model's first token comes where its packed weights are kept on disk, and what two processes take together.

    python bench/second_start.py MODEL [--rounds 5]

A start is a process of its own: from its beginning to the first token of a prompt of five ids, wall clock and processor
seconds. "none" keeps nothing, "first" writes an empty folder, "second" finds it filled; by turns, medians, files in
the page cache. Memory is the proportional share (PSS) of two processes that have one model each. Then one process
has the model twice, mapped and in memory, and decodes with both by turns.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from figure import Figure

import opsin
from opsin.config import from_environment
from opsin.engine.sampling import Sampling
from opsin.spans import Prompt

CONTEXT, THREADS, STEPS = 2048, 2, 16


def tokens(model: opsin.Model, count: int) -> Iterator[object]:
    """Ids that come after a prompt of five."""
    sampling = Sampling(temperature=0, max_tokens=count, ignore_eos=True)
    return iter(model.engine.submit(Prompt.of([[100, 200, 300, 400, 500]]), sampling))


def child(path: Path) -> None:
    """Load, tell of the first token, and stay until somebody says a line."""
    with opsin.load(path, context=CONTEXT, threads=THREADS, guesses=0) as model:
        next(tokens(model, 1))
        print(json.dumps({"load": model.load_seconds, "processor": time.process_time()}), flush=True)
        for _ in tokens(model, 8):  # all weights have been read
            pass
        print("ready", flush=True)
        sys.stdin.readline()


@dataclasses.dataclass(frozen=True)
class Started:
    """A process with a model."""

    process: subprocess.Popen[str]
    seconds: float
    load: float
    processor: float

    def pss(self) -> int:
        """Bytes: pages that n processes share count for an n-th."""
        lines = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("Pss:")))


@contextmanager
def started(path: Path, kept: Path | str) -> Iterator[Started]:
    """A process whose weights are kept in this folder."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, __file__, str(path), "--child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OPSIN_WEIGHTS": str(kept)},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    said = json.loads(process.stdout.readline())
    seconds = time.perf_counter() - began
    process.stdout.readline()
    try:
        yield Started(process, seconds, said["load"], said["processor"])
    finally:
        process.stdin.write("\n")
        process.stdin.close()
        process.wait()


def starts(path: Path, folder: Path, rounds: int) -> dict[str, list[Started]]:
    """Of each kind, by turns."""
    found: dict[str, list[Started]] = {"none": [], "first": [], "second": []}
    for number in range(rounds + 1):
        for kind, kept in (("none", "off"), ("first", folder / str(number)), ("second", folder / str(number))):
            with started(path, kept) as one:
                if number:  # the first round warms up
                    found[kind].append(one)
    return found


def shares(path: Path, kept: Path | str) -> float:
    """GB of two processes together."""
    with started(path, kept) as one, started(path, kept) as two:
        return (one.pss() + two.pss()) / 1e9


def rates(path: Path, kept: Path, rounds: int) -> list[tuple[float, float]]:
    """Tokens a second of one row: mapped, and in memory."""
    config = from_environment()
    with (
        opsin.load(
            path, context=CONTEXT, threads=THREADS, guesses=0, config=dataclasses.replace(config, weights=kept)
        ) as mapped,
        opsin.load(
            path, context=CONTEXT, threads=THREADS, guesses=0, config=dataclasses.replace(config, weights=None)
        ) as held,
    ):
        pairs = [(rate(mapped), rate(held)) for _ in range(4 * rounds + 1)]
    return pairs[1:]


def rate(model: opsin.Model) -> float:
    """Of some steps."""
    stream = tokens(model, STEPS + 1)
    next(stream)
    began = time.perf_counter()
    for _ in stream:
        pass
    return STEPS / (time.perf_counter() - began)


def figures(path: Path, rounds: int) -> Iterator[Figure]:
    """All of them."""
    with tempfile.TemporaryDirectory(dir=path.parent) as made:
        folder = Path(made)
        for kind, found in starts(path, folder, rounds).items():
            load, processor = (statistics.median(getattr(one, name) for one in found) for name in ("load", "processor"))
            seconds = [one.seconds for one in found]
            note = f"{min(seconds):.2f} to {max(seconds):.2f}; loading {load:.2f}, of processors {processor:.2f}"
            bound = 1.0 if kind == "second" else 0.0
            yield Figure(f"{kind}: start to first token", statistics.median(seconds), bound, "s", note=note)
        yield Figure("two processes, none kept", shares(path, "off"), 0.0, "GB")
        yield Figure("two processes, kept", shares(path, folder / str(rounds)), path.stat().st_size / 1e9 + 0.8, "GB")
        pairs = rates(path, folder / str(rounds), rounds)
        medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
        ratio = statistics.median(mapped / held for mapped, held in pairs)
        note = f"{medians[0]:.1f} and {medians[1]:.1f} tokens/s"
        yield Figure("decode: mapped by in memory", ratio, 0.98, "x", most=False, note=note)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.model)
        return
    for figure in figures(options.model, options.rounds):
        print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
