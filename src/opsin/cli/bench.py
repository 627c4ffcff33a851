"""`opsin bench`: how fast a model reads prompts and writes answers, through the engine that `opsin chat` uses.

Prompt: P random tokens after D rows of cache, over the seconds of the steps that read them. Decode: N tokens after
D rows (after D + P with --parallel), over the wall clock between the first and the last of them.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opsin.cli import options
from opsin.cli.memory import peak_bytes
from opsin.cli.progress import Progress
from opsin.errors import RequestError

if TYPE_CHECKING:
    from opsin.api import Model
    from opsin.engine.sequence import Stream

_WARM_UP_ROWS, _WARM_UP_TOKENS = 512, 4
_SEED = 20


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of this subcommand."""
    parser = commands.add_parser("bench", help="measure a model's speed", description=__doc__)
    parser.set_defaults(run=run)
    options.add_model(parser)
    parser.add_argument("-p", "--prompt", type=options.natural, default=512, metavar="P", help="tokens of the prompt")
    parser.add_argument("-n", "--decode", type=options.natural, default=64, metavar="N", help="tokens to generate")
    parser.add_argument("--depth", type=options.natural, default=0, metavar="D", help="tokens in the cache before")
    parser.add_argument("--parallel", type=options.positive, default=1, metavar="S", help="sequences at once")
    parser.add_argument("--repeat", type=options.positive, default=1, metavar="R", help="runs; medians are given")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--steps-json", action="store_true", help="JSON, with the seconds of each decode step")


def run(args: argparse.Namespace) -> int:
    """Load, warm up, measure, print."""
    if not args.prompt and not args.decode:
        raise RequestError("there is nothing to measure", hint="give -p or -n")

    import opsin

    work = Work(args.prompt, args.decode, args.depth, args.parallel)
    path = options.model_file(args)
    with Progress(f"loading {path}") as progress:
        model = opsin.load(
            path, threads=args.threads, context=work.context, pages=args.cache_type, sequences=work.parallel,
            notice=progress, verify=args.verify, states=options.state_bytes(args),
            guesses=0,  # steps are measured, not texts that repeat themselves
        )  # fmt: skip
    options.tell(model.with_text())
    with model:
        bench = Bench(model, work)
        bench.warm_up()
        prompts = [bench.prompt() for _ in range(args.repeat if work.prompt else 0)]
        decodes = [bench.decode() for _ in range(args.repeat if work.decode else 0)]
        result: dict[str, object] = {
            "prompt_tokens_per_second": statistics.median(prompts) if prompts else None,
            "decode_tokens_per_second": statistics.median(d.rate for d in decodes) if decodes else None,
            "load_seconds": model.load_seconds,
            "peak_bytes": peak_bytes(),
            "threads": model.device.threads,
            "model": str(path),
            "depth": work.depth,
            "parallel": work.parallel,
        }
    if args.steps_json:
        result["step_seconds"] = [seconds for d in decodes for seconds in d.step_seconds]
    print(json.dumps(result) if args.json or args.steps_json else _table(result, work))
    return 0


def _table(result: dict[str, object], work: Work) -> str:
    def rate(key: str) -> str:
        value = result[key]
        return f"{value:.1f} tokens/s" if isinstance(value, float) else "not measured"

    peak = result["peak_bytes"]
    assert isinstance(peak, int)
    return "\n".join(
        [
            f"model    {result['model']}",
            f"prompt   {rate('prompt_tokens_per_second')} ({work.parallel} x {work.prompt} tokens)",
            f"decode   {rate('decode_tokens_per_second')} ({work.parallel} x {work.decode} tokens)",
            f"load     {result['load_seconds']:.2f} s",
            f"peak     {peak / 1e6:.0f} MB",
            f"threads  {result['threads']}",
        ]
    )


@dataclass(frozen=True)
class Work:
    """What is measured."""

    prompt: int
    decode: int
    depth: int
    parallel: int

    @property
    def context(self) -> int:
        """Rows of cache that all sequences need together."""
        return self.parallel * (self.depth + self.prompt + 2 * self.decode + _WARM_UP_TOKENS + 64)


@dataclass(frozen=True)
class Decoded:
    """One measurement of decoding."""

    rate: float
    step_seconds: list[float]


def behind(seconds: Sequence[float], rows: Sequence[int], depth: int) -> float:
    """Seconds of what steps computed after the first `depth` rows; a step that has rows of both counts by its share."""
    total, row = 0.0, 0
    for spent, size in zip(seconds, rows, strict=True):
        row += size
        total += spent * min(size, max(0, row - depth)) / size
    return total


class Bench:
    """Measures one model."""

    def __init__(self, model: Model, work: Work) -> None:
        self.model, self.work = model, work
        self._random = random.Random(_SEED)
        self._steps = model.engine.step_seconds

    def warm_up(self) -> None:
        """Touch weights, cache and buffers, so that the first measurement is like the next."""
        rows = max(1, min(self.work.prompt, _WARM_UP_ROWS))
        for _ in self._submit(rows, _WARM_UP_TOKENS):
            pass

    def prompt(self) -> float:
        """Prompt tokens a second, of all sequences together."""
        work, before = self.work, len(self._steps)
        streams = [self._submit(work.depth + work.prompt, 1) for _ in range(work.parallel)]
        for stream in streams:
            for _ in stream:
                pass
        seconds = self._since(before)
        if work.parallel == 1:
            return work.prompt / behind(seconds, list(self.model.engine.step_rows)[before:], work.depth)
        return work.parallel * (work.depth + work.prompt) / sum(seconds)

    def decode(self) -> Decoded:
        """Tokens a second of all sequences together, while all of them run."""
        work = self.work
        prompt = work.depth + (work.prompt if work.parallel > 1 else 0)
        # All but the last start earlier and must not end before it.
        others = [self._submit(max(1, prompt), 2 * work.decode + 32) for _ in range(work.parallel - 1)]
        last = iter(self._submit(max(1, prompt), work.decode + 1))
        next(last)
        start, before = time.perf_counter(), len(self._steps)
        for _ in last:
            pass
        end, seconds = time.perf_counter(), self._since(before)
        for stream in others:
            stream.cancel()
            for _ in stream:
                pass
        # Of a busy machine this thread hears late, when some of the steps are already done: they do not count.
        return Decoded(work.parallel * max(1, len(seconds)) / (end - start), seconds)

    def _since(self, before: int) -> list[float]:
        return list(self._steps)[before:]

    def _submit(self, rows: int, tokens: int) -> Stream:
        """A sequence of random ids that generates `tokens`."""
        from opsin.engine.sampling import Sampling
        from opsin.spans import Prompt

        vocabulary = self.model.runner.vocabulary
        ids = [self._random.randrange(vocabulary) for _ in range(rows)]
        sampling = Sampling(temperature=0, max_tokens=tokens, ignore_eos=True)
        return self.model.engine.submit(Prompt.of([ids]), sampling)
