"""Replicas on Ray for tests: a process of its own that obeys lines of JSON, and plain looks at the processes it has.

    python ray_fleet.py '{"model": ..., "port": 8000, "replicas": 2}'    # {"replicas": 1}, {"name": "new"}: another one

It says a line when all replicas are there, at first and after each change, and ends with its stdin.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class RayFleet:
    """A running one."""

    port: int
    process: subprocess.Popen[str]
    folder: str

    def change(self, **settings: Any) -> None:
        """Deploy it otherwise; returns when all replicas are there again. What is None is taken away."""
        self.begin_change(**settings)
        self.settled()

    def begin_change(self, **settings: Any) -> None:
        """The same, without waiting."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(settings) + "\n")
        self.process.stdin.flush()

    def settled(self) -> None:
        """Wait for the end of a change."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line == "there\n":  # Ray tells of what died there, too
                return
        raise AssertionError((Path(self.folder) / "stderr").read_text()[-4000:])

    def pids(self, name: str) -> list[int]:
        """Processes of this cluster whose title begins so: ray::ServeReplica:opsin:Replica and the like."""
        return [pid for pid, title in processes(self.folder) if title.startswith(name)]


def processes(folder: str) -> Iterator[tuple[int, str]]:
    """All of the cluster whose files lie in a folder, with their titles."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            surroundings = (entry / "environ").read_bytes()
        except OSError:
            continue
        if f"RAY_TMPDIR={folder}".encode() in surroundings.split(b"\0"):
            yield int(entry.name), title


@contextmanager
def ray_fleet(port: int, **settings: Any) -> Iterator[RayFleet]:
    """A cluster of its own on this machine. Afterwards none of its processes is left."""
    with tempfile.TemporaryDirectory(
        prefix="r", dir="/tmp", ignore_cleanup_errors=True
    ) as folder:  # sockets need short paths
        command = [sys.executable, __file__, json.dumps({**settings, "port": port})]
        surroundings = {**os.environ, "RAY_TMPDIR": folder}
        with (Path(folder) / "stderr").open("w") as told:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=told, text=True, env=surroundings
            )
        made = RayFleet(port, process, folder)
        try:
            made.settled()
            yield made
        finally:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.close()
            try:
                process.wait(60)
            finally:
                process.stdout.close()
                for pid, _ in list(processes(folder)):
                    os.kill(pid, signal.SIGKILL)


def main() -> None:
    """Serve, and obey stdin."""
    from opsin.config import tell_ray

    tell_ray(alone=True)
    from opsin.serve.ray import Running, parts_of

    settings = json.loads(sys.argv[1])
    with Running(*parts_of(settings)) as running:
        print("there", flush=True)
        for line in sys.stdin:
            settings = {name: value for name, value in (settings | json.loads(line)).items() if value is not None}
            running.run(*parts_of(settings))
            print("there", flush=True)


if __name__ == "__main__":
    main()
