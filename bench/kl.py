"""How exact the answers are: KL divergence from `transformers` in float32, of opsin and of llama.cpp.

    python bench/kl.py [--model FILE] [--pages f16 q8_0] [--only opsin | llama.cpp] [--json]

The same ids, every row, nearly 5,000 of them (tests/oracle/passages) in pieces of at most 1024. The truth is the
file's weights as gguf-py decodes them in `LlamaForCausalLM`. Needs torch, transformers and gguf.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from peer import Peer, PeerError

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "oracle"))
import llama_reference
import smollm2
from divergence import divergence
from real_model import fetch

LONGEST = 1024
TARGET, RATIO = 0.01, 1.15

Logits = NDArray[np.float32]
Pages = Literal["f32", "f16", "q8_0", "q4_0"]


@dataclass(frozen=True)
class Result:
    """Divergence of one program over all rows, in nats."""

    name: str
    mean: float
    median: float
    p99: float
    same_top: float  # part of the rows whose most likely id is the reference's
    passages: dict[str, float]


def pieces(path: Path) -> list[tuple[str, list[int]]]:
    """(passage, ids) of at most LONGEST ids."""
    return [
        (name, ids[start : start + LONGEST])
        for name, ids in smollm2.sequences(path).items()
        for start in range(0, len(ids), LONGEST)
    ]


def compare(name: str, work: list[tuple[str, list[int]]], truth: list[Logits], other: list[Logits]) -> Result:
    """The divergence of `other`, as a whole and by passage."""
    rows = [divergence(p, q) for p, q in zip(truth, other, strict=True)]
    same = [p.argmax(1) == q.argmax(1) for p, q in zip(truth, other, strict=True)]
    whole = np.concatenate(rows)
    passages = {
        key: float(np.concatenate([r for (n, _), r in zip(work, rows, strict=True) if n == key]).mean())
        for key in dict.fromkeys(n for n, _ in work)
    }
    return Result(
        name,
        mean=float(whole.mean()),
        median=float(np.median(whole)),
        p99=float(np.quantile(whole, 0.99)),
        same_top=float(np.concatenate(same).mean()),
        passages=passages,
    )


def ours(path: Path, sequences: list[list[int]], pages: Pages) -> list[Logits]:
    """opsin's logits with the cache kept in `pages`."""
    import opsin

    model = opsin.load(path, threads=2, pages=pages)
    return [model.logits(ids) for ids in sequences]


def main() -> int:
    """Compare, print, and exit with 1 where opsin misses its target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a llama file with the SmolLM2 vocabulary; fetched by default")
    parser.add_argument("--peer", type=Path, help="folder of llama.cpp's programs")
    parser.add_argument("--pages", nargs="+", choices=get_args(Pages), default=["f16", "q8_0"])
    parser.add_argument("--only", choices=("opsin", "llama.cpp"))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    path = args.model or fetch()
    work = pieces(path)
    sequences = [ids for _, ids in work]
    model = llama_reference.load(path)
    truth = [llama_reference.logits(model, ids) for ids in sequences]
    results = []
    if args.only != "opsin":
        try:
            results.append(compare("llama.cpp", work, truth, Peer.find(args.peer).logits(path, sequences)))
        except PeerError as error:
            print(f"llama.cpp left out: {error}", file=sys.stderr)
    if args.only != "llama.cpp":
        results += [compare(f"opsin, {p} pages", work, truth, ours(path, sequences, p)) for p in args.pages]
    show(results, sum(map(len, sequences)), as_json=args.json)
    return 0 if good(results) else 1


def show(results: list[Result], rows: int, *, as_json: bool) -> None:
    """Print a table, or one JSON object a line."""
    if as_json:
        print("\n".join(json.dumps(result.__dict__) for result in results))
        return
    print(f"KL(transformers || program) over {rows} rows, nats\n")
    print("| program | mean | median | p99 | same most likely id | mean by passage |")
    print("|---|---|---|---|---|---|")
    for r in results:
        parts = ", ".join(f"{name} {mean:.4f}" for name, mean in r.passages.items())
        print(f"| {r.name} | {r.mean:.5f} | {r.median:.5f} | {r.p99:.4f} | {r.same_top:.1%} | {parts} |")


def good(results: list[Result]) -> bool:
    """Whether every opsin row is under the target and not much over llama.cpp's."""
    peer = next((r.mean for r in results if r.name == "llama.cpp"), None)
    limit = min(TARGET, peer * RATIO) if peer else TARGET
    return all(r.mean <= limit for r in results if r.name != "llama.cpp")


if __name__ == "__main__":
    sys.exit(main())
