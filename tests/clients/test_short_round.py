"""A short round of clients: those whose packages stand beside the suite, on a server of opsin-nano."""

from __future__ import annotations

import ast
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from run import HERE, run

import opsin
from opsin.hub.bundled import bundled

sys.path.insert(0, str(Path(__file__).parents[1] / "serve"))

from running_server import running


def packages(path: Path) -> set[str]:
    """What a program imports."""
    found = [
        node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    return {name.partition(".")[0] for node in found for name in _names(node)}


def _names(node: ast.Import | ast.ImportFrom) -> list[str]:
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]


NAMES = [
    path.stem
    for path in sorted(HERE.glob("with_*.py"))
    if all(map(find_spec, packages(path) | {path.stem.removeprefix("with_")}))
]


def test_openai_is_among_them():
    assert "with_openai" in NAMES


@pytest.fixture(scope="module")
def address():
    with opsin.load(bundled(), sequences=4) as model, running(lambda: model) as made:
        yield made.url + "/v1"


@pytest.mark.parametrize("name", NAMES)
def test_it_is_content(address, tmp_path, name):
    assert run(Path(sys.executable), tmp_path, [name], {"OPSIN_TEXT": address, "OPSIN_SIGHT": address}) == 0
