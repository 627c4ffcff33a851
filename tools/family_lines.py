"""Lines of a family's file that somebody has to think out: what a new family costs.

    python tools/family_lines.py [FILE ...]        # a table of src/opsin/models, or of these files

Left out are blank lines, comments, docstrings, imports, and what says how files of others become ours: RULES, DIALECTS,
and what only these need.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

MODELS = Path(__file__).parents[1] / "src" / "opsin" / "models"


def count(text: str) -> int:
    """Lines of code in a family's file."""
    tree = ast.parse(text)
    rules = conversion_rules(tree)
    left_out: set[int] = set()
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom) or _is_type_checking(node) or node in rules:
            left_out.update(_lines(node))
    for inner in ast.walk(tree):
        if isinstance(inner, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(inner, clean=False):
            left_out.update(_lines(inner.body[0]))
    written = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    return sum(bool(line) and not line.startswith("#") and number not in left_out for number, line in written)


def conversion_rules(tree: ast.Module) -> set[ast.stmt]:
    """The statements of a file that make RULES and DIALECTS, and those that nothing else needs."""
    names = {node: set(_defined(node)) for node in tree.body}
    needs = {node: {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} - names[node] for node in tree.body}
    found = {node for node in tree.body if names[node] & {"RULES", "DIALECTS"}}
    while True:
        more = {node for node in tree.body if names[node] and node not in found and _serves(node, names, needs, found)}
        if not more:
            return found
        found |= more


def _serves(
    node: ast.stmt, names: dict[ast.stmt, set[str]], needs: dict[ast.stmt, set[str]], rules: set[ast.stmt]
) -> bool:
    """Whether rules need it, and nobody else."""
    users = [other for other, needed in needs.items() if other is not node and needed & names[node]]
    return bool(users) and all(user in rules for user in users)


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    for target in node.targets if isinstance(node, ast.Assign) else []:
        yield from (n.id for n in ast.walk(target) if isinstance(n, ast.Name))


def _is_type_checking(node: ast.stmt) -> bool:
    """What only type checkers import."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _lines(node: ast.stmt) -> range:
    decorators = node.decorator_list if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    return range(first, (node.end_lineno or first) + 1)


def main() -> int:
    """Print a line for each file: its lines of code, and all its lines."""
    paths = [Path(name) for name in sys.argv[1:]] or sorted(p for p in MODELS.glob("*.py") if p.stem != "__init__")
    for path in paths:
        text = path.read_text(encoding="utf-8")
        print(f"{path.stem:12} {count(text):4} of {len(text.splitlines()):4}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
