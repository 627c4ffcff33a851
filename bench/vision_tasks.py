"""What the processes of `vision.py` have in common: the pictures, and lines of JSON in and out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Task = Callable[[dict[str, Any]], dict[str, Any]]
SIDE = 512


@cache
def picture(number: int, side: int = SIDE) -> NDArray[np.uint8]:
    """[side, side, 3]: smooth colours with grain, another for each number."""
    dice = np.random.default_rng(number)
    coarse = dice.integers(0, 256, (-(-side // 32), -(-side // 32), 3))
    grain = dice.normal(0, 8, (side, side, 1))
    blocks = np.kron(coarse, np.ones((32, 32, 1)))[:side, :side]
    return np.clip(blocks + grain, 0, 255).astype(np.uint8)


def answer_tasks(tasks: Mapping[str, Task]) -> None:
    """Do what each line of the input says, until it ends."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        print(json.dumps(tasks[task.pop("do")](task)), flush=True)


class Worker:
    """A process that answers tasks. It sleeps between them."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read()

    def ask(self, do: str, **task: Any) -> dict[str, Any]:
        """Its answer, and as "others" the processors that other programs used meanwhile, of all, where that is known.

        Raises RuntimeError where the process has ended.
        """
        before = self._busy()
        answer = self._ask(do, task)
        after = self._busy()
        if before and after and after[1] > before[1]:
            answer["others"] = (after[0] - before[0]) / (after[1] - before[1])
        return answer

    def _busy(self) -> tuple[int, int] | None:
        """Ticks of all processors in which something else ran, and all ticks, since the machine started."""
        try:
            ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
            own = Path(f"/proc/{self._child.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        except OSError:  # no Linux
            return None
        return sum(ticks) - ticks[3] - ticks[4] - sum(map(int, own)), sum(ticks)

    def _ask(self, do: str, task: dict[str, Any]) -> dict[str, Any]:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps({"do": do, **task}) + "\n")
        self._child.stdin.flush()
        return self._read()

    def close(self) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait()

    def _read(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"{self.name} ended with {self._child.wait()}")
