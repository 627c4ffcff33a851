"""Stands where llama-server's tests look for the program: puts a model of ours in the place of theirs, and starts it.

    python shim.py llama-server|opsin PROGRAM MODELS.json [llama-server's arguments]

MODELS.json says which files stand for which repository of the hub. For opsin, `--ctx-size`, which llama-server
shares out among its places for answers, is said for one of them; pictures from this machine are allowed; and options
that `opsin serve` does not know are left out, with a line that says so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def models(arguments: Sequence[str], files: dict[str, list[str]]) -> list[str]:
    """The arguments with files in the place of a repository on the hub."""
    kept, repo, rest = [], "", list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--hf-repo":
            repo = rest.pop(0)
        elif word == "--hf-file":
            repo += "/" + rest.pop(0)
        elif word != "--offline":
            kept.append(word)
    if not repo:
        return kept
    chosen = next((value for key, value in files.items() if key in repo), None)
    if chosen is None:
        raise SystemExit(f"no model of ours stands for {repo}")
    without = "--no-mmproj" in kept or len(chosen) == 1
    return [*kept, "--model", chosen[0], *([] if without else ["--mmproj", chosen[1]])]


def for_opsin(arguments: Sequence[str], known: frozenset[str]) -> list[str]:
    """The arguments that `opsin serve` knows, and the context of one answer."""
    kept: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        values = [rest.pop(0)] if rest and not rest[0].startswith("--") else []
        if word in known:
            kept += [word, *values]
        else:
            print(f"shim: left out {word} {' '.join(values)}", flush=True)
    if "--ctx-size" in kept and "--kv-unified" not in arguments:
        at = kept.index("--ctx-size") + 1
        places = int(arguments[arguments.index("--parallel") + 1]) if "--parallel" in arguments else 4
        kept[at] = str(int(kept[at]) // places)
    return [*kept, "--allow-private-media"]


def options_of(program: str) -> frozenset[str]:
    """The long options of `opsin serve`, by asking it."""
    shown = subprocess.run([program, "serve", "--help"], capture_output=True, text=True, check=True).stdout
    words = shown.replace(",", " ").replace("[", " ").replace("]", " ").split()
    return frozenset(word for word in words if word.startswith("-"))


def main() -> None:
    """Become the server."""
    kind, program, table, *arguments = sys.argv[1:]
    arguments = models(arguments, json.loads(Path(table).read_text(encoding="utf-8")))
    if kind == "llama-server":
        os.execv(program, [program, *arguments])
    command = [program, "serve", *for_opsin(arguments, options_of(program))]
    print("shim:", " ".join(command), flush=True)
    os.execv(program, command)


if __name__ == "__main__":
    main()
