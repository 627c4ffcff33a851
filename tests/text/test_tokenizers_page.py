"""The table of speeds is written by its bench, between its markers."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_has_one_place_for_the_table_and_the_table_is_that_of_the_bench() -> None:
    page = (ROOT / "docs" / "tokenizers.md").read_text(encoding="utf-8")
    _, rest = page.split("<!-- bench:encode -->")
    table, _ = rest.split("<!-- /bench:encode -->")
    head, _, *rows = table.strip().splitlines()
    bench = (ROOT / "bench" / "encode.py").read_text(encoding="utf-8")
    assert "<!-- bench:encode -->" in bench
    assert "| mix | mix, nothing met before | llama.cpp, mix |" in head
    assert "mix, nothing met before | llama.cpp, mix |" in bench
    assert len(rows) >= 10
    assert all(row.count("|") == head.count("|") for row in rows)
