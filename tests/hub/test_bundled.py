"""The model inside the package."""

from __future__ import annotations

import pytest

import opsin
from opsin.errors import FileError
from opsin.hub import bundled


def test_a_package_without_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "files", lambda package: tmp_path)
    with pytest.raises(FileError, match="opsin-nano") as error:
        opsin.load()
    assert "model.gguf" in error.value.hint


def test_it_is_loaded_where_no_file_is_named(tmp_path, monkeypatch, quantised_file):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "opsin-nano.gguf").write_bytes(quantised_file.read_bytes())
    monkeypatch.setattr(bundled, "files", lambda package: tmp_path)
    with opsin.load(context=128, sequences=1) as model:
        assert model.path == tmp_path / "data" / "opsin-nano.gguf"
        answer = model.chat([{"role": "user", "content": "hi"}], max_tokens=4, ignore_eos=True)
        list(answer)
        assert len(answer.ids) == 4
