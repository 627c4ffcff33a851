"""`opsin convert`: a folder becomes a file that answers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "convert"))
pytest.importorskip("torch")
hf_folders = pytest.importorskip("hf_folders", reason="needs transformers")

import opsin  # noqa: E402
from opsin.cli.main import run  # noqa: E402


def test_a_folder_becomes_a_file_that_answers(tmp_path, capsys):
    hf_folders.save(tmp_path / "hf", "llama")
    assert run(["convert", str(tmp_path / "hf"), "-o", str(tmp_path / "model.gguf"), "--type", "q8_0"]) == 0
    out = capsys.readouterr().out
    assert f"{tmp_path / 'model.gguf'} has 0.2 MB" in out
    with opsin.load(tmp_path / "model.gguf", threads=1) as model:
        answer = model.chat([{"role": "user", "content": "the"}], max_tokens=3, temperature=0)
        assert answer.text is not None
        assert len(answer.ids) > 0


def test_a_folder_that_is_none_is_told_in_a_line(tmp_path, capsys):
    assert run(["convert", str(tmp_path / "nothing"), "-o", str(tmp_path / "model.gguf")]) == 3
    assert capsys.readouterr().err.startswith(f"opsin: {tmp_path / 'nothing'} is no folder")
