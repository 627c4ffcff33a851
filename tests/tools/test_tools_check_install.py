"""The list of installed distributions is compared in both directions."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = Path(__file__).parents[2] / "tools" / "check_install.py"
    spec = importlib.util.spec_from_file_location("check_install_of_opsin", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_list_may_have_comments_and_optional_names(tool) -> None:
    assert tool.listed("# names\nnumpy\n\nonce-needed ?\n") == ({"numpy"}, {"once-needed"})


def test_one_more_or_one_less_is_told(tool) -> None:
    assert tool.differences({"a", "b"}, {"a", "b"}, set()) == []
    assert tool.differences({"a"}, {"a"}, {"b"}) == []
    assert tool.differences({"a", "b"}, {"a"}, {"b"}) == []
    assert tool.differences({"a", "c"}, {"a"}, {"b"}) == ["c is installed, but not listed in distributions.txt"]
    assert tool.differences({"a"}, {"a", "c"}, {"b"}) == ["c is listed in distributions.txt, but not installed"]


def test_names_are_compared_as_indexes_do(tool) -> None:
    assert tool.normal("Huggingface_Hub") == tool.normal("huggingface.hub") == "huggingface-hub"


def test_the_dependencies_of_the_project_are_listed(tool) -> None:
    import tomllib

    project = tomllib.loads((tool.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required, _ = tool.listed(tool.LISTED.read_text(encoding="utf-8"))
    assert {tool.normal(text.split(">")[0].split("=")[0]) for text in project["dependencies"]} <= required


def test_size_counts_files_below(tool, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"12345")
    assert tool.size(tmp_path) == 5
