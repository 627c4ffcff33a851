"""Rules about the tree that no linter knows: lengths, twins, classes, names, docstrings.

    python tools/check.py [ROOT]        # prints what breaks a rule, and exits with 1 if anything does

lengths     a file of src/ has at most 400 lines, one of kernels 500; a function 60, one of kernels 100. A function
            inside another counts by itself.
twins       no two functions or classes of 8 lines and more have the same body.
classes     no public class name stands twice in the package: one word, one class. Families may have
            classes of one name (Projector), if nobody else has it.
names       a family's name stands only in its own file of models/ (and in text/, whose tables are keyed by the names
            that files use). The names are those of the files of models/ and of the architectures they list. A name
            that stands in another family's may stand in that family's file. A class of transformers may be called after
            a family ("XForY"), and one family's file may import from another's. Of projectors, whose names may be
            ordinary words, only a string that is the whole name counts.
docstrings  a module that holds anything says what it is.
threads     a file of engine/ says on which thread it runs, in a line of its docstring that begins with "Thread:".
clocks      no test asserts what a clock says: machines are busy now and then. Speed is measured in bench/.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

FILE_LINES, KERNEL_FILE_LINES = 400, 500
FUNCTION_LINES, KERNEL_FUNCTION_LINES = 60, 100
TWIN_LINES = 8
SOURCES = ("src", "tools", "bench")  # tests and training may repeat themselves
PACKAGE = Path("src/opsin")
KERNELS = (PACKAGE / "ops/cpu/kernels", PACKAGE / "ops/cpu/simd.py", PACKAGE / "ops/cpu/dots.py")
FAMILIES = PACKAGE / "models"
MAY_NAME_FAMILIES = (PACKAGE / "text",)

# What is too long today and may not grow: path, or path and function, with its lines. To be emptied.
RATCHET: dict[str, int] = {}

# What follows a family's name in words that mean a project's programs, formats and environment variables, or a setting
# that checkpoints of others have.
OTHER_WORDS = (
    ".cpp",
    "Spec",
    "_cpp",
    "-cpp",
    "cpp:",
    "-server",
    "-assistant",
    "file",
    "_ARG_",
    "_API_KEY",
    "_MEDIA_MARKER",
    "_CHAT_TEMPLATE",
    "_4_scaling_beta",
    "-20b-default",  # a flag of llama-server
    "-120b-default",
)

# Names of projects in which a family's name is only letters.
OTHER_NAMES = re.compile(r"ollama", re.IGNORECASE)

# Classes of checkpoints, which several families' files may have to name, and what one family takes from another.
CLASS = re.compile(r"\b[A-Z]\w*For[A-Z]\w+")
IMPORT = re.compile(r"from opsin\.models\.\w+ import ")

Function = ast.FunctionDef | ast.AsyncFunctionDef
Scope = Function | ast.ClassDef


@dataclass(frozen=True)
class Source:
    """A Python file: its path from the root, its text and its tree."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def is_kernel(self) -> bool:
        """Whether the longer limits of kernels hold."""
        return any(self.path.is_relative_to(kernels) for kernels in KERNELS)

    def scopes(self) -> Iterator[Scope]:
        """Functions and classes, at any depth."""
        return (node for node in self.nodes if isinstance(node, Scope))

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """The tree's nodes, walked once for all rules."""
        return list(ast.walk(self.tree))


def read(root: Path, folders: tuple[str, ...] = SOURCES) -> list[Source]:
    """All Python files of some folders."""
    paths = sorted(path for folder in folders for path in (root / folder).rglob("*.py"))
    texts = [(path.relative_to(root), path.read_text(encoding="utf-8")) for path in paths]
    return [Source(path, text, ast.parse(text, str(path))) for path, text in texts]


