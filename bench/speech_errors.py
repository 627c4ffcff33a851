"""How many words of a long recording are written wrong, in each number format.

    python bench/speech_errors.py FILE... [--cuts FOLDER] [--minutes 20] [--seed 0]

The recording is made of short cuts with known words: those of FOLDER (pocketsphinx-testdata's `librivox`), or the one
in examples. Files are GGUF files of one model, the most exact first: the others are compared with it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import speech_sounds

import opsin

THREADS = 2


def main() -> None:
    """Print a line for each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--cuts", type=Path)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    sound = speech_sounds.joined(speech_sounds.cuts(args.cuts), 60 * args.minutes, disturbed=True, seed=args.seed)
    print(f"{sound.seconds:.0f} s, {len(sound.words)} words", flush=True)
    first: float | None = None
    for file in args.files:
        with opsin.load(file, threads=THREADS) as model:
            begun = time.perf_counter()
            text = model.transcribe(sound.samples, language="en").text
            took = time.perf_counter() - begun
        wrong = 100 * speech_sounds.errors(sound.words, speech_sounds.normal(text)) / len(sound.words)
        first = wrong if first is None else first
        rate = f"{sound.seconds / took:.1f} seconds of speech a second"
        print(f"{file.name}: {wrong:.2f} % of words wrong ({wrong - first:+.2f}), {rate}", flush=True)


if __name__ == "__main__":
    main()
