"""Where memory runs out, the command ends with one line and 71, wherever that happens."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from opsin_process import COMMAND, environment

EXAMPLES = Path(__file__).parents[2] / "examples"
QUESTION = ("chat", "-n", 3, "--image", EXAMPLES / "arrow.png", "What is it?")
SAID = re.compile(r"opsin: out of memory \(a smaller --context or --cache-type q8_0 needs less\)")


def run_within(megabytes, *arguments):
    """The command with so much address space."""
    command = f"ulimit -v {megabytes * 1000}; exec {shlex.join([*COMMAND, *map(str, arguments)])}"
    return subprocess.run(
        ["bash", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False,
        env=environment(OPSIN_THREADS="2", OPENBLAS_NUM_THREADS="1"),
    )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """The kernels are there; that a picture is answered with enough memory."""
    assert run_within(8000, *QUESTION).returncode == 0


# Where they fell before: a module of Python's own, libllvmlite, code in LLVM, a thread, one of NumPy's, the encoder.
@pytest.mark.parametrize("megabytes", [130, 230, 300, 350, 450, 600])
def test_memory_that_runs_out_is_one_line(megabytes):
    done = run_within(megabytes, *QUESTION)
    assert done.returncode == 71, (done.stdout, done.stderr)
    lines = done.stderr.splitlines()
    assert SAID.fullmatch(lines[-1])
    assert "Traceback" not in done.stderr
    assert len([line for line in lines if "opsin-nano," not in line and "arrow.png" not in line]) == 1
