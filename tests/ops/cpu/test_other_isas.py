"""The op tests once more, in processes of their own, as on CPUs that offer less."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from opsin.config import from_environment
from opsin.errors import DeviceError
from opsin.ops.cpu.isa import choose

HERE = Path(__file__).parent
FILES = (
    *("test_pointwise.py", "test_linear.py", "test_attend.py", "test_attend_dense.py", "test_overlay.py"),
    *("test_bitwise.py", "test_kernel_errors.py", "test_candidates.py", "test_recurrent.py"),
)
# What a set has of its own; the rest it shares with one that all tests run on. Where x86-64 is a kind of this CPU,
# portable code is what the plainest one gets.
_INTEGERS = ("test_linear.py", "test_attend_integers.py", "test_int16.py")
OWN = {"avx2": FILES, "avxvnni": _INTEGERS, "portable": ("test_linear.py",)}

pytestmark = [
    pytest.mark.skipif(os.environ.get("OPSIN_TEST_FEW") == "1", reason="this is such a process"),
    pytest.mark.timeout(1800),
]


def is_x86() -> bool:
    return choose(from_environment()).triple.startswith("x86_64-")


def run_tests(files: tuple[str, ...], **environment: str) -> None:
    cleared = dict.fromkeys(("OPSIN_ISA", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"), "")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *(str(HERE / name) for name in files)],
        env={**os.environ, **cleared, "OPSIN_TEST_FEW": "1", **environment},
        cwd=HERE.parents[2], capture_output=True, text=True, timeout=1700,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_as_on_the_plainest_cpu_of_this_kind():
    if not is_x86():
        pytest.skip("x86-64 is the name of another kind of CPU")
    run_tests(FILES, NUMBA_CPU_NAME="x86-64")


@pytest.mark.parametrize("name", OWN)
def test_with_an_instruction_set_below_the_best(name):
    config = from_environment()
    if name == choose(config).name:
        pytest.skip("the other tests use it")
    if name == "portable" and is_x86():
        pytest.skip("the plainest CPU has it")
    try:
        choose(dataclasses.replace(config, isa=name))
    except DeviceError as error:
        pytest.skip(str(error))
    run_tests(OWN[name], OPSIN_ISA=name)
