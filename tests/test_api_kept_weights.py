"""Models whose packed weights are kept on disk answer as those whose are not; a changed file is never mistaken."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny import MIXED, tiny_llama
from tiny_sight import tiny_pair

import opsin
from opsin.cli import main
from opsin.config import Config, from_environment
from opsin.gguf import File, open_file
from opsin.ops.cpu import weight_cache
from opsin.ops.cpu.weight_shelves import kept_models

IDS = list(range(1, 30))


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    """However full the disk is on which tests run."""
    empty = SimpleNamespace(f_bavail=1 << 30, f_bfree=1 << 30, f_blocks=1 << 30, f_frsize=4096)
    monkeypatch.setattr(weight_cache.os, "statvfs", lambda folder: empty)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Keeps everything, at once."""
    monkeypatch.setattr(open_file, "SETTLED", 0.0)
    return dataclasses.replace(from_environment(), weights=tmp_path / "kept", weights_least=0)


def logits(path: Path, config: Config | None = None) -> bytes:
    with opsin.load(path, context=64, config=config) as model:
        return np.asarray(model.logits(IDS)).tobytes()


def test_a_second_start_reads_no_matrix_and_gives_the_same_logits(tmp_path, config, monkeypatch):
    path = tiny_llama(tmp_path / "model.gguf", types=MIXED)
    wanted = logits(path)
    assert logits(path, config) == wanted
    (kept,) = kept_models(tmp_path / "kept")
    assert kept.label == "model.gguf"
    read: list[str] = []
    reading = File.read_into

    def watched(self: File, name: str, *rest: Any) -> None:
        read.append(name)
        reading(self, name, *rest)

    monkeypatch.setattr(File, "read_into", watched)
    assert logits(path, config) == wanted
    assert read
    assert [name for name in read if "norm" not in name] == []
    assert [model.files for model in kept_models(tmp_path / "kept")] == [kept.files]


def test_a_file_that_was_written_over_with_its_old_time_is_read_anew(tmp_path, config):
    """Same name, size, time and metadata."""
    path = tiny_llama(tmp_path / "model.gguf", types=MIXED)
    first, time = logits(path, config), path.stat().st_mtime_ns
    other = tiny_llama(tmp_path / "other.gguf", types=MIXED, seed=1)
    assert other.stat().st_size == path.stat().st_size
    changed = path.stat().st_ctime_ns
    while path.stat().st_ctime_ns == changed:  # its steps are some milliseconds
        path.write_bytes(other.read_bytes())
        os.utime(path, ns=(time, time))
    assert logits(path, config) == logits(other) != first


def test_weights_of_pictures_are_kept_as_well(tmp_path, config):
    tiny_pair(tmp_path)
    picture, values = np.zeros((32, 32, 3), np.uint8), []
    for number in range(3):
        with opsin.load(tmp_path / "model.gguf", context=256, config=config if number else None) as model:
            values.append(model.encode(picture).values.tobytes())
    assert values[0] == values[1] == values[2]
    assert len(kept_models(tmp_path / "kept")) == 2


def test_the_command_lists_and_clears_them(tmp_path, config, monkeypatch, capsys):
    for name in ("one.gguf", "two.gguf"):
        logits(tiny_llama(tmp_path / name, types=MIXED, seed=len(name)), config)
    (tmp_path / "kept" / "somebody's").mkdir()
    monkeypatch.setenv("OPSIN_WEIGHTS", str(tmp_path / "kept"))
    monkeypatch.setenv("OPSIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPSIN_WEIGHTS_GB", "7")
    assert main.run(["cache"]) == 0
    told = capsys.readouterr().out
    assert "one.gguf" in told and "two.gguf" in told and "at most 7 GB" in told
    object_file = tmp_path / "cache" / "kernels" / "key" / "linear.o"
    object_file.parent.mkdir(parents=True)
    object_file.write_bytes(bytes(100))
    assert main.run(["cache", "--clear", "weights", "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert got["cleared_bytes"] > 10_000
    assert got["weights"]["models"] == []
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["somebody's"]
    assert main.run(["cache", "--clear", "kernels", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cleared_bytes"] == 100
    assert not object_file.exists()


@pytest.mark.parametrize(("text", "wanted"), [("", "cache/weights"), ("off", None), ("0", None), ("other", "other")])
def test_the_environment_chooses_the_folder(monkeypatch, text, wanted):
    monkeypatch.setenv("OPSIN_CACHE", "cache")
    monkeypatch.setenv("OPSIN_WEIGHTS", text)
    assert from_environment().weights == (None if wanted is None else Path(wanted))
