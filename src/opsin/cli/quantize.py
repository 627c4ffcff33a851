"""`opsin quantize`: a model file again, with its weights in another number format or mix of formats."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from opsin.cli import options
from opsin.cli.streams import draw
from opsin.config import expanded
from opsin.errors import RequestError

if TYPE_CHECKING:
    from opsin.convert.mix import Choice
    from opsin.convert.quantise import Quantised

_TYPES = """
types: Q8_0, Q6_K, Q5_K_M, Q4_K_M and others of that kind; Q4_0, Q4_1, Q5_0, Q5_1, F16, BF16, F32, TQ1_0, TQ2_0,
MXFP4_MOE. Q4_K means Q4_K_M. Mixes give more bits to what a model suffers from most, as llama.cpp's do. Vectors and
norms stay as they are.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of this subcommand."""
    parser = commands.add_parser(
        "quantize", help="write a model file in another number format", description=__doc__, epilog=_TYPES
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "source", type=options.place, metavar="IN",
        help="GGUF file to read, its first split, a folder of GGUF or safetensors, ollama:NAME or hf:REPO",
    )  # fmt: skip
    parser.add_argument("target", type=expanded, nargs="?", metavar="OUT", help="GGUF file to write, if not by -o")
    options.add_output(parser, required=False)
    parser.add_argument("type", metavar="TYPE", help="number format or mix, such as Q8_0 or Q4_K_M")
    parser.add_argument("-t", "--threads", type=options.positive, metavar="N", help="threads (default: all allowed)")
    parser.add_argument(
        "--allow-requantize", action="store_true", help="round weights again that are quantised already"
    )
    parser.add_argument("--dry-run", action="store_true", help="list what each tensor would become; write nothing")


def run(args: argparse.Namespace) -> int:
    """Decide, tell, write."""
    from opsin.config import available_threads
    from opsin.convert.quantise import preview, quantise

    start = time.perf_counter()
    target = _target(args)
    with options.open_model(args.source) as file:
        planned = preview(file, args.type, allow_requantise=args.allow_requantize)
        if args.dry_run:
            print("\n".join(_line(choice) for choice in planned.choices))
            _tell_fallbacks(planned)
            print(f"{target or 'the result'} would have {_sum_up(planned)}")
            return 0
        if target is None:
            raise RequestError("there is no file to write", hint="say -o OUT")
        with _Progress(planned) as progress:
            done = quantise(
                file, target, args.type,
                threads=args.threads or available_threads(), allow_requantise=args.allow_requantize, told=progress,
            )  # fmt: skip
    _tell_fallbacks(done)
    print(f"{target} has {_sum_up(done)}; {time.perf_counter() - start:.1f} s")
    return 0


def _target(args: argparse.Namespace) -> Path | None:
    """The file to write: between the others, or by -o as in all commands."""
    named: list[Path] = [path for path in (args.target, args.output) if path is not None]
    if len(named) == 2:
        raise RequestError(f"two files to write: {named[0]} and {named[1]}", hint="name one, by -o")
    return named[0] if named else None


def _line(choice: Choice) -> str:
    """Names come from strangers: nothing in them reaches the terminal as it is."""
    shape = " x ".join(map(str, choice.info.shape))
    to = "kept" if choice.kind == choice.before else choice.kind
    note = f"  for {choice.wanted}" if choice.wanted else ""
    size = f"{choice.nbytes / 1e6:9.2f} MB"
    return f"{ascii(choice.info.name)[1:-1]:32} {shape:>16}  {choice.before:7} {to:7} {size}{note}"


def _sum_up(done: Quantised) -> str:
    counts = Counter(choice.kind for choice in done.choices)
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    before, after = done.bytes_before / 1e6, done.bytes_after / 1e6
    return f"{after:.1f} MB of weights (before: {before:.1f} MB), {done.bits:.2f} bits each: {kinds}"


def _tell_fallbacks(done: Quantised) -> None:
    """One line for all tensors of a name, whatever their layer."""
    alike: dict[tuple[str, int, str | None, str], int] = Counter()
    for choice in done.fallbacks:
        name = re.sub(r"\bblk\.\d+\.", "blk.*.", choice.info.name)
        alike[ascii(name)[1:-1], choice.info.shape[-1], choice.wanted, choice.kind] += 1
    for (name, row, wanted, kind), count in alike.items():
        print(
            f"opsin: {name} ({count}): rows of {row} are not whole blocks of {wanted}, so {kind} instead",
            file=sys.stderr,
        )


class _Progress:
    """A line on a terminal that tells how far it is; nothing in a log."""

    def __init__(self, planned: Quantised) -> None:
        self._count, self._bytes = len(planned.choices), max(1, planned.bytes_before)
        self._done, self._start = 0, time.perf_counter()

    def __enter__(self) -> _Progress:
        return self

    def __call__(self, choice: Choice, place: int) -> None:
        draw(self.line(choice, place, time.perf_counter() - self._start))
        self._done += choice.info.nbytes

    def line(self, choice: Choice, place: int, seconds: float) -> str:
        """What is said when a tensor's turn comes. The time that is left is that of the bytes that are left."""
        share = self._done / self._bytes
        left = f", about {_clock(seconds * (1 - share) / share)} left" if share else ""
        return f"{place + 1} of {self._count}, {share:4.0%}, {_clock(seconds)}{left}  {_line(choice)}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        draw("")


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
