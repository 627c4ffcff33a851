"""docs/adding-a-number-format.md is followed to the letter: its file is added, and its test runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "adding-a-number-format.md"
# The new file lies in a folder of its own, which is made part of the package: the tree stays as it is.
START = """
import sys, opsin.quants
sys.path.insert(0, {folder!r})
opsin.quants.__path__.append({folder!r})
opsin.quants.TYPES = opsin.quants._find_types()
opsin.quants.BY_NAME = {{kind.name: kind for kind in opsin.quants.TYPES.values()}}
from dataclasses import replace
from opsin.config import from_environment
from opsin.ops.cpu import Cpu
device = Cpu(replace(from_environment(), cache=__import__("pathlib").Path({folder!r}) / "cache"), threads=1)
"""


def blocks(name: str) -> str:
    found = re.findall(rf"^```python {re.escape(name)}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found, name
    return "\n\n".join(found)


def follow(folder: Path, format_file: str, test: str) -> subprocess.CompletedProcess[str]:
    (folder / "toy3.py").write_text(format_file)
    code = START.format(folder=str(folder)) + test + "\nprint('done')\n"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=800, check=False)


def test_the_page_works_as_it_stands(tmp_path: Path) -> None:
    done = follow(tmp_path, blocks("toy3.py"), blocks("test"))
    assert done.stdout == "done\n", done.stderr[-2000:]


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("- np.float32(4))", "- np.float32(3))"), ("block[2 + (bit >> 3)] |", "block[3 + (bit >> 3)] |"),
     ("zero=4", "zero=3"), ("peak / np.float32(-4)", "peak / np.float32(-2)")],
)  # fmt: skip
def test_its_test_sees_a_mistake(tmp_path: Path, right: str, wrong: str) -> None:
    assert blocks("toy3.py").count(right) == 1
    done = follow(tmp_path, blocks("toy3.py").replace(right, wrong), blocks("test"))
    assert done.returncode == 1
    assert "AssertionError" in done.stderr


def test_the_page_names_files_that_are_there() -> None:
    text = PAGE.read_text()
    for path in ("src/opsin/quants/mxfp4.py", "src/opsin/quants/iq4.py", "src/opsin/gguf/tensor_type.py",
                 "src/opsin/convert/mix.py", "tests/quants/test_adding_a_format.py"):  # fmt: skip
        assert path.rsplit("/", 1)[1] in text
        assert (ROOT / path).is_file()
