"""The measures of the tree see what they are for."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "measure_house.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure_house_of_opsin", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


SOURCES = {
    "opsin.a": "from opsin.b import x\n\nclass Same:\n    pass\n",
    "opsin.b": "from opsin import c\n\nclass Same:\n    pass\n\nclass _Own:\n    pass\n",
    "opsin.c": "import opsin.a\n\ndef late():\n    from opsin.d import y\n\nclass _Own:\n    pass\n",
    "opsin.d": "from opsin.ops.cpu import Cpu\nfrom opsin.c import late\n",
    "opsin.ops.cpu": "",
    "opsin.ops.use": "from opsin.ops.cpu import x\n",
    "opsin.e": "if TYPE_CHECKING:\n    from opsin.a import x\n",
}


def test_a_tree_is_measured(tool) -> None:
    found = tool.tree(SOURCES)
    assert found["files"] == 7
    assert found["public class names that stand twice"] == ["Same"]
    assert found["files that name the CPU"] == ["opsin.d"]
    assert found["cycles when modules run"] == [["opsin.a", "opsin.b", "opsin.c"]]


def test_the_house_has_no_cycles(tool) -> None:
    found = tool.tree(tool.sources())
    assert found["cycles when modules run"] == []
    assert found["files"] > 200


def test_the_watching_process_is_a_program(tool) -> None:
    assert ast.parse(tool.CHILD)
