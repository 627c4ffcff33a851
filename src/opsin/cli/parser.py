"""How all subcommands read their options: by whole names, with values that stand apart or behind `=`.

argparse takes `-n 64` for the beginning of `-np 64` and `-ctk x` for `-c tk x`. Here an option that nobody knows is
refused under the name that was typed.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

_NUMBER = re.compile(r"-\.?\d")


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that neither completes names nor cuts values off them. Its subparsers are of its kind."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.allow_abbrev = False

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Ends the process with 2, naming the first option that there is not."""
        given = [self._dashed(word) for word in (sys.argv[1:] if args is None else args)]
        for name in self._names(given):
            if name not in self._option_string_actions:
                self.error(f"there is no option {name!r}{self._remedy(name)}")
        known, rest = super().parse_known_args(given, namespace)
        if rest and self._subparsers is None:
            self.error(f"there is no place for {rest[0]!r}; see {self.prog} --help")
        return known, rest

    def _dashed(self, word: str) -> str:
        """`--n_predict` is `--n-predict`, as llama-server has it."""
        name, equals, value = word.partition("=")
        dashed = name.replace("_", "-")
        strange = name.startswith("--") and name not in self._option_string_actions
        return dashed + equals + value if strange and dashed in self._option_string_actions else word

    def _print_message(self, message: str, file: Any = None) -> None:
        """argparse drops what cannot be written; `main` says so."""
        (file or sys.stderr).write(message)

    def _names(self, given: list[str]) -> Iterator[str]:
        """What argparse holds for options among the arguments of this parser, without their values."""
        for argument in given:
            if argument == "--" or (self._subparsers is not None and not argument.startswith("-")):
                return  # what follows are values, or for a subcommand to read
            if argument.startswith("-") and argument != "-" and " " not in argument and not _NUMBER.match(argument):
                yield argument.partition("=")[0]

    def _remedy(self, name: str) -> str:
        short, value = name[:2], name[2:]
        if short in self._option_string_actions and value.isdecimal():
            return f"; write {short} {value}"
        near = difflib.get_close_matches(
            name, [known for known in self._option_string_actions if len(known) > 3], 1, 0.8
        )
        return f"; did you mean {near[0]}?" if near and len(name) > 3 else f"; see {self.prog} --help"
