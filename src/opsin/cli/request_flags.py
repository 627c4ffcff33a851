"""llama-server's flags for sampling: what requests take where they say nothing, under the names of their fields.

A flag is `--temp 0.7` for a request's `temperature: 0.7`; whether the value can be taken, the field says.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

_HELP: Final = {
    "n_predict": "tokens of an answer; -1: no limit",
    "stop": "a text that ends an answer (repeatable)",
    **{name: f"its {name}" for name in ("temperature", "top_k", "top_p", "min_p", "seed")},
}
_BIAS_HINT: Final = "give ID+NUMBER, ID-NUMBER or ID-inf"


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


def whole(text: str) -> int:
    """A whole number of any sign."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def number(text: str) -> float:
    """A number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def listed(text: str) -> list[str]:
    """Names between semicolons."""
    return [name.strip() for name in text.split(";") if name.strip()]


def bias(text: str) -> list[object]:
    """`15043+1`, `15043-1` or `15043-inf`: a token's id and what is added to its logit; false: never chosen."""
    for sign in "+-":
        id, found, amount = text.partition(sign)
        if found and id.strip().isdecimal():
            value = number(sign + amount)
            return [int(id), False if value == float("-inf") else value]
    raise argparse.ArgumentTypeError(f"{text!r} is no bias ({_BIAS_HINT})")


REQUEST_FLAGS: Final = (
    RequestFlag(("-n", "--predict", "--n-predict"), "n_predict", whole, "N_PREDICT"),
    RequestFlag(("-r", "--reverse-prompt"), "stop", str, repeatable=True),
    RequestFlag(("--temp", "--temperature"), "temperature", number, "TEMPERATURE"),
    RequestFlag(("--top-k",), "top_k", whole, "TOP_K"),
    RequestFlag(("--top-p",), "top_p", number, "TOP_P"),
    RequestFlag(("--min-p",), "min_p", number, "MIN_P"),
    RequestFlag(("-s", "--seed"), "seed", whole),
    RequestFlag(("--ignore-eos",), "ignore_eos", None),
    RequestFlag(("-v", "--verbose", "--log-verbose"), "verbose", None),
    RequestFlag(("--samplers",), "samplers", listed),
    RequestFlag(("--sampler-seq", "--sampling-seq"), "samplers", str),
    RequestFlag(("--top-nsigma", "--top-n-sigma"), "top_n_sigma", number),
    RequestFlag(("--xtc-probability",), "xtc_probability", number),
    RequestFlag(("--xtc-threshold",), "xtc_threshold", number),
    RequestFlag(("--typical", "--typical-p"), "typical_p", number),
    RequestFlag(("--repeat-last-n",), "repeat_last_n", whole),
    RequestFlag(("--repeat-penalty",), "repeat_penalty", number, "REPEAT_PENALTY"),
    RequestFlag(("--presence-penalty",), "presence_penalty", number, "PRESENCE_PENALTY"),
    RequestFlag(("--frequency-penalty",), "frequency_penalty", number, "FREQUENCY_PENALTY"),
    RequestFlag(("--dry-multiplier",), "dry_multiplier", number),
    RequestFlag(("--dry-base",), "dry_base", number),
    RequestFlag(("--dry-allowed-length",), "dry_allowed_length", whole),
    RequestFlag(("--dry-penalty-last-n",), "dry_penalty_last_n", whole),
    RequestFlag(("--dry-sequence-breaker",), "dry_sequence_breakers", str, repeatable=True),
    RequestFlag(("--adaptive-target",), "adaptive_target", number),
    RequestFlag(("--adaptive-decay",), "adaptive_decay", number),
    RequestFlag(("--dynatemp-range",), "dynatemp_range", number),
    RequestFlag(("--dynatemp-exp",), "dynatemp_exponent", number),
    RequestFlag(("--mirostat",), "mirostat", whole),
    RequestFlag(("--mirostat-lr",), "mirostat_eta", number),
    RequestFlag(("--mirostat-ent",), "mirostat_tau", number),
    RequestFlag(("-l", "--logit-bias"), "logit_bias", bias, repeatable=True),
)


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
            yield flag.field, [] if flag.field == "dry_sequence_breakers" and value == ["none"] else value
