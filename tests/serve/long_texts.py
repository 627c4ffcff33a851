"""Long texts to every route that reads some, beside a watcher of /health: refused or answered, and nobody else waits.

    python tests/serve/long_texts.py [--model FILE] [--scale 1.0]

Prints for each request its status, its seconds, and the longest that /health took meanwhile. A short round is in the
suite.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from soak import Client, serving

PROSE = "The quick brown fox jumps over the lazy dog, and 12 others watch it. "
TEXTS = {  # characters, and what of
    "one word": (3_000_000, "a"),
    "exclamation marks": (3_000_000, "!"),
    "prose": (10_000_000, PROSE),
    "one letter": (54_000_000, "a"),
    "Chinese": (6_000_000, "\u4e2d\u6587"),
    "lines": (8_000_000, "\n"),
    "special tokens": (6_000_000, "<|im_end|>"),
}


def bodies(text: str) -> Iterator[tuple[str, dict[str, object]]]:
    """Every route that reads a text."""
    messages = [{"role": "user", "content": text}]
    yield "/v1/chat/completions", {"messages": messages, "max_tokens": 1}
    yield "/v1/chat/completions/input_tokens", {"messages": messages}
    yield "/apply-template", {"messages": messages}
    yield "/v1/completions", {"prompt": text, "max_tokens": 1}
    yield "/completion", {"prompt": text, "n_predict": 1}
    yield "/tokenize", {"content": text}
    yield "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "stop": [text], "max_tokens": 1}


class Watch:
    """Asks for /health again and again; `longest` is the longest that one took since it was last read."""

    def __init__(self, port: int) -> None:
        self._client, self._longest, self._over = Client(port), 0.0, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.01):
            start = time.perf_counter()
            self._client.ask("/health")
            self._longest = max(self._longest, time.perf_counter() - start)

    def longest(self) -> float:
        found, self._longest = self._longest, 0.0
        return found


def ask_all(port: int, scale: float) -> Iterator[tuple[str, str, int, float, float]]:
    """(text, route, status, seconds, longest /health) of each request."""
    client = Client(port)
    with Watch(port) as watch:
        for name, (size, piece) in TEXTS.items():
            length = int(size * scale)
            text = (piece * (length // len(piece) + 1))[:length]
            for path, body in bodies(text):
                data = client.encoded(body)
                watch.longest()
                start = time.perf_counter()
                status, _ = client.ask(path, data)
                yield name, path, status, time.perf_counter() - start, watch.longest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a GGUF file (default: the model that comes with opsin)")
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes")
    args = parser.parse_args()
    failed = 0
    with serving(args.model) as (_, port):
        for name, path, status, seconds, longest in ask_all(port, args.scale):
            print(f"{name:20} {path:36} {status} {seconds:7.2f} s, /health at most {longest:.3f} s", flush=True)
            failed += status not in (200, 400, 413)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
