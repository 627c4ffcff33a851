"""What names of GGUF files say: the number format, whether it is a part for pictures, which split, which model."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Final

# The number format at an end of a name: f16, Q8_0, UD-Q4_K_XL, IQ2_XXS, and which split it is.
_FORMAT: Final = re.compile(
    r"[-_.]?(?:(?<![a-z0-9])(?P<format>(?:ud[-_.])?"
    r"(?:b?f16|fp16|f32|fp32|i?q\d+(?:_[a-z0-9]+)*|tq\d_\d|mxfp4(?:_[a-z]+)?))"
    r"|\d{5}-of-\d{5})(?![a-z0-9])"
)
_BESIDE: Final = re.compile(r"(?<![a-z])(?:imatrix|lora)(?![a-z])|^mtp-")  # llama.cpp's converter writes mtp-NAME.gguf
# F16 holds what towers need and is read as it is; Q8_0 is nearly as good; BF16 has three bits less than F16; F32 is
# twice as large for nothing that could be seen. Other formats come after these, those of more bits first.
BEST_FOR_VISION: Final = ("F16", "Q8_0", "BF16", "F32")


def kinship(text: str, vision: str) -> int:
    """What two file names say: 1 for one model, 0 for nothing (mmproj-F16.gguf), -1 for two models."""
    own, other = _words(text), _words(vision)
    if not own or not other:
        return 0
    least = min(len(own), len(other))
    return 1 if own[:least] == other[:least] or own[-least:] == other[-least:] else -1


def _words(name: str) -> list[str]:
    """The parts of a name that name the model."""
    stem = _FORMAT.sub("", name.lower().removesuffix(".gguf").replace("mmproj", "-"))
    return [word for word in re.split(r"[-_.\s]+", stem) if word]


def number_format(name: str) -> str:
    """As it is written in capitals: Q4_K_M, UD-Q4_K_XL, F16; that of the folder, or "" where neither says one."""
    path = PurePath(name)
    for text in (path.name, path.parent.name):
        found = [match["format"] for match in _FORMAT.finditer(text.lower()) if match["format"]]
        if found:
            return str(found[-1]).replace("fp", "f").upper() if "mxfp" not in found[-1] else str(found[-1]).upper()
    return ""


def is_vision(name: str) -> bool:
    """By its name, as llama.cpp's users name such files."""
    return "mmproj" in PurePath(name).name.lower()


def is_beside(name: str) -> bool:
    """Whether it goes with a model and is none, by its name: statistics, adapters, the heads alone that guess ahead."""
    return _BESIDE.search(PurePath(name).name.lower()) is not None


def is_later_split(name: str) -> bool:
    """Whether it is named NAME-00002-of-00003.gguf or the like, and so no beginning."""
    parts = PurePath(name).stem.rsplit("-", 3)
    return len(parts) == 4 and parts[2] == "of" and parts[1].isdigit() and int(parts[1]) != 1


def splits(name: str, names: list[str]) -> list[str]:
    """All files of the model that begins in `name`, itself first."""
    found = re.fullmatch(r"(.*-)00001(-of-\d{5}\.gguf)", name, re.DOTALL)
    if found is None:
        return [name]
    rest = re.compile(re.escape(found[1]) + r"\d{5}" + re.escape(found[2]))
    return [name, *sorted(other for other in names if other != name and rest.fullmatch(other))]
