"""docs/architecture.md names what there is: files, classes, functions, layers and rooms."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/opsin"
PAGE = (ROOT / "docs/architecture.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`([^`\n]+)`", PAGE)))
# What is no name of ours: words of Python, of processors, and other projects'.
OTHERS = {"with", "global", "except", "sdot", "smmla", "vpdpbusd", "transformers"}


def defined() -> set[str]:
    """Names of modules, classes, functions, arguments, attributes and constants anywhere in the package."""
    found: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        found |= {path.stem, path.parent.name}
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    found.add(name)
                case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name):
                    found.add(name)
    return found


DEFINED = defined()


def is_there(named: str) -> bool:
    """Whether a file, a name, a command or a variable of the environment exists."""
    if named.startswith("OPSIN_"):
        return named.partition("=")[0] in (SOURCE / "config.py").read_text("utf-8")
    if command := re.match(r"opsin (\w+)$", named):
        return (SOURCE / f"cli/{command[1]}.py").is_file()
    if "/" in named or re.search(r"\.(py|md|js|toml|txt)$", named):
        return any(ROOT.glob(named)) or any(any(folder.rglob(named)) for folder in (SOURCE, ROOT / "tests"))
    return re.fullmatch(r"[\w.]+", named) is not None and all(name in DEFINED for name in named.split("."))


@pytest.mark.parametrize("named", NAMED)
def test_what_the_page_names_exists(named: str) -> None:
    commands = (
        "opsin --help",
        "pip install .",
        'error_model="numpy"',
        "general.sampling.*",
        "clip.audio.projector_type",
    )
    assert named in OTHERS or named in commands or is_there(named), named


def test_what_does_not_exist_is_seen() -> None:
    for named in (
        "Shelf",
        "Engine.enlist",
        "serve/gate.py",
        "OPSIN_SHELF",
        "opsin shelve",
        "tests/models/test_*_hats.py",
    ):
        assert not is_there(named), named


def test_the_layers_are_those_that_the_linter_holds() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    held = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    layers = [{name.strip().removeprefix("opsin.") for name in re.split(r"[|:]", layer)} for layer in held]
    chain = next(line for line in PAGE.splitlines() if line.startswith("cli -> "))
    assert [{name.strip() for name in layer.split("|")} for layer in chain.split("->")] == layers


def test_every_room_has_its_line() -> None:
    rooms = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").is_file()}
    assert rooms <= set(re.findall(r"^\| `(\w+)`", PAGE, flags=re.MULTILINE))
