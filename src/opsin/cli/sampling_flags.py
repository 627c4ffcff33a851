"""Flags that say how tokens are chosen, called as llama.cpp's: those of `Sampling`, which knows their ranges."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final, NamedTuple

_BIAS_HINT: Final = "give ID+NUMBER, ID-NUMBER or ID-inf"


class SamplingFlag(NamedTuple):
    """Names as they are typed, the option of `Sampling`, how one value is read, what it is for."""

    names: str
    option: str
    read: Callable[[str], object]
    help: str
    is_repeatable: bool = False


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


SAMPLING_FLAGS: Final = (
    SamplingFlag(
        "--temperature --temp", "temperature", number, "0 takes the likeliest token (default: the model's, or 0.8)"
    ),
    SamplingFlag("--top-k", "top_k", whole, "keep the X likeliest; 0: all (default: the model's, or 40)"),
    SamplingFlag("--top-p", "top_p", number, "keep the likeliest that sum to X (default: the model's, or 0.95)"),
    SamplingFlag("--min-p", "min_p", number, "keep X times the best's share (default: the model's, or 0.05)"),
    SamplingFlag("--seed", "seed", whole, "repeatable random choices"),
    SamplingFlag("--repeat-penalty", "repeat_penalty", number, "make tokens that were seen less likely; 1: not"),
    SamplingFlag("--presence-penalty", "presence_penalty", number, "take X from logits of tokens that were seen"),
    SamplingFlag("--frequency-penalty", "frequency_penalty", number, "take X for each time that they were seen"),
    SamplingFlag("--repeat-last-n", "repeat_last_n", whole, "of the last X tokens (64); -1: of all"),
    SamplingFlag("--dry-multiplier", "dry_multiplier", number, "keep runs of tokens from being said again; 0: not"),
    SamplingFlag("--dry-base", "dry_base", number, "the longer the run, the more (1.75)"),
    SamplingFlag("--dry-allowed-length", "dry_allowed_length", whole, "a run that may be said again (2)"),
    SamplingFlag("--dry-penalty-last-n", "dry_penalty_last_n", whole, "among the last X tokens (64); -1: all"),
    SamplingFlag("--dry-sequence-breaker", "dry_sequence_breakers", str, "no run reaches over it; none: nothing", True),
    SamplingFlag("--top-nsigma --top-n-sigma", "top_n_sigma", number, "keep X standard deviations; 0: all"),
    SamplingFlag("--typical --typical-p", "typical_p", number, "keep typical tokens up to X; 1: all"),
    SamplingFlag("--xtc-probability", "xtc_probability", number, "how often to leave out likely tokens; 0: never"),
    SamplingFlag("--xtc-threshold", "xtc_threshold", number, "from which probability they are likely (0.1)"),
    SamplingFlag("--dynatemp-range", "dynatemp_range", number, "let the temperature lie X around; 0: fixed"),
    SamplingFlag("--dynatemp-exp", "dynatemp_exponent", number, "how the entropy is bent for that (1)"),
    SamplingFlag("--mirostat", "mirostat", whole, "1 or 2 in place of all but the temperature; 0: not"),
    SamplingFlag("--mirostat-ent", "mirostat_tau", number, "the surprise that it holds, in bits (5)"),
    SamplingFlag("--mirostat-lr", "mirostat_eta", number, "how fast (0.1)"),
    SamplingFlag("--adaptive-target", "adaptive_target", number, "the probability that adaptive_p steers for"),
    SamplingFlag("--adaptive-decay", "adaptive_decay", number, "how slowly it forgets (0.9)"),
    SamplingFlag("--samplers", "samplers", listed, "which act, in which order, with ; between them"),
    SamplingFlag("--sampler-seq --sampling-seq", "samplers", str, 'the same as letters: "edskypmxt"'),
    SamplingFlag("-l --logit-bias", "logit_bias", bias, "ID+X, ID-X or ID-inf: added to its logit", True),
)


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Options for all of them, in a group of their own."""
    group = parser.add_argument_group("sampling")
    for flag in SAMPLING_FLAGS:
        group.add_argument(
            *flag.names.split(), dest=flag.option, type=flag.read, action="append" if flag.is_repeatable else "store",
            metavar="X", help=flag.help,
        )  # fmt: skip


def sampling_options(args: argparse.Namespace) -> dict[str, Any]:
    """What was asked of sampling; refused before a model is loaded."""
    from opsin.engine.sampling import Sampling

    names = dict.fromkeys([*(flag.option for flag in SAMPLING_FLAGS), "max_tokens", "ignore_eos"])
    given = {name: getattr(args, name) for name in names}
    asked = {name: meant(name, value) for name, value in given.items() if value is not None}
    Sampling(**asked)
    return asked


def meant(option: str, value: Any) -> Any:
    """What a flag's value says: a breaker of runs called none is that there are none."""
    return [] if option == "dry_sequence_breakers" and value == ["none"] else value
