"""How llama.cpp reads the files of `opsin quantize`, beside opsin.

    python bench/quantized.py [--model FILE] [--mixes Q8_0 Q4_0 ...] [--rows 152] [--peer FOLDER]

The model becomes F16 and that is quantised to each mix. Columns, in nats a row over the beginnings of the passages of
tests/oracle: how far llama.cpp is from opsin on the same file, and how far each is from opsin on the F16 file. Both
compute with rounded activations, llama.cpp in other groups for some formats, so the first column is not zero.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from peer import Peer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "oracle"))
import smollm2
from divergence import divergence
from real_model import fetch

import opsin
from opsin.convert.quantise import quantise

MIXES = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0")

Logits = NDArray[np.float32]


def ours(path: Path, sequences: list[list[int]]) -> list[Logits]:
    """opsin's logits of each sequence."""
    with opsin.load(path, threads=2) as model:
        return [model.logits(ids) for ids in sequences]


def mean(first: list[Logits], second: list[Logits]) -> tuple[float, float]:
    """Mean divergence, and the part of the rows with the same likeliest id."""
    rows = np.concatenate([divergence(p, q) for p, q in zip(first, second, strict=True)])
    same = np.concatenate([p.argmax(1) == q.argmax(1) for p, q in zip(first, second, strict=True)])
    return float(rows.mean()), float(same.mean())


def main() -> int:
    """Quantise, compare, print a table; exit with 1 where the two read different models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a llama file with the SmolLM2 vocabulary; fetched by default")
    parser.add_argument("--mixes", nargs="+", default=MIXES)
    parser.add_argument("--rows", type=int, default=152, help="of each of the four passages")
    parser.add_argument("--peer", type=Path, help="folder of llama.cpp's programs")
    args = parser.parse_args()
    path, peer, good = args.model or fetch(), Peer.find(args.peer), True
    sequences = [ids[: args.rows] for ids in smollm2.sequences(path).values()]
    print(f"{sum(map(len, sequences))} rows\n")
    print("| file | llama.cpp from opsin | same likeliest id | opsin from F16 | llama.cpp from F16 |")
    print("|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "f16.gguf"
        quantise(path, plain, "F16", allow_requantise=True)
        whole = ours(plain, sequences)
        for mix in args.mixes:
            made = Path(folder) / f"{mix}.gguf"
            quantise(plain, made, mix, threads=2)
            here, there = ours(made, sequences), peer.logits(made, sequences)
            (apart, same), (lost, _), (lost_there, _) = mean(here, there), mean(whole, here), mean(whole, there)
            print(f"| {mix} | {apart:.5f} | {same:.1%} | {lost:.5f} | {lost_there:.5f} |", flush=True)
            good &= apart < max(0.01, lost / 2)
            made.unlink()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
