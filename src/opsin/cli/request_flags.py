"""llama-server's flags for sampling: what requests take where they say nothing, under the names of their fields.

A flag is `--temp 0.7` for a request's `temperature: 0.7`; whether the value can be taken, the field says.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from opsin.cli.sampling_flags import SAMPLING_FLAGS, meant, whole

_HELP: Final = {
    "n_predict": "tokens of an answer; -1: no limit",
    "stop": "a text that ends an answer (repeatable)",
    **{name: f"its {name}" for name in ("temperature", "top_k", "top_p", "min_p", "seed")},
}

# llama-server reads these from variables, too
_OF_VARIABLES: Final = {
    "temperature", "top_k", "top_p", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty",
}  # fmt: skip


@dataclass(frozen=True)
class RequestFlag:
    """Attributes: names as they are typed; the request's field; how one value is read; the variable, or ""."""

    names: tuple[str, ...]
    field: str
    read: Callable[[str], object] | None
    variable: str = ""
    repeatable: bool = False

    @property
    def option(self) -> str:
        """Its place in a namespace."""
        return f"default_{self.field}" if self.names[0] != "--sampler-seq" else "default_sampler_letters"


REQUEST_FLAGS: Final = (
    RequestFlag(("-n", "--predict", "--n-predict"), "n_predict", whole, "N_PREDICT"),
    RequestFlag(("-r", "--reverse-prompt"), "stop", str, repeatable=True),
    *(
        RequestFlag(
            (*(("-s",) if flag.option == "seed" else ()), *flag.names.split()),
            flag.option, flag.read, flag.option.upper() if flag.option in _OF_VARIABLES else "", flag.is_repeatable,
        )
        for flag in SAMPLING_FLAGS
    ),
    RequestFlag(("--ignore-eos",), "ignore_eos", None),
    RequestFlag(("-v", "--verbose", "--log-verbose"), "verbose", None),
)  # fmt: skip


def add_request_flags(parser: argparse.ArgumentParser) -> None:
    """Options for all of them, in a group of their own."""
    group = parser.add_argument_group(
        "what a request takes where it says nothing (default: as the model's file)",
        "Beside these llama-server's other flags of samplers, which are called as a request's fields.",
    )
    for flag in REQUEST_FLAGS:
        if flag.read is None:
            group.add_argument(*flag.names, dest=flag.option, action="store_true", default=None, help=argparse.SUPPRESS)
            continue
        group.add_argument(
            *flag.names, dest=flag.option, type=flag.read, action="append" if flag.repeatable else "store",
            metavar="X", help=_HELP.get(flag.field, argparse.SUPPRESS),
        )  # fmt: skip


def request_defaults(args: argparse.Namespace) -> dict[str, Any]:
    """What the command line says, as fields of a request."""
    return dict(_given(args))


def _given(args: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    for flag in REQUEST_FLAGS:
        value = getattr(args, flag.option, None)
        if value is not None:
            yield flag.field, meant(flag.field, value)
