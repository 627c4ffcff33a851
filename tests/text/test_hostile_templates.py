"""Templates that a generator makes take little time and memory. `hostile_templates.py` makes as many as one likes."""

from __future__ import annotations

import re
import subprocess
import sys

import hostile_templates


def test_hostile_templates_take_little_time_and_memory() -> None:
    """In a process of their own: this one may hold more than they may have."""
    command = [sys.executable, hostile_templates.__file__, "--count", "120", "--seed", "7", "--seconds", "9"]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert told.returncode == 0, told.stdout
    count, whole, ends = map(int, re.findall(r"(\d+) (?:templates|rendered to their end|ends)", told.stdout)[-3:])
    assert count == 120
    assert whole > 5  # some get through to their end
    assert ends > 30  # and others end in many ways


def test_what_takes_too_much_is_seen() -> None:
    assert hostile_templates.Taken("", seconds=1.1, bytes=0, end="").is_too_much(1)
    assert hostile_templates.Taken("", seconds=0, bytes=201 << 20, end="").is_too_much(1)
    assert not hostile_templates.Taken("", seconds=0.9, bytes=199 << 20, end="").is_too_much(1)
