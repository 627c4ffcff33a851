"""llama-server's INI of several models (`--models-preset`): a section a model, and `[*]` for all of them.

A key is a flag's name without dashes, short or long, or its variable. Files are looked for from where the server runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from configparser import ConfigParser, Error
from functools import cache
from pathlib import Path
from typing import Final

from opsin.cli.start_lines import OFF, ON, Flag, flags
from opsin.errors import FileError

_HEAD: Final = "\0"  # no section's name: what holds for all goes before the others, whatever its keys are called
_TOP: Final = "\1"  # the section of what stands before all others: a version
# When models come and go is decided here, and what a hub's cache holds is not listed.
_ASIDE: Final = ("load-on-startup", "stop-timeout", "dedup-cache-models")


def preset_sections(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The name of each model, and its part of a command line. Raises FileError."""
    read = ConfigParser(default_section=_HEAD, interpolation=None, delimiters=("=",))
    try:
        read.read_string(f"[{_TOP}]\n{path.read_text(encoding='utf-8')}")
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from None
    except (Error, UnicodeDecodeError) as error:
        what = str(error).splitlines()[0]
        raise FileError(f"{path} is no INI: {what}", hint="write [name] and below it model = file.gguf") from None
    usual = [*read["*"].items()] if "*" in read else []
    for name in read.sections():
        if name not in (_TOP, "*"):
            items = [(key, value) for key, value in (*usual, *read[name].items()) if key not in _ASIDE]
            words = [word for key, value in items for word in _words(key, value)]
            is_named = any(word.startswith(("--model=", "--hf-repo=")) for word in words)
            yield name, words if is_named or "/" not in name else [*words, f"--hf-repo={name}"]


@cache
def _flags() -> dict[str, Flag]:
    found = {name.lstrip("-"): flag for flag in flags() for name in flag.names}
    return found | {flag.variable.lower(): flag for flag in flags() if flag.variable}


def _words(key: str, value: str) -> list[str]:
    flag, says = _flags().get(key), value.lower()
    name = f"--{key}" if flag is None else max(flag.names, key=len)
    takes_none = flag.values == 0 if flag is not None else says in ("true", "false", "on", "off")
    if takes_none and says in (*ON, *OFF):
        return [name] if says in ON else []
    return [f"{name}={value}"]
