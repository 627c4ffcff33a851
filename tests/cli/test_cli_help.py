"""Help comes at once: nothing heavy is imported for it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def test_help_takes_less_than_three_tenths_of_a_second() -> None:
    def cpu_seconds() -> float:
        before = os.times()
        subprocess.run([sys.executable, "-m", "opsin", "--help"], check=True, capture_output=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    # CPU time, and the best of five: other programs must not decide.
    assert min(cpu_seconds() for _ in range(5)) < 0.3


def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = ("numpy", "llvmlite", "numba", "jinja2", "tokenizers", "regex", "torch")
    code = f"import sys, opsin.cli.main; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["chat", "bench", "inspect", "doctor"])
def test_every_command_explains_itself(run, command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: opsin {command}")
    assert done.stderr == ""


def test_the_version_is_that_of_the_package(run) -> None:
    import opsin

    assert run("--version").stdout == f"opsin {opsin.__version__}\n"


def test_no_command_is_a_wrong_use(run) -> None:
    done = run()
    assert done.returncode == 2
    assert done.stdout == ""
    assert "COMMAND" in done.stderr
