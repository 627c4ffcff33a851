"""Stands where llama-server's tests look for the program: puts a model of ours in the place of theirs, and starts it.

    python shim.py llama-server|opsin PROGRAM MODELS.json [llama-server's arguments]

MODELS.json says which files stand for which repository of the hub; beside it lie a hub's cache and a list for servers
of several models. For opsin, `--ctx-size`, which llama-server
shares out among its places for answers, is said for one of them, and pictures from this machine are allowed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

SLOTS = 4  # of llama-server, unless it is told otherwise


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
    if not repo:  # it is named, or there are several
        return kept
    chosen = next((value for key, value in files.items() if key in repo), None)
    if chosen is None:
        raise SystemExit(f"no model of ours stands for {repo}")
    without = "--no-mmproj" in kept or len(chosen) == 1
    return [*kept, "--model", chosen[0], *([] if without else ["--mmproj", chosen[1]])]


def for_opsin(arguments: Sequence[str], routed: Path) -> list[str]:
    """The arguments as `opsin serve` means them: the context of one answer, pictures from this machine."""
    kept = list(arguments)
    if not {"--model", "--models-preset"} & set(kept):
        kept += ["--models", str(routed)]
    if "--ctx-size" in kept and "--kv-unified" not in kept:
        places = int(kept[kept.index("--parallel") + 1]) if "--parallel" in kept else SLOTS
        at = kept.index("--ctx-size") + 1
        kept[at] = str(int(kept[at]) // places)
    return [*kept, "--allow-private-media"]


def main() -> None:
    """Become the server."""
    kind, program, table, *arguments = sys.argv[1:]
    arguments = models(arguments, json.loads(Path(table).read_text(encoding="utf-8")))
    folder = Path(table).parent
    if kind == "llama-server":
        os.environ["LLAMA_CACHE"] = str(folder / "hub")
        os.execv(program, [program, "--threads", "1", *arguments])  # two would wait for each other on a busy machine
    command = [program, "serve", *for_opsin(arguments, folder / "routed.toml")]
    print("shim:", " ".join(command), flush=True)
    os.execv(program, command)


if __name__ == "__main__":
    main()
