"""What lies in the folder of a `WeightCache`: its shelves, a folder for each model, to be told and taken away."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import Final

from opsin.ops.device import KeptModel

FOOT: Final = Struct("<32sQ224p16s8s")  # key, bytes of strips, label, digest of that and the sums, magic
ENDING, PART, _SHELF = ".strips", ".part-", re.compile("[0-9a-f]{32}")
READ: Final = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"))


def kept_models(folder: Path) -> list[KeptModel]:
    """What lies in a cache's folder, the longest unused first; what is not of a cache is not told."""
    found = []
    for shelf in _shelves(folder):
        files = list(_files(shelf))
        sizes, label = 0, ""
        for path in files:
            with suppress(OSError):  # somebody else took it away
                sizes += path.lstat().st_size
                label = label or _label_of(path)
        with suppress(OSError):
            found.append(KeptModel(str(shelf), label, len(files), sizes, shelf.stat().st_mtime))
    return sorted(found, key=lambda kept: kept.used)


def remove(shelf: Path) -> int:
    """Take a model's files away; how many bytes they had. Processes that have mapped them keep them until they end."""
    count = take_away(_files(shelf))
    with suppress(OSError):  # something else is there as well
        shelf.rmdir()
    return count


def take_away(paths: Iterable[Path]) -> int:
    """Files that others may take away as well; how many bytes those had that were there."""
    count = 0
    for path in paths:
        with suppress(OSError):
            size = path.lstat().st_size
            path.unlink()
            count += size
    return count


def _shelves(folder: Path) -> Iterator[Path]:
    with suppress(OSError):
        for path in folder.iterdir():
            if _SHELF.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                yield path


def _files(shelf: Path) -> Iterator[Path]:
    with suppress(OSError):
        for path in shelf.iterdir():
            if path.name.endswith(ENDING) or path.name.startswith(PART):
                yield path


def _label_of(path: Path) -> str:
    with os.fdopen(os.open(path, READ), "rb") as file:
        file.seek(-FOOT.size, os.SEEK_END)
        return foot_label(file.read(FOOT.size))


def foot_label(foot: bytes) -> str:
    """What a foot says of whose tensor it is."""
    said: bytes = FOOT.unpack(foot)[2]
    return said.decode(errors="replace")
