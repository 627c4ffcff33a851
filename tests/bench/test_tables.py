"""README's tables of speed are those of the machines' pages."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = """# {name}

<!-- bench:text -->
| work | opsin, tokens/s | llama.cpp, tokens/s | ratio of medians | pairs: median (range) | wanted |
|---|---:|---:|---:|---:|---:|
| prompt | {ours} | 10.0 | **2.00** | 2.0 (1.9 to 2.1) | 3.00, missed |

| this machine | |
|---|---|
| llama.cpp | some |
<!-- /bench:text -->

<!-- bench:vision -->
| work | opsin, s | llama.cpp, f16 mmproj, s | llama.cpp, Q8_0 mmproj, s | faster by | wanted |
|---|---:|---:|---:|---:|---:|
| tile of {name} | 0.5 | 1.5 | 1.0 | **2.00** | 1.30 |
<!-- /bench:vision -->
"""


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("bench_tables", ROOT / "bench" / "tables.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("mark", ["bench:text", "bench:vision"])
def test_readme_shows_what_was_measured(tables, mark: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, shown, _ = tables.between(readme, mark)
    assert shown.strip() == tables.table(tables.machines(), mark)
    assert shown.count("**") > 10


def test_machines_stand_side_by_side_and_the_faster_peer_counts(tables) -> None:
    pages = {name: PAGE.format(name=name, ours=ours) for name, ours in (("A", 20.0), ("B", 21.0))}
    assert tables.table(pages, "bench:text").splitlines() == [
        "| tokens a second, on | A: opsin | llama.cpp | ratio | B: opsin | llama.cpp | ratio |",
        "|---|---:|---:|---:|---:|---:|---:|",
        "| prompt | 20.0 | 10.0 | **2.00** | 21.0 | 10.0 | **2.00** |",
    ]
    assert tables.table(pages, "bench:vision").splitlines()[2:] == [
        "| tile of A | 0.5 | 1.0 | **2.00** | - | - | - |",
        "| tile of B | - | - | - | 0.5 | 1.0 | **2.00** |",
    ]


def test_columns_of_more_peers_are_named_and_the_fastest_counts(tables) -> None:
    page = PAGE.format(name="A", ours=20.0).replace("llama.cpp, tokens/s |", "llama.cpp, tokens/s | other, tokens/s |")
    for theirs, best in (("10.0 | 12.5", "12.5"), ("10.0 | -", "10.0"), ("- | 9.5", "9.5")):
        made = tables.table({"A": page.replace("| 10.0 |", f"| {theirs} |")}, "bench:text").splitlines()
        assert made[0] == "| tokens a second, on | A: opsin | llama.cpp or other | ratio |"
        assert made[2] == f"| prompt | 20.0 | {best} | **2.00** |"


def test_what_is_published_replaces_what_stood_there(tables, tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text(PAGE.format(name="A", ours=1.0), encoding="utf-8")
    tables.replace(path, "bench:text", "new\nlines")
    before, text, after = tables.between(path.read_text(encoding="utf-8"), "bench:text")
    assert (before, text) == ("# A\n\n<!-- bench:text -->\n", "new\nlines\n")
    assert "tile of A" in after
    with pytest.raises(ValueError, match="each once"):
        tables.replace(path, "bench:sound", "x")
