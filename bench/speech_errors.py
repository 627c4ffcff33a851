"""How many words of long recordings are written wrong, in each number format, and by transformers.

    python bench/speech_errors.py FILE... [--cuts FOLDER] [--minutes 20] [--recordings 1] [--seed 0]
        [--transformers FOLDER]

A recording is made of short cuts with known words: those of FOLDER (pocketsphinx-testdata's `librivox`), or the one in
examples. Files are GGUF files of one model, the most exact first: the others are compared with it. --recordings: so
many of that length, one after the other, of which words are counted together. --transformers: the same model as
`tools/fetch_whisper.py` makes its folder, first of all.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import speech_sounds
from speech_sounds import Samples, Spoken

import opsin

THREADS = 2
Writes = Callable[[Samples], str]


@contextmanager
def ours(file: Path) -> Iterator[Writes]:
    """opsin with a file."""
    with opsin.load(file, threads=THREADS) as model:
        yield lambda samples: model.transcribe(samples, language="en").text


@contextmanager
def theirs(folder: Path) -> Iterator[Writes]:
    """transformers with a folder."""
    from speech_theirs import Theirs

    yield Theirs.load(folder, THREADS).text


def wrong_words(sounds: Sequence[Spoken], write: Writes) -> float:
    """Percent of the words of some recordings."""
    wrong = sum(speech_sounds.errors(sound.words, speech_sounds.normal(write(sound.samples))) for sound in sounds)
    return 100 * wrong / sum(len(sound.words) for sound in sounds)


def main() -> None:
    """Print a line for each program and file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--cuts", type=Path)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--recordings", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--transformers", type=Path)
    args = parser.parse_args()
    cuts, seeds = speech_sounds.cuts(args.cuts), range(args.seed, args.seed + args.recordings)
    sounds = [speech_sounds.joined(cuts, 60 * args.minutes, disturbed=True, seed=seed) for seed in seeds]
    seconds = sum(sound.seconds for sound in sounds)
    print(f"{seconds:.0f} s, {sum(len(sound.words) for sound in sounds)} words", flush=True)
    programs = [("transformers", theirs(args.transformers))] if args.transformers else []
    programs += [(file.name, ours(file)) for file in args.files]
    first: float | None = None
    for name, opened in programs:
        with opened as write:
            begun = time.perf_counter()
            wrong = wrong_words(sounds, write)
            took = time.perf_counter() - begun
        first = wrong if first is None and name != "transformers" else first
        beside = "" if first is None else f" ({wrong - first:+.2f})"
        rate = f"{seconds / took:.1f} seconds of speech a second"
        print(f"{name}: {wrong:.2f} % of words wrong{beside}, {rate}", flush=True)


if __name__ == "__main__":
    main()
