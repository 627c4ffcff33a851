"""Other programs that write down what was said, each in a process of its own; see `speech.py`.

    python bench/speech_peer.py faster-whisper|whisper.cpp MODEL THREADS

Needs `faster-whisper`, whose MODEL is a folder, or `pywhispercpp`, whose MODEL is a ggml file. For each line of stdin,
the path of a NumPy file of samples at 16 kHz, it prints a line of JSON: the seconds that it took, and the text.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Write = Callable[[Any], str]


def faster_whisper(model: str, threads: int) -> Write:
    """Weights of 8 bits, greedy, and no window knows those before, as opsin does it."""
    from faster_whisper import WhisperModel

    made = WhisperModel(model, device="cpu", compute_type="int8", cpu_threads=threads, local_files_only=True)

    def write(samples: Any) -> str:
        segments, _ = made.transcribe(samples, language="en", beam_size=1, condition_on_previous_text=False)
        return "".join(segment.text for segment in segments)

    return write


def whisper_cpp(model: str, threads: int) -> Write:
    """As its weights are in the file, greedy, without context."""
    from pywhispercpp.model import Model

    made = Model(
        model, n_threads=threads, print_progress=False, print_realtime=False, redirect_whispercpp_logs_to=None,
        language="en", no_context=True, greedy={"best_of": 1},
    )  # fmt: skip
    return lambda samples: " ".join(segment.text for segment in made.transcribe(samples))


def main() -> None:
    """Answer until stdin ends."""
    name, model, threads = sys.argv[1:]
    write = {"faster-whisper": faster_whisper, "whisper.cpp": whisper_cpp}[name](model, int(threads))
    for line in sys.stdin:
        samples = np.load(line.strip())
        begun = time.perf_counter()
        text = write(samples)
        print(json.dumps({"seconds": time.perf_counter() - begun, "text": text}), flush=True)


if __name__ == "__main__":
    main()
