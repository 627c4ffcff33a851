"""What masks cost: beside a step of many rows, and alone over large vocabularies.

    python bench/masks.py MODEL.gguf              # steps of 16 streams, free and held to a schema
    python bench/masks.py --alone VOCABULARY.gguf # masks one by one: median and 99th percentile

Run it where nobody else computes (`chrt -f 40`). Steps are interleaved: a block free, a block held, and again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import opsin
from opsin.engine.candidates import Candidates
from opsin.engine.scheduler import Plan
from opsin.gguf import File
from opsin.grammar import Grammar, Grammars
from opsin.text import Tokenizer

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"}, "kind": {"enum": ["cat", "dog", "bird"]}, "text": {"type": "string"},
        "size": {"type": "number"}, "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name", "kind", "text", "size", "tags"],
    "additionalProperties": False,
}  # fmt: skip
VALUE = {"name": "Ada of Love", "kind": "dog", "text": "It sleeps in the sun, and \"barks\" at nobody.",
         "size": 12.5, "tags": ["brown", "old and slow"]}  # fmt: skip
GRAMMARS = {
    "schema": (Grammar.json_schema(SCHEMA), json.dumps(VALUE)),
    "maxLength 200": (Grammar.json_schema({"type": "string", "maxLength": 200}), json.dumps("a few words " * 12)),
    "pattern": (Grammar.json_schema({"type": "string", "pattern": "^[a-z ]{1,200}$"}), json.dumps("some words " * 12)),
}


def beside_steps(path: Path, streams: int, blocks: int, tokens: int) -> None:
    """The median time from step to step of so many streams, without and with a schema, in blocks that take turns."""
    kinds: dict[str, Grammar | None] = {"free": None, "held": GRAMMARS["schema"][0]}
    with opsin.load(path, context=1024, sequences=streams, guesses=0) as model:
        begun: list[tuple[float, int]] = []
        step = model.runner.step

        def watched(plan: Plan) -> Candidates:
            begun.append((time.perf_counter(), len(plan)))
            return step(plan)

        model.runner.step = watched  # type: ignore[method-assign]
        sampling = opsin.Sampling(temperature=0.8, max_tokens=tokens, ignore_eos=True)
        question = model.question("Tell me about your cat, in JSON.")
        gaps: dict[str, list[float]] = {name: [] for name in kinds}
        for block in range(blocks + 1):
            for name, grammar in kinds.items():
                begun.clear()
                for answer in [model.generate(question, sampling, grammar=grammar) for _ in range(streams)]:
                    str(answer)
                gaps[name] += [b - a for (a, n), (b, m) in pairwise(begun) if n == m == streams][2:]
            if block == 0:
                gaps = {name: [] for name in kinds}  # it warmed up
    free, held = (statistics.median(gaps[name]) for name in kinds)
    print(f"{path.name}, {streams} streams: from step to step {1e3 * free:.2f} ms free, {1e3 * held:.2f} ms held, "
          f"{100 * (held / free - 1):+.1f} % (medians of {len(gaps['free'])} and {len(gaps['held'])})")  # fmt: skip


def alone(path: Path) -> None:
    """Masks of a text that the model might write, token by token."""
    with File.open(path) as file:
        tokenizer = Tokenizer.from_metadata(file.metadata)
    grammars = Grammars(tokenizer, tokenizer.vocabulary_size)
    start = time.perf_counter()
    grammars.prepare()
    print(f"{path.name}: {tokenizer.vocabulary_size} tokens, table in {time.perf_counter() - start:.2f} s")
    for name, (grammar, text) in GRAMMARS.items():
        took = sorted(seconds for _ in range(5) for seconds in _masks(grammars, grammar, text))
        median, high = took[len(took) // 2], took[int(len(took) * 0.99)]
        print(f"  {name}: median {1e3 * median:.3f} ms, p99 {1e3 * high:.3f} ms, of {len(took)}")


def _masks(grammars: Grammars, grammar: Grammar, text: str) -> Iterator[float]:
    matcher = grammars.start(grammar)
    for id in grammars.tokenizer.encode(text, first=False):
        start = time.perf_counter()
        matcher.mask()
        yield time.perf_counter() - start
        matcher.accept(id)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=40)
    args = parser.parse_args()
    if args.alone:
        alone(args.path)
    else:
        beside_steps(args.path, args.streams, args.blocks, args.tokens)


if __name__ == "__main__":
    main()
