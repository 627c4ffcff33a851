"""Seconds of speech that are written down in a second: opsin beside faster-whisper and whisper.cpp, by turns.

    python bench/speech.py MODEL.gguf [--cuts FOLDER] [--seconds 60] [--rounds 5] [--files 8]
        [--peers PYTHON --faster-whisper FOLDER --whisper-cpp FILE]

PYTHON is that of an environment with `faster-whisper` and `pywhispercpp`; FOLDER is CTranslate2's model, which
`tools/fetch_whisper.py` fetches, FILE whisper.cpp's (`--write-ggml FILE` makes it of FOLDER). All run on two threads,
load first, and warm up once; then they take turns, one recording a turn, while the others wait. Peak memory is that of
their processes. --files: so many recordings one after another and all at once, by opsin alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import speech_ggml
import speech_sounds
from figure import Figure
from speech_sounds import Spoken

import opsin

THREADS = 2
WANTED = {"faster-whisper": 1.5, "whisper.cpp": 2.0}
AT_ONCE = 2.0  # times the rate of one after another


@dataclass
class Program:
    """A program that waits for recordings, and the seconds that each took."""

    name: str
    process: subprocess.Popen[str]
    seconds: list[float] = field(default_factory=list)
    text: str = ""

    def write(self, path: Path) -> float:
        """Seconds of one recording. Raises RuntimeError where the program ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(path, file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            if line.startswith("{"):  # some print more
                told = json.loads(line)
                self.text = told["text"]
                return float(told["seconds"])
        raise RuntimeError(f"{self.name} ended; what it said stands above")

    def peak_megabytes(self) -> float:
        """Of memory, since it began."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) / 1000


@contextmanager
def running(name: str, command: Sequence[str]) -> Iterator[Program]:
    """A program until the end of the block."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Program(name, process)
    finally:
        process.kill()
        process.communicate()


def serve(model: str) -> None:
    """opsin's side, see `speech_peer.py`."""
    with opsin.load(model, threads=THREADS) as made:
        for line in sys.stdin:
            samples = np.load(line.strip())
            begun = time.perf_counter()
            text = made.transcribe(samples, language="en").text
            print(json.dumps({"seconds": time.perf_counter() - begun, "text": text}), flush=True)


def compare(programs: Sequence[Program], sound: Spoken, rounds: int) -> Iterator[str]:
    """A line for each program: medians, and the median of the ratios of pairs."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound.npy"
        for turn in range(-1, rounds):
            np.save(path, sound.samples + np.float32(1e-5 * random.random()))  # so that nobody remembers it
            for program in programs if turn % 2 else reversed(programs):
                took = program.write(path)
                if turn >= 0:
                    program.seconds.append(took)
    first = programs[0]
    for program in programs:
        ratios = [theirs / ours for theirs, ours in zip(program.seconds, first.seconds, strict=True)]
        wrong = speech_sounds.errors(sound.words, speech_sounds.normal(program.text)) / len(sound.words)
        note = (
            f"{sound.seconds / statistics.median(program.seconds):.1f} seconds of speech a second, "
            f"{program.peak_megabytes():.0f} MB at most, {wrong:.1%} of words wrong; "
            f"{min(ratios):.2f} to {max(ratios):.2f}"
        )
        name, wanted = f"opsin beside {program.name}", WANTED.get(program.name, 0.0)
        yield Figure(name, statistics.median(ratios), wanted, "times", note, most=False).line()


def at_once(model: str, sounds: Sequence[Spoken], rounds: int) -> str:
    """A line: recordings at once beside one after another."""
    with opsin.load(model, threads=THREADS, sequences=len(sounds)) as made:

        def run(workers: int) -> float:
            given = [sound.samples + np.float32(1e-5 * np.random.default_rng().random()) for sound in sounds]
            begun = time.perf_counter()
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(lambda samples: made.transcribe(samples, language="en").text, given))
            return time.perf_counter() - begun

        run(len(sounds))
        pairs = [(run(1), run(len(sounds))) for _ in range(rounds)]
    ratios = [alone / together for alone, together in pairs]
    note = f"{min(ratios):.2f} to {max(ratios):.2f}"
    return Figure(f"{len(sounds)} files at once", statistics.median(ratios), AT_ONCE, "times", note, most=False).line()


def main() -> None:
    """Print a line a program, and one for files at once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--cuts", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--peers", help="the Python of an environment that has them")
    parser.add_argument("--faster-whisper", type=Path)
    parser.add_argument("--whisper-cpp", type=Path)
    parser.add_argument("--write-ggml", type=Path, help="write this file, of --faster-whisper's folder, and end")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.model)
        return
    if args.write_ggml:
        speech_ggml.write(args.faster_whisper, args.write_ggml)
        return
    cuts = speech_sounds.cuts(args.cuts)
    peers = {"faster-whisper": args.faster_whisper, "whisper.cpp": args.whisper_cpp}
    with ExitStack() as stack:
        programs = [stack.enter_context(running("opsin", [sys.executable, __file__, args.model, "--serve"]))]
        for name, model in peers.items():
            if model is not None:
                command = [args.peers, str(Path(__file__).with_name("speech_peer.py")), name, str(model), str(THREADS)]
                programs.append(stack.enter_context(running(name, command)))
        for line in compare(programs, speech_sounds.joined(cuts, args.seconds, disturbed=False), args.rounds):
            print(line, flush=True)
    if args.files > 1:
        sounds = [speech_sounds.joined(cuts, 25, disturbed=False, seed=seed) for seed in range(args.files)]
        print(at_once(args.model, sounds, args.rounds), flush=True)


if __name__ == "__main__":
    main()
