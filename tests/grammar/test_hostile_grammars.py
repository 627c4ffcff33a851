"""Nobody's grammar ends the process, nor takes its memory or its time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_hostile_grammars_are_refused_or_followed_within_bounds_of_memory_and_time():
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("hostile_grammars.py")], capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    outcomes = [line.partition(",")[0] for line in done.stdout.splitlines()]
    assert set(outcomes) == {"refused", "failed", "followed"}
    assert len(outcomes) > 50
