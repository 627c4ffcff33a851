"""docs/adding-a-model-family.md is followed to the letter: its file is added, and its test runs."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from opsin.gguf.rules import Rules, Settings

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "adding-a-model-family.md"
# The new file lies in a folder of its own, which is made part of the package: the tree stays as it is.
START = """
import os, pathlib, sys, opsin.models
os.chdir({folder!r})
opsin.models.__path__.append({folder!r})
from dataclasses import replace
from opsin.config import from_environment
from opsin.ops.cpu import Cpu
device = Cpu(from_environment(), threads=1)
"""


def blocks(name: str) -> str:
    found = re.findall(rf"^```python {re.escape(name)}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found, name
    return "\n".join(found)


def follow(folder: Path, family: str) -> subprocess.CompletedProcess[str]:
    (folder / "peep.py").write_text(family)
    code = START.format(folder=str(folder)) + blocks("test") + "\nprint('done')\n"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=800, check=False)


def test_the_page_works_as_it_stands(tmp_path: Path) -> None:
    done = follow(tmp_path, blocks("peep.py"))
    assert done.stdout == "done\n", done.stderr[-2000:]


@pytest.mark.parametrize(
    ("right", "wrong"),
    [('"bilinear"', '"bicubic"'), ("shape.grid, block))", "shape.grid, 1))"),
     ("vit_shape(file)", 'vit_shape(file, "rms")'), ('[row, "\\n"]', "[row]")],
)  # fmt: skip
def test_its_test_sees_a_mistake(tmp_path: Path, right: str, wrong: str) -> None:
    assert blocks("peep.py").count(right) == 1
    done = follow(tmp_path, blocks("peep.py").replace(right, wrong))
    assert done.returncode == 1
    assert "AssertionError" in done.stderr


def test_its_rules_name_what_its_file_holds(tmp_path: Path) -> None:
    (tmp_path / "peep.py").write_text(blocks("peep.py"))
    spec = importlib.util.spec_from_file_location("peep_of_the_page", tmp_path / "peep.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    (rules,) = module.RULES
    assert isinstance(rules, Rules)
    made = {tensor.target.replace("{n}", "0").removesuffix(".weight") for tensor in rules.tensors}
    assert {"v.patch_embd", "v.position_embd", "v.post_ln", "mm.fc", "v.blk.0.ln1", "v.blk.0.ffn_down"} <= made
    settings = Settings("config.json", {"text_config": {"hidden_size": 16}})
    values = {key.name: key.path for key in rules.keys}
    assert settings.get(values["clip.vision.projection_dim"], "int") == 16


def test_the_page_names_what_is_there() -> None:
    text = PAGE.read_text()
    rooms = {
        room: (ROOT / "src" / "opsin" / room).read_text() for room in re.findall(r"`((?:nn|gguf|media)/\w+\.py)`", text)
    }
    assert len(rooms) >= 8
    for word in (
        "vit_shape",
        "plane_table",
        "block_order",
        "attention_spans",
        "by_rows",
        "stretched",
        "expect",
        "siglip",
    ):
        source = " ".join(rooms.values()) + (ROOT / "src" / "opsin" / "spans.py").read_text()
        assert word in text and f"def {word}(" in source
    for path in re.findall(r"`((?:tests|tools)/\w+(?:/\w+)?\.py)`", text):
        assert "NAME" in path or (ROOT / path).is_file(), path
