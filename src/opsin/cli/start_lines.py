"""Start lines of llama-server: what becomes of each of its flags and `LLAMA_ARG_*` here, in one table.

A flag is taken where this server has the thing, accepted with one line on stderr where leaving it aside changes no
answer, and refused with what to do where somebody would miss it. Taken ones are ordinary options (`serve.py`) and stand
here by name alone; the others are added to the parser, and to nobody's help.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from opsin.cli.request_flags import REQUEST_FLAGS, RequestFlag
from opsin.cli.start_table import ACCEPTED, REFUSED, TAKEN
from opsin.errors import RequestError

Verdict = Literal["taken", "accepted", "refused"]
_PREFIX: Final = "LLAMA_ARG_"
ON: Final = ("1", "true", "on", "enabled")
OFF: Final = ("0", "false", "off", "disabled")
_SAID: Final = "said_of_flags"  # of a namespace: flags that were accepted, and why nothing is lost


@dataclass(frozen=True)
class Flag:
    """One of llama-server's flags.

    Attributes:
        names: as they are typed.
        values: how many follow.
        variable: of the environment; "" for none.
        says: why nothing is lost, or what to do instead.
        harmless: values that ask for nothing.
    """

    names: tuple[str, ...]
    verdict: Verdict
    values: int = 0
    variable: str = ""
    says: str = ""
    harmless: tuple[str, ...] = ()


@cache
def flags() -> tuple[Flag, ...]:
    """All of llama-server's flags."""
    return (
        *(_read(line, "accepted", says) for says, lines in ACCEPTED.items() for line in lines.strip().splitlines()),
        *(_read(line, "refused", says) for says, lines in REFUSED.items() for line in lines.strip().splitlines()),
        *(_read(line, "taken", "") for line in TAKEN.strip().splitlines()),
        *(_of(flag) for flag in REQUEST_FLAGS),
    )


def _of(flag: RequestFlag) -> Flag:
    return Flag(flag.names, "taken", int(flag.read is not None), flag.variable and _PREFIX + flag.variable)


def _read(line: str, verdict: Verdict, says: str) -> Flag:
    """`-x --long N = VARIABLE unless a b`: names, a capital a value, its variable, values that ask for nothing."""
    line, _, harmless = line.partition(" unless ")
    words, _, variable = line.partition(" = ")
    names = tuple(word for word in words.split() if word.startswith("-"))
    values = len(words.split()) - len(names)
    variable = variable.strip()
    return Flag(names, verdict, values, variable and _PREFIX + variable, says, tuple(harmless.split()))


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Let a parser read the flags that it has no option for."""
    for flag in flags():
        if flag.verdict != "taken":
            parser.add_argument(
                *flag.names, action=_Aside, nargs=flag.values, flag=flag, dest=_SAID, default=None,
                help=argparse.SUPPRESS,
            )  # fmt: skip


class _Aside(argparse.Action):
    """A flag that sets nothing: said once, or the end."""

    def __init__(self, *args: Any, flag: Flag, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._flag = flag

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, name: str | None = None
    ) -> None:
        """Raises RequestError where it is refused."""
        assert name is not None
        said = leave(self._flag, name, [str(value) for value in values])
        if said is None:
            raise RequestError(f"{name}: {self._flag.says}")
        setattr(namespace, _SAID, {**(getattr(namespace, _SAID) or {}), **said})


def leave(flag: Flag, name: str, values: list[str]) -> dict[str, str] | None:
    """What to say of a flag that is left aside, by its name; None where it is refused."""
    if values and all(value in flag.harmless for value in values):
        return {}
    return None if flag.verdict == "refused" else {name: flag.says}


def said(args: argparse.Namespace) -> list[str]:
    """A line for all flags of the command line that were left aside for one reason."""
    return list(spoken(getattr(args, _SAID, None) or {}))


def spoken(left: Mapping[str, str]) -> Iterator[str]:
    """A line for each reason, with the names of what is left aside for it."""
    for why in dict.fromkeys(left.values()):
        yield f"{', '.join(name for name in left if left[name] == why)}: {why}"


def leave_variables(variables: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """What to say of variables that set nothing here, and the names of those that nobody knows.

    Raises RequestError, naming the first that is refused.
    """
    known = {flag.variable: flag for flag in flags() if flag.variable}
    told: dict[str, str] = {}
    unknown = []
    for name, value in sorted(variables.items()):
        flag = known.get(name)
        if flag is None:
            unknown.append(name)
            continue
        if flag.values == 0 and value.strip().lower() in OFF:
            flag = known.get(name.replace(_PREFIX, _PREFIX + "NO_"))  # its contrary is what is asked for
        if flag is None or flag.verdict == "taken" or not value.strip():
            continue
        leaving = leave(flag, name, [value] if flag.values else [])
        if leaving is None:
            raise RequestError(f"{name} is set: {flag.says}", hint="or unset it")
        told |= leaving
    return told, unknown
