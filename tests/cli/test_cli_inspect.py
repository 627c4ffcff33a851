"""`opsin inspect`: counts of a real file, and files that opsin cannot run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import opsin
from opsin import gguf
from opsin.cli.inspect import look


@pytest.mark.model
def test_a_real_file_is_counted(run, smollm2: Path) -> None:
    done = run("inspect", smollm2, "--json", "-c", 1000)
    got = json.loads(done.stdout)
    assert got["parameters"] == 134_515_008
    assert got["tensors"]["Q4_1"] == {"count": 210, "parameters": 106_168_320, "file_bytes": 66_355_200}
    assert got["context"] == 1000
    assert got["problem"] is None
    assert got["metadata"]["tokenizer.ggml.tokens"] == "49152 values"


@pytest.mark.model
def test_the_cache_is_what_a_loaded_model_takes(smollm2: Path) -> None:
    with gguf.File.open(smollm2) as file:
        contents = look(file, 1024)
    assert contents.cache_bytes is not None
    for kind, pages in (("f16", "f16"), ("q8_0", "q8_0")):
        with opsin.load(smollm2, threads=1, context=1024, sequences=1, pages=pages) as model:
            page = model.runner.cache_bytes / model.runner.limits.pages
            assert contents.cache_bytes[kind] == pytest.approx(page * 1024 / 64, rel=0.01)


def test_an_unknown_family_is_shown_with_the_reason(run, tmp_path: Path) -> None:
    path = tmp_path / "new.gguf"
    tensor = gguf.NewTensor.of("some.weight", np.zeros((2, 32), np.float32))
    gguf.write(path, {"general.architecture": "never-heard-of", "general.name": "a\x1b[2Jb"}, [tensor])
    done = run("inspect", path)
    assert done.returncode == 0
    assert "never-heard-of" in done.stdout
    assert "cannot run" in done.stdout
    assert "\x1b" not in done.stdout
    assert json.loads(run("inspect", path, "--json").stdout)["weight_bytes"] is None