def lengths(sources: list[Source], ratchet: dict[str, int]) -> Iterator[str]:
    """Files and functions that are too long."""
    for source in sources:
        most = KERNEL_FILE_LINES if source.is_kernel else FILE_LINES
        count = len(source.text.splitlines())
        if count > ratchet.get(str(source.path), most):
            yield f"{source.path}: {count} lines, at most {most}"
        most = KERNEL_FUNCTION_LINES if source.is_kernel else FUNCTION_LINES
        for node in source.scopes():
            name = f"{source.path}:{node.name}"
            if isinstance(node, Function) and own_lines(node) > ratchet.get(name, most):
                yield f"{source.path}:{node.lineno}: {node.name} has {own_lines(node)} lines, at most {most}"


def own_lines(node: Function) -> int:
    """Lines of a function, its docstring and the functions inside it left out."""
    inner = [child for child in _nested(node) if isinstance(child, Scope)]
    text = node.body[0] if ast.get_docstring(node, clean=False) is not None else None
    return _lines(node) - sum(map(_lines, inner)) - (_lines(text) if text is not None else 0)


def _nested(node: ast.AST) -> Iterator[ast.AST]:
    """What lies inside, down to the nearest functions and classes."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, Scope):
            yield from _nested(child)


def _lines(node: ast.stmt | ast.AST) -> int:
    assert isinstance(node, ast.stmt)
    decorators = node.decorator_list if isinstance(node, Scope) else []
    first = min([node.lineno, *(d.lineno for d in decorators)])
    return (node.end_lineno or first) - first + 1


def twins(sources: list[Source]) -> Iterator[str]:
    """Bodies that were copied. Names of the functions themselves and docstrings do not count."""
    seen: dict[str, str] = {}
    for source in sources:
        for node in source.scopes():
            body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
            if not body or (body[-1].end_lineno or 0) - body[0].lineno + 1 < TWIN_LINES:
                continue
            key = type(node).__name__ + "".join(ast.dump(statement) for statement in body)
            place = f"{source.path}:{node.lineno}: {node.name}"
            if key in seen:
                yield f"{place} is a copy of {seen[key]}"
            seen.setdefault(key, place)


def classes(sources: list[Source]) -> Iterator[str]:
    """Public names that several classes of the package have."""
    seen: dict[str, tuple[Path, int]] = {}
    for source in sources:
        if not source.path.is_relative_to(PACKAGE):
            continue
        for node in source.scopes():
            if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
                continue
            path, line = seen.setdefault(node.name, (source.path, node.lineno))
            families = path != source.path and path.parent == source.path.parent == FAMILIES
            if (path, line) != (source.path, node.lineno) and not families:
                yield f"{source.path}:{node.lineno}: class {node.name} stands in {path}:{line}, too"


def names(sources: list[Source]) -> Iterator[str]:
    """Families named outside their own files, in code, strings or comments."""
    families = family_names(sources)
    if not families:
        return
    words = re.compile("|".join(sorted(map(re.escape, families), key=len, reverse=True)), re.IGNORECASE)
    for source in sources:
        if not source.path.is_relative_to(PACKAGE) or any(map(source.path.is_relative_to, MAY_NAME_FAMILIES)):
            continue
        own = {name for name, home in families.items() if home == source.path}
        own |= {name for name in families if any(name in mine for mine in own)}
        is_family = source.path.parent == FAMILIES
        for number, line in enumerate(OTHER_NAMES.sub("", source.text).splitlines(), 1):
            if is_family:
                line = CLASS.sub("", "" if IMPORT.match(line) else line)
            for found in words.finditer(line):
                name = found.group().lower()
                # The programs, formats and environment variables of that project are no model family.
                if name in own or line[found.end() :].startswith(OTHER_WORDS):
                    continue
                yield f"{source.path}:{number}: names {name}, which belongs into {families[name]}"


def projectors(sources: list[Source]) -> Iterator[str]:
    """Projectors named outside the files that list them, as projectors or as architectures of the same name."""
    listed = [source for source in sources if source.path.parent == FAMILIES]
    homes: dict[str, set[Path]] = {key: set() for source in listed for key in _listed(source, "ENCODERS") if key}
    for source in listed:
        for key in homes.keys() & {*_listed(source, "ENCODERS"), *_listed(source, "DECODERS")}:
            homes[key].add(source.path)
    for source in sources:
        if not source.path.is_relative_to(PACKAGE) or any(map(source.path.is_relative_to, MAY_NAME_FAMILIES)):
            continue
        for node in source.nodes:
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
                continue
            name = node.value
            if source.path not in homes.get(name, {source.path}):
                yield f"{source.path}:{node.lineno}: names projector {name}, which belongs into {min(homes[name])}"


def family_names(sources: list[Source]) -> dict[str, Path]:
    """Each name of a family, and the file that it belongs to."""
    found: dict[str, Path] = {}
    for source in sources:
        if source.path.parent != FAMILIES or source.path.stem.startswith("_"):
            continue
        found[source.path.stem.lower()] = source.path
        found |= {key.lower(): source.path for key in _listed(source, "DECODERS")}
    return found


def _listed(source: Source, table: str) -> list[str]:
    """The keys of a dictionary that a module holds under this name."""
    found: list[str] = []
    for node in source.tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            keys = [k.value for k in node.value.keys if isinstance(k, ast.Constant) and isinstance(k.value, str)]
            if any(isinstance(t, ast.Name) and t.id == table for t in node.targets):
                found += keys
    return found


def docstrings(sources: list[Source]) -> Iterator[str]:
    """Modules that do not say what they are."""
    for source in sources:
        if source.tree.body and not ast.get_docstring(source.tree):
            yield f"{source.path}: no docstring"


def threads(sources: list[Source]) -> Iterator[str]:
    """Files of the engine that do not say whose thread runs them."""
    for source in sources:
        if source.path.parent == PACKAGE / "engine" and source.tree.body:
            lines = (ast.get_docstring(source.tree) or "").splitlines()
            if not any(line.startswith("Thread: ") for line in lines):
                yield f"{source.path}: does not say on which thread it runs (a line 'Thread: ...' in its docstring)"


CLOCKS = {"monotonic", "perf_counter", "process_time", "thread_time", "time", "times", "getrusage"}


def clocks(tests: list[Source]) -> Iterator[str]:
    """Assertions of tests that read a clock."""
    for source in tests:
        if not source.path.name.startswith("test_"):
            continue
        for node in source.nodes:
            if not isinstance(node, ast.Assert):
                continue
            called = [call.func for call in ast.walk(node.test) if isinstance(call, ast.Call)]
            if any(isinstance(name, ast.Attribute) and name.attr in CLOCKS for name in called):
                yield f"{source.path}:{node.lineno}: asserts what a clock says"


def modules(tests: list[Source]) -> Iterator[str]:
    """What pytest would not find or mix up: it imports tests by their bare names, a folder on the path at a time."""
    homes: dict[str, list[Path]] = {}
    for source in tests:
        if source.path.name != "conftest.py":
            homes.setdefault(source.path.stem, []).append(source.path)
    for name, paths in homes.items():
        if name.startswith("test_") and len(paths) > 1:
            yield f"{paths[1]}: {paths[0]} has this name, too"
    openers = {source.path.stem for source in tests if "sys.path" in source.text}  # they put folders on the path
    for source in tests:
        if any(word in source.text for word in ("sys.path", *openers)):
            continue
        for node in source.nodes:
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
            for home in (homes[name][0].parent for name in names if name in homes):
                if home not in source.path.parents:
                    yield f"{source.path}:{node.lineno}: imports from {home}, which is not on its path"


def check(root: Path, ratchet: dict[str, int] | None = None) -> list[str]:
    """All that breaks a rule."""
    sources = read(root)
    tests = read(root, ("tests",))
    return [
        *lengths(sources, RATCHET if ratchet is None else ratchet),
        *twins(sources),
        *classes(sources),
        *names(sources),
        *projectors(sources),
        *docstrings([*sources, *tests]),
        *threads(sources),
        *clocks(tests),
        *modules(tests),
    ]


def main() -> int:
    """Check the tree that this file stands in, or another one."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    broken = check(root)
    for line in broken:
        print(line)
    if not broken:
        print("tools/check.py: all rules hold")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
