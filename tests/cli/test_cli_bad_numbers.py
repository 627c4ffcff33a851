"""Numbers of a file that are none, or too large: exit codes as the README says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import Shape, tiny_llama, weights, write_llama


def told(done) -> str:
    lines = [line for line in done.stderr.splitlines() if "compil" not in line]
    assert len(lines) == 1, done.stderr
    assert done.stdout == ""
    return lines[0]


def test_weights_that_are_no_numbers_are_a_bad_file(run, tmp_path: Path) -> None:
    values = weights(Shape())
    values["output_norm.weight"][:] = np.nan
    done = run("chat", "-m", write_llama(tmp_path / "nan.gguf", Shape(), values), "Hi")
    assert done.returncode == 3
    assert "no numbers (the file is damaged, or overflows)" in told(done)


@pytest.mark.parametrize(("key", "value"), [("context_length", 2**32 - 1), ("attention.head_count_kv", [2, 2, 1])])
def test_numbers_that_no_model_has_are_a_model_that_is_not_known(run, tmp_path: Path, key: str, value: object) -> None:
    path = tiny_llama(tmp_path / "odd.gguf", metadata={f"llama.{key}": value})
    done = run("chat", "-m", path, "Hi")
    assert done.returncode == 4
    assert f"llama.{key}" in told(done)


def test_equal_numbers_of_all_layers_are_answered(run, tmp_path: Path) -> None:
    path = tiny_llama(tmp_path / "listed.gguf", metadata={"llama.attention.head_count_kv": [2, 2, 2]})
    assert run("chat", "-m", path, "-n", "3", "Hi").returncode == 0
