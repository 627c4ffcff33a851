"""The pages of families say what there is, what was measured holds, and no family's file is longer than it may be."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "tools"
MOST, MOST_WITH_DECODER = 120, 200
# Its decoder stands apart, 250 with it; slices, a resampler, four models; a tower of its own kind, and films.
LARGER = {"mllama_vision": 150, "minicpmv": 250, "gemma4_vision": 135}
SAMPLE = '''"""Peep: it sees.

Oracle: nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SIDE = 3  # counts


# does not
class Peep:
    """Nor this."""

    side = SIDE

    def look(
        self,
    ) -> int:
        """Nor
        this.
        """
        return SHARED


SHARED = 4
_ONLY = [
    5,
]


def _helper() -> int:
    return _ONLY[0]


ENCODERS = {"peep": Peep}
RULES = (_helper(), SHARED)
'''


@pytest.fixture(scope="module", params=["families"])
def tool(request) -> ModuleType:
    sys.path.insert(0, str(TOOLS))
    spec = importlib.util.spec_from_file_location(f"tool_{request.param}", TOOLS / f"{request.param}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_pages_say_what_there_is() -> None:
    done = subprocess.run([sys.executable, str(TOOLS / "families.py")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_page_that_says_something_else_is_seen(tool) -> None:
    found = tool.families()
    figures = json.loads(tool.FIGURES.read_text())
    assert tool.page(found[:-1], figures) != tool.PAGE.read_text()
    assert tool.readme(tool.README.read_text(), found[:-1]) != tool.README.read_text()


def test_every_family_has_figures_and_they_hold(tool) -> None:
    measured = json.loads(tool.FIGURES.read_text())["families"]
    for family in tool.families():
        wanted = set(tool.KINDS) if family.projectors else {"logits", *(["embeddings"] if family.hears else [])}
        wanted = {"embeddings"} if family.embeds and not family.is_text else wanted
        if family.audio:  # not each has a class of its own in transformers that writes
            wanted = {"embeddings", "embeddings, f16"} | (measured[family.stem].keys() & {"logits"})
        assert set(measured[family.stem]) == wanted, family.stem
        assert all(value <= tool.BOUNDS[kind] for kind, value in measured[family.stem].items()), family.stem


def test_figures_are_the_largest_of_a_family(tool) -> None:
    here = "tests/models/test_"
    raw = {f"{here}conversations.py::test_logits_equal_transformers[one picture-mistral small]": 1e-6,
           f"{here}conversations.py::test_logits_equal_transformers[no picture-pixtral]": 3e-6,
           f"{here}pixtral_vision.py::test_embeddings_equal_transformers[pixtral-size0]": 2e-6,
           f"{here}encoders.py::test_embeddings_equal_transformers[modern-bert]": 4e-6,
           f"{here}pixtral_vision.py::test_mutant_is_seen[x]": 1.0}  # fmt: skip
    found = {"pixtral": {"logits": 3e-6, "embeddings": 2e-6}, "modern_bert": {"embeddings": 4e-6}}
    assert tool.gathered(raw) == found


def test_no_family_is_longer_than_it_may_be(tool) -> None:
    for family in tool.families():
        most = MOST_WITH_DECODER if family.architectures else MOST
        assert family.lines <= LARGER.get(family.stem, most), family.stem


def test_what_counts_as_a_line(tool) -> None:
    # SIDE, class, side, look (3), return, SHARED, ENCODERS
    assert tool.count(SAMPLE) == 9
    rules = sys.modules["family_lines"].conversion_rules(ast.parse(SAMPLE))
    assert sorted(ast.unparse(node).split("\n")[0] for node in rules) == [
        "RULES = (_helper(), SHARED)", "_ONLY = [5]", "def _helper() -> int:",
    ]  # fmt: skip
