"""A short round of the fuzzer, and proof that it notices what it looks for."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from opsin.gguf import cursor, header


def load_fuzzer() -> ModuleType:
    """The script beside this file; other rooms may have one of the same name."""
    spec = importlib.util.spec_from_file_location("gguf_fuzz", Path(__file__).with_name("fuzz.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["gguf_fuzz"] = module
    spec.loader.exec_module(module)
    return module


fuzz = load_fuzzer()


def test_two_thousand_damaged_files_are_refused_or_read(tmp_path: Path) -> None:
    outcomes = fuzz.run(2000, 7, tmp_path)
    assert outcomes["FileError"] > 1000
    assert outcomes["sound"] > 100


def test_the_same_seed_makes_the_same_mutants() -> None:
    fields = fuzz.make_seeds()[0]
    first = [fuzz.mutate(fields, fuzz.random.Random(str(number))) for number in range(50)]
    assert first == [fuzz.mutate(fields, fuzz.random.Random(str(number))) for number in range(50)]
    assert len(set(first)) > 30


def test_a_reader_that_never_ends_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object) -> None:
        while True:
            pass

    monkeypatch.setattr(header, "_check_count", hang)
    monkeypatch.setattr(fuzz, "STUCK_SECONDS", 0.05)
    with pytest.raises(AssertionError, match="TimeoutError: stuck"):
        fuzz.run(20, 7, tmp_path)


def test_an_unchecked_count_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header, "_check_count", lambda *_: None)
    monkeypatch.setattr(cursor.Cursor, "remaining", 1 << 62)
    with pytest.raises(AssertionError, match="mutant"):
        fuzz.run(2000, 7, tmp_path)
