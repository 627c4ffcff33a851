"""opsin as a process that encodes tiles and answers whole requests when it is told to; for `vision.py`.

    python bench/vision_ours.py TEXT MMPROJ --threads 2

It reads a line of JSON a task and writes a line of JSON a result.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from vision_tasks import Floats, answer_tasks, picture

import opsin
from opsin.config import from_environment
from opsin.gguf import File
from opsin.media.decode import open_picture
from opsin.models import VisionEncoder, load_encoder
from opsin.nn.module import FileReader
from opsin.ops.cpu import Cpu
from opsin.spans import TextSpan

QUESTION, NEXT = "What is in this picture?", "Which colour is it?"
OPERATIONS = ("constant", "linear", "layer_norm", "attend_dense", "reshape", "fold", "numpy")


class Seeing:
    """A text model and a tower; each is loaded when a task needs it."""

    def __init__(self, text: Path, tower: Path, threads: int) -> None:
        self.files, self.threads, self.fresh = (text, tower), threads, count(1000)

    @cached_property
    def model(self) -> opsin.Model:
        text, tower = self.files
        return opsin.load(text, mmproj=tower, threads=self.threads, guesses=0)

    @cached_property
    def device(self) -> Cpu:
        return Cpu(from_environment(), threads=self.threads)

    @cached_property
    def encoder(self) -> VisionEncoder:
        return self._encoder(None)

    @cached_property
    def profiled(self) -> tuple[VisionEncoder, dict[str, float]]:
        """An encoder, and what its operations took since that was cleared."""
        spent: dict[str, float] = {}
        return self._encoder(spent), spent

    def _encoder(self, spent: dict[str, float] | None) -> VisionEncoder:
        """Its operations add the seconds that they take to `spent`."""
        ops = self.device.eager()
        if spent is not None:
            for name in OPERATIONS:
                setattr(ops, name, _timed(name, getattr(ops, name), spent))
        with File.open(self.files[1]) as file:
            return load_encoder(file, FileReader(file, ops))

    def _features(self, encoder: VisionEncoder, numbers: list[int]) -> Floats:
        spans = [span for number in numbers for span in encoder.layout(open_picture(picture(number))).spans]
        return np.stack([span.features.make() for span in spans if span.features is not None])

    def encode(self, task: dict[str, Any]) -> dict[str, Any]:
        """Tiles in one batch, from features to embeddings that Python can read."""
        features = self._features(self.encoder, task["pictures"])
        began = time.perf_counter()
        values = self.encoder.encode(features).numpy()
        seconds = time.perf_counter() - began
        if task.get("file"):
            np.save(task["file"], values)
        return {"seconds": seconds, "rows": len(values)}

    def profile(self, task: dict[str, Any]) -> dict[str, Any]:
        """Seconds of each kind of operation in one run, of what lies between them, and of the whole."""
        encoder, spent = self.profiled
        features = self._features(encoder, task["pictures"])
        spent.clear()
        began = time.perf_counter()
        encoder.encode(features).numpy()
        whole = time.perf_counter() - began
        return {**spent, "between": whole - sum(spent.values()), "seconds": whole}

    def prompt(self, task: dict[str, Any]) -> dict[str, Any]:
        """The ids of a question about a picture, with an empty list where the picture is."""
        spans = self.model.chat_prompt(_ask(task["picture"])).spans
        return {"prompt": [list(span.ids) if isinstance(span, TextSpan) else [] for span in spans]}

    def request(self, task: dict[str, Any]) -> dict[str, Any]:
        """A question about a picture, its answer greedy. All counts: preparing, tokens, encoding."""
        began = time.perf_counter()
        answer = self.model.chat(_ask(task["picture"]), max_tokens=task["tokens"], ignore_eos=True, temperature=0.0)
        assert answer.text is not None
        return {"seconds": time.perf_counter() - began, "ids": answer.ids, "prompt": answer.prompt_tokens}

    def again(self, task: dict[str, Any]) -> dict[str, Any]:
        """Seconds to the first token of a question about a new picture, and of the next one in the conversation."""
        talk = _ask(next(self.fresh))
        first, _ = self._first(talk)
        answer = self.model.chat(talk, max_tokens=16, ignore_eos=True, temperature=0.0).text
        talk += [{"role": "assistant", "content": answer}, {"role": "user", "content": NEXT}]
        second, cached = self._first(talk)
        return {"first": first, "second": second, "cached": cached, "prompt": self.model.count(talk)}

    def _first(self, talk: list[dict[str, Any]]) -> tuple[float, int]:
        began = time.perf_counter()
        answer = self.model.chat(talk, max_tokens=1, ignore_eos=True, temperature=0.0)
        assert answer.text is not None
        return time.perf_counter() - began, answer.usage.cached


def _ask(number: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [picture(number), QUESTION]}]


def _timed(name: str, call: Callable[..., Any], spent: dict[str, float]) -> Callable[..., Any]:
    def timed(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        result = call(*arguments, **options)
        kind = f"{name} {arguments[0].width} to {result.width}" if name == "linear" else name
        spent[kind] = spent.get(kind, 0.0) + time.perf_counter() - began
        return result

    return timed


def main() -> None:
    """Answer until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("text", "tower"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    seeing = Seeing(args.text, args.tower, args.threads)
    tasks = ("encode", "profile", "prompt", "request", "again")
    answer_tasks({name: getattr(seeing, name) for name in tasks})


if __name__ == "__main__":
    main()
