"""Files of API keys: a key a line, with a name and limits where an operator wants them.

`sk-1`, or `bob: sk-2 at-once=4 per-minute=60`. Lines of white space and those that begin with # are none, as in
llama-server's files. No line is ever told: it may hold a key.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from opsin.errors import RequestError

if TYPE_CHECKING:
    from opsin.serve.keys import ApiKey

_LIMITS = ("at-once", "per-minute")


def read_keys(path: Path) -> Iterator[ApiKey]:
    """The keys of a file. Raises RequestError for one that holds none, or a line that is none."""
    found = 0
    for number, line in enumerate(_lines(path), 1):
        if line and not line.startswith("#"):
            found += 1
            yield _read(line, f"{path}, line {number}")
    if not found:
        raise RequestError(f"{path} holds no key")


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except OSError as error:
        raise RequestError(f"cannot read keys from {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RequestError(f"{path} is no text", hint="write a key a line, as UTF-8") from None


def _read(line: str, place: str) -> ApiKey:
    from opsin.serve.keys import ApiKey

    name, colon, rest = line.partition(":")
    if not (colon and rest[:1].isspace()):
        name, rest = "", line
    secret, *limits = rest.split() or [""]
    given: dict[str, int] = {}
    for limit in limits:
        word, equals, number = limit.partition("=")
        if word not in _LIMITS or not equals or not (number.isascii() and number.isdecimal()) or len(number) > 9:
            raise RequestError(
                f"{place}: what stands behind the key is no limit",
                hint="give at-once=N or per-minute=N; a comment has a line of its own, after #",
            )
        given[word.replace("-", "_")] = int(number)
    key = ApiKey(secret, name.strip(), given.get("at_once"), given.get("per_minute"))
    key.check(place)
    return key
