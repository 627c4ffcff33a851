"""How much house there is, and how much of it a request walks through: the figures by which it is kept small.

    python tools/measure_house.py            # the tree alone
    python tools/measure_house.py --requests # and one text and one picture request over HTTP to `opsin serve`;
                                             # --list names the functions

A request's functions, files and classes are those of src/opsin that any thread enters between the request and its first
logits: the first of its kind, and one after it ("warm"). A class counts where one of its methods runs. What is counted
varies by a few with how far other threads are by then.
"""

from __future__ import annotations

import ast
import base64
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "opsin"
CPU = "opsin.ops.cpu"
LOGITS = ("engine/runner.py", "Runner.step")  # what returns logits
PATIENCE = 300.0  # seconds; a first start compiles kernels
PICTURE = ROOT / "examples" / "scene.png"
# Runs `opsin serve` and notes what is entered while a signal lets it.
CHILD = """
import os, signal, sys, threading, json
package, out, logits = sys.argv[1], sys.argv[2], tuple(sys.argv[3:5])
seen, state = {}, {"on": False, "round": 0}

def look(frame, event, arg):
    if not state["on"] or event not in ("call", "return"):
        return
    code = frame.f_code
    if not code.co_filename.startswith(package):
        return
    key = (code.co_filename[len(package) + 1:], code.co_qualname)
    if event == "call":
        first = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        kind = first if isinstance(first, type) else type(first)
        seen[key] = kind.__qualname__ if kind.__module__.startswith("opsin.") else ""
    elif key == logits and arg is not None and len(arg.ids):
        state["on"] = False
        with open(out + ".part", "w") as file:
            json.dump([[*key, kind] for key, kind in list(seen.items())], file)
        os.rename(out + ".part", out)
        seen.clear()

threading.setprofile(look)
sys.setprofile(look)
signal.signal(signal.SIGUSR1, lambda *_: state.update(on=True))
from opsin.cli.main import main
sys.argv = ["opsin", *sys.argv[5:]]
sys.exit(main())
"""


def sources() -> dict[str, str]:
    """Modules of the package and their texts."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(("opsin", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        found[name] = path.read_text(encoding="utf-8")
    return found


def tree(texts: Mapping[str, str]) -> dict[str, object]:
    """Figures of the files alone."""
    lengths = [len(text.splitlines()) for text in texts.values()]
    trees = {name: ast.parse(text) for name, text in texts.items()}
    classes = Counter(
        node.name for name, parsed in trees.items() for node in ast.walk(parsed)
        if isinstance(node, ast.ClassDef) and not (node.name.startswith("_") or name.startswith("opsin.models."))
    )  # fmt: skip
    classes += Counter({  # families may repeat one another's
        node.name for name, parsed in trees.items() for node in ast.walk(parsed)
        if isinstance(node, ast.ClassDef) and name.startswith("opsin.models.")
    })  # fmt: skip
    imports = {name: set(_imports(parsed.body, name, trees)) for name, parsed in trees.items()}
    return {
        "files": len(lengths),
        "lines": sum(lengths),
        "median file": statistics.median(lengths),
        "longest file": max(lengths),
        "public class names that stand twice": sorted(name for name, count in classes.items() if count > 1),
        "files that name the CPU": sorted(name for name, parsed in trees.items() if _names_cpu(name, parsed)),
        "cycles when modules run": cycles(imports),
    }


def _names_cpu(name: str, parsed: ast.Module) -> bool:
    """Whether a module outside ops and api.loading imports the CPU, anywhere in it and for whatever end."""
    if name.startswith("opsin.ops") or name == "opsin.api.loading":
        return False
    for node in ast.walk(parsed):
        named = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        named += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if any(module == CPU or module.startswith(CPU + ".") for module in named):
            return True
    return False


def _imports(body: list[ast.stmt], name: str, known: Mapping[str, object]) -> Iterator[str]:
    """Modules of the package that run when this one does: not those that functions or type checkers import."""
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        for inner in _at_import(node):
            if isinstance(inner, ast.ImportFrom) and inner.module:
                submodules = [f"{inner.module}.{alias.name}" for alias in inner.names]
                found = [module for module in submodules if module in known] or [inner.module]
                yield from (module for module in found if module in known and module != name)
            if isinstance(inner, ast.Import):
                yield from (alias.name for alias in inner.names if alias.name in known)


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from _at_import(child)


def cycles(imports: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules of which each reaches each."""
    reached = {name: _reached(name, imports) for name in imports}
    groups = {tuple(sorted(m for m in reached[n] if n in reached[m])) for n in imports if n in reached[n]}
    return [list(group) for group in sorted(groups)]


def _reached(name: str, imports: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    left = [name]
    while left:
        more = imports[left.pop()] - found
        found |= more
        left += more
    return found


def requests(folder: Path) -> dict[str, dict[str, int]]:
    """What one text and one picture request to opsin-nano walk through."""
    out, port = folder / "seen.json", 8399
    subprocess.run([sys.executable, "-m", "opsin", "demo"], check=True, capture_output=True)  # compiles what is missing
    command = [sys.executable, "-c", CHILD, str(PACKAGE), str(out), *LOGITS, "serve", "--port", str(port)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait(lambda: _status(port) == 200)
        url = "data:image/png;base64," + base64.b64encode(PICTURE.read_bytes()).decode()
        asked = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "How many red circles?"}]
        contents = {
            "text, the first": "Hello", "text": "Who are you?", "picture, the first": asked,
            "picture": [*asked[:1], {"type": "text", "text": "What is blue?"}],
            "picture, not seen before": _other(asked),
        }  # fmt: skip
        return {kind: _walk(child, port, out, content) for kind, content in contents.items()}
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(PATIENCE)


def _other(asked: list[dict[str, object]]) -> list[dict[str, object]]:
    """The same question about another file."""
    other = base64.b64encode((ROOT / "examples" / "heart.png").read_bytes()).decode()
    return [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{other}"}}, *asked[1:]]


def _walk(child: subprocess.Popen[bytes], port: int, out: Path, content: object) -> dict[str, int]:
    """A request, watched."""
    out.unlink(missing_ok=True)
    os.kill(child.pid, signal.SIGUSR1)
    time.sleep(1.0)  # its handler runs between two instructions; and what the last request left is over
    _ask(port, content)
    _wait(out.is_file)
    seen = json.loads(out.read_text())
    named = [entry for entry in seen if not entry[1].rsplit(".", 1)[-1].startswith("<")]
    if "--list" in sys.argv[1:]:
        print("\n".join(sorted(f"    {file}: {name}" for file, name, _ in named)))
    return {
        "functions": len({(file, name) for file, name, _ in named}),
        "files": len({file for file, _, _ in seen}),
        "classes": len({kind for _, _, kind in seen if kind}),
    }


def _ask(port: int, content: object) -> None:
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 2, "temperature": 0}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    reply = connection.getresponse()
    said = reply.read()
    assert reply.status == 200, said
    connection.close()


def _status(port: int) -> int:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/health")
        return connection.getresponse().status
    except OSError:
        return 0


def _wait(condition: object) -> None:
    assert callable(condition)
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "the server does not answer"
        time.sleep(0.1)


def main() -> int:
    """Print all figures."""
    import tempfile

    for name, value in tree(sources()).items():
        if isinstance(value, list):
            print(f"{name}: {len(value)}" + "".join(f"\n    {entry}" for entry in value))
        else:
            print(f"{name}: {value}")
    if "--requests" in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            for kind, counts in requests(Path(folder)).items():
                print(f"{kind}: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
