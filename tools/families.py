"""docs/families.md and the families in README.md: from the files of models/, and from figures that tests recorded.

    python tools/families.py             # whether both pages say what there is; exits with 1 if not
    python tools/families.py --write     # write them
    python tools/families.py --measure   # run the comparisons with transformers, and record tests/models/figures.json

A family's file says of itself who it is (its docstring up to the first colon) and whom it is held against ("Oracle:").
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from family_lines import count

ROOT = Path(__file__).parents[1]
MODELS, TESTS = ROOT / "src" / "opsin" / "models", ROOT / "tests" / "models"
PAGE, README, FIGURES = ROOT / "docs" / "families.md", ROOT / "README.md", TESTS / "figures.json"
# What is recorded: the column, and the test that measures it.
KINDS = {
    "logits": "test_logits_equal_transformers",
    "embeddings": "test_embeddings_equal_transformers",
    "embeddings, f16": "test_embeddings_from_halves_are_near",
}
BOUNDS = {"logits": 1e-4, "embeddings": 1e-4, "embeddings, f16": 5e-3}
HEAD = """# Families

`python tools/families.py --write` makes this page from `src/opsin/models/` and from figures that the tests recorded
(`--measure`); a test compares. [adding-a-model-family.md](adding-a-model-family.md) says how one comes to stand here.

`lines` are those that somebody had to think out: no blank lines, comments, docstrings, imports, rules of conversion
(`tools/family_lines.py`). Files are read under llama.cpp's names for architectures and projectors; "none" stands for
the oldest files, which name no projector.

"""
PROVEN = """
## What is proven

On small random models, saved by transformers {version} and written by hand or converted, whose settings show mistakes.
The largest difference as a share of the largest value, of all sizes and conversations that are tried: conversations
with no, one and three pictures, whole, in pieces, row by row, in company and after a prefix. Pixels of the PIL
processors are the same within 1e-5.

"""


@dataclass(frozen=True)
class Family:
    """What a file says of itself."""

    stem: str
    name: str
    oracle: str
    lines: int
    architectures: tuple[str, ...]
    projectors: tuple[str, ...]
    audio: tuple[str, ...]  # projectors of sound
    is_text: bool  # there are models of it that see nothing
    hears: bool
    embeds: bool  # there are models of it that do nothing else


def families() -> list[Family]:
    """All of them, in the order of their files."""
    return [_family(path) for path in sorted(MODELS.glob("*.py")) if path.stem != "__init__"]


def _family(path: Path) -> Family:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    said = " ".join((ast.get_docstring(tree) or "").split())
    oracle = re.search(r"Oracles?: (?:transformers' )?(.*?)(?:\.(?= |$)|$)", said)
    assert ":" in said and oracle is not None, f"{path}: its docstring says neither who it is nor its oracle"
    encoders = _keys(tree, "TEXT_ENCODERS")
    return Family(
        path.stem, said.split(":")[0], oracle[1], count(text), (*_keys(tree, "DECODERS"), *encoders),
        _keys(tree, "ENCODERS"), _keys(tree, "AUDIO_ENCODERS"),
        any("ForCausalLM" in word for word in _words(tree)), bool(_keys(tree, "HEARERS")),
        bool(encoders),
    )  # fmt: skip


def _words(tree: ast.Module) -> list[str]:
    """Texts of a module that are code, as names of checkpoints' classes are."""
    found = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return [word for word in found if isinstance(word, str) and " " not in word]


