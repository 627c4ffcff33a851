"""How soon `opsin serve` is healthy, `opsin chat` shows its prompt, and a question has its first token.

    python bench/doors.py MODEL [--rounds 5] [--opsin opsin OTHER/bin/opsin]

From a process's beginning, of each command by turns: medians and ranges, and seconds of processors until then. The
first round warms up: kernels are compiled and packed weights kept. Linux and macOS (it needs a terminal).
"""

from __future__ import annotations

import argparse
import os
import pty
import socket
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

from figure import Figure

OPTIONS = ("-c", "2048", "--threads", "2")
QUESTION = "What is a mammal? Say it in one sentence."


def serve(command: Sequence[str]) -> None:
    """Until /health says so."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with subprocess.Popen([*command, "--port", port], stderr=subprocess.DEVNULL) as process:
        while not healthy(port):
            assert process.poll() is None, "it ended"
            time.sleep(0.005)
        process.kill()


def healthy(port: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as reply:
        return bool(reply.status == 200)
    return False


def prompt(command: Sequence[str]) -> None:
    """Until a terminal shows where to write."""
    process, terminal = pty.fork()
    if not process:
        os.execvp(command[0], command)
    seen = b""
    while b"> " not in seen:
        seen += os.read(terminal, 4096)
    os.kill(process, 9)
    os.waitpid(process, 0)
    os.close(terminal)


def token(command: Sequence[str]) -> None:
    """Until the first byte of an answer."""
    asked = [*command, "--max-tokens", "8", QUESTION]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.read(1)
        process.kill()


WAYS: dict[str, tuple[str, Callable[[Sequence[str]], None]]] = {
    "serve, healthy": ("serve", serve), "chat, its prompt": ("chat", prompt), "chat, first token": ("chat", token),
}  # fmt: skip


def measured(run: Callable[[], None]) -> tuple[float, float]:
    """Seconds, and seconds of processors."""

    def spent() -> float:
        used = getrusage(RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    began, before = time.perf_counter(), spent()
    run()
    return time.perf_counter() - began, spent() - before


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--opsin", nargs="+", default=["opsin"], metavar="PROGRAM")
    options = parser.parse_args()
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for number in range(options.rounds + 1):
        for name, (word, way) in WAYS.items():
            for program in options.opsin:
                command = [program, word, "-m", str(options.model), *OPTIONS]
                taken = measured(partial(way, command))
                if number:
                    found.setdefault((name, program), []).append(taken)
    for (name, program), pairs in found.items():
        seconds, processor = zip(*pairs, strict=True)
        note = f"{min(seconds):.2f} to {max(seconds):.2f}; of processors {statistics.median(processor):.2f}; {program}"
        print(Figure(name, statistics.median(seconds), 0.0, "s", note=note).line(), flush=True)


if __name__ == "__main__":
    main()
