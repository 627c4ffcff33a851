"""The table of speeds is written by its bench, between its markers."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tokenizers.md"
MARKERS = "<!-- bench:encode -->", "<!-- /bench:encode -->"


@pytest.fixture
def bench() -> ModuleType:
    spec = spec_from_file_location("bench_encode", ROOT / "bench" / "encode.py")
    made = module_from_spec(spec)
    sys.modules["bench_encode"] = made
    spec.loader.exec_module(made)
    return made


def test_the_page_has_one_place_for_the_table_and_the_table_is_that_of_the_bench(bench: ModuleType) -> None:
    _, rest = PAGE.read_text(encoding="utf-8").split(MARKERS[0])
    table, _ = rest.split(MARKERS[1])
    head, line, *rows = table.strip().splitlines()
    assert [head, line] == bench.head(["plain English", *bench.LANGUAGES, "code"])
    assert len(rows) >= 10
    assert all(row.count("|") == head.count("|") for row in rows)


def test_the_bench_replaces_the_table_and_nothing_else(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "tokenizers.md"
    copy.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(bench, "PAGE", copy)
    bench.write_page("| a |\n|---|\n| 1 |")
    before, rest = PAGE.read_text(encoding="utf-8").split(MARKERS[0])
    after = rest.split(MARKERS[1])[1]
    assert copy.read_text(encoding="utf-8") == f"{before}{MARKERS[0]}\n| a |\n|---|\n| 1 |\n{MARKERS[1]}{after}"


@pytest.mark.parametrize("page", ["", MARKERS[0], MARKERS[1] + MARKERS[0], (MARKERS[0] + MARKERS[1]) * 2])
def test_a_page_without_its_markers_is_left_as_it_is(
    bench: ModuleType, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "tokenizers.md"
    copy.write_text(page, encoding="utf-8")
    monkeypatch.setattr(bench, "PAGE", copy)
    with pytest.raises(ValueError, match="markers"):
        bench.write_page("| a |")
    assert copy.read_text(encoding="utf-8") == page