def _keys(tree: ast.Module, table: str) -> tuple[str, ...]:
    """The keys of a dictionary that a module holds under this name."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and ast.unparse(node.targets[0]) == table:
            return tuple(ast.literal_eval(key) for key in node.value.keys if key is not None)
    return ()


def page(found: list[Family], figures: Mapping[str, object]) -> str:
    """docs/families.md."""
    rows = ["| family | lines | architecture | projector | held against transformers' |", "|---|---:|---|---|---|"]
    for family in found:
        link = f"[{family.name}](../src/opsin/models/{family.stem}.py)"
        names = (_listed(family.architectures), _listed(tuple(dict.fromkeys((*family.projectors, *family.audio)))))
        rows.append(f"| {link} | {family.lines} | {names[0]} | {names[1]} | {family.oracle} |")
    measured = figures["families"]
    assert isinstance(measured, Mapping)
    proven = ["| family | " + " | ".join(f"{kind} (at most {BOUNDS[kind]:.0e})" for kind in KINDS) + " |"]
    proven.append("|---|" + "---:|" * len(KINDS))
    for family in found:
        values = measured.get(family.stem, {})
        cells = (f"{values[kind]:.1e}" if kind in values else "" for kind in KINDS)
        proven.append(f"| {family.name} | " + " | ".join(cells) + " |")
    return HEAD + "\n".join(rows) + "\n" + PROVEN.format(version=figures["transformers"]) + "\n".join(proven) + "\n"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" if name else "none" for name in names)


def readme(text: str, found: list[Family]) -> str:
    """README.md with its table of families."""
    named = {
        "text": [family.name for family in found if family.is_text],
        "pictures": [family.name for family in found if family.projectors],
        "sound": [family.name for family in found if family.hears or family.audio],
        "embeddings of text": [family.name for family in found if family.embeds],
    }
    rows = "\n".join(f"| {kind} | {'; '.join(names)} |" for kind, names in named.items())
    table = f"<!-- families -->\n| | families |\n|---|---|\n{rows}\n<!-- /families -->"
    assert text.count("<!-- families -->") == text.count("<!-- /families -->") == 1
    return re.sub(r"<!-- families -->.*<!-- /families -->", lambda _: table, text, flags=re.DOTALL)


def measure() -> None:
    """Run the tests that compare, and keep what they find."""
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "figures.json"
        command = [sys.executable, "-m", "pytest", "-q", str(TESTS), "-k", " or ".join(KINDS.values())]
        subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "OPSIN_TEST_FIGURES": str(raw)})
        kept = gathered(json.loads(raw.read_text()))
    FIGURES.write_text(json.dumps({"transformers": transformers.__version__, "families": kept}, indent=1) + "\n")


def gathered(raw: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Of each family the largest figure of each kind, from those of single tests."""
    found = families()
    homes: dict[str, str] = {}
    for path in TESTS.glob("*_truth.py"):
        named = _keys(ast.parse(path.read_text(encoding="utf-8")), "TOWERS")
        homes |= dict.fromkeys(named, path.stem.removesuffix("_truth"))
    # Who reads an architecture is its home, also where a tower of another family stands before it.
    homes |= {name: family.stem for family in found for name in family.architectures}
    homes |= {family.stem: family.stem for family in found}
    kept: dict[str, dict[str, float]] = {}
    for test, value in raw.items():
        file, function, parameters = re.fullmatch(r".*/test_(\w+)\.py::(\w+)(?:\[(.*)\])?", test).groups()  # type: ignore[union-attr]
        kind = next((kind for kind, name in KINDS.items() if name == function), None)
        words = [*_runs((parameters or "").split("-")), file, file.removesuffix("_vision")]
        home = next((homes[word] for word in words if word in homes), None)
        if kind and home:
            family = kept.setdefault(home, {})
            family[kind] = float(f"{max(value, family.get(kind, 0.0)):.2g}")
    return {stem: kept[stem] for stem in sorted(kept)}


def _runs(words: list[str]) -> list[str]:
    """Words that stand together, the most first: names of families may have a hyphen."""
    sizes = range(len(words), 0, -1)
    return ["-".join(words[at : at + size]) for size in sizes for at in range(len(words) - size + 1)]


def main() -> int:
    """Measure, write or compare."""
    if "--measure" in sys.argv[1:]:
        measure()
    found, said = families(), README.read_text(encoding="utf-8")
    wanted = {PAGE: page(found, json.loads(FIGURES.read_text())), README: readme(said, found)}
    if "--write" in sys.argv[1:]:
        for path, text in wanted.items():
            path.write_text(text, encoding="utf-8")
        return 0
    old = [path for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in old:
        print(f"{path.relative_to(ROOT)} does not say what there is: python tools/families.py --write")
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main())
