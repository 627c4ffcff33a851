"""Flags that say how tokens are chosen, called as llama.cpp's: those of `Sampling`, which knows their ranges."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from opsin.cli.request_flags import bias, listed, number, whole


class _Flag(NamedTuple):
    """Names as they are typed, the option of `Sampling`, how one value is read, what it is for."""

    names: str
    option: str
    read: Callable[[str], object]
    help: str
    is_repeatable: bool = False


_FLAGS: Final = (
    _Flag("--temperature --temp", "temperature", number, "0 takes the likeliest token (default: the model's, or 0.8)"),
    _Flag("--top-k", "top_k", whole, "keep the X likeliest; 0: all (default: the model's, or 40)"),
    _Flag("--top-p", "top_p", number, "keep the likeliest that sum to X (default: the model's, or 0.95)"),
    _Flag("--min-p", "min_p", number, "keep X times the best's share (default: the model's, or 0.05)"),
    _Flag("--seed", "seed", whole, "repeatable random choices"),
    _Flag("--repeat-penalty", "repeat_penalty", number, "make tokens that were seen less likely; 1: not"),
    _Flag("--presence-penalty", "presence_penalty", number, "take X from logits of tokens that were seen"),
    _Flag("--frequency-penalty", "frequency_penalty", number, "take X for each time that they were seen"),
    _Flag("--repeat-last-n", "repeat_last_n", whole, "of the last X tokens (64); -1: of all"),
    _Flag("--dry-multiplier", "dry_multiplier", number, "keep runs of tokens from being said again; 0: not"),
    _Flag("--dry-base", "dry_base", number, "the longer the run, the more (1.75)"),
    _Flag("--dry-allowed-length", "dry_allowed_length", whole, "a run that may be said again (2)"),
    _Flag("--dry-penalty-last-n", "dry_penalty_last_n", whole, "among the last X tokens (64); -1: all"),
    _Flag("--dry-sequence-breaker", "dry_sequence_breakers", str, "no run reaches across it; none: nothing", True),
    _Flag("--top-nsigma --top-n-sigma", "top_n_sigma", number, "keep X standard deviations; 0: all"),
    _Flag("--typical --typical-p", "typical_p", number, "keep typical tokens up to X; 1: all"),
    _Flag("--xtc-probability", "xtc_probability", number, "how often to leave out likely tokens; 0: never"),
    _Flag("--xtc-threshold", "xtc_threshold", number, "from which probability they are likely (0.1)"),
    _Flag("--dynatemp-range", "dynatemp_range", number, "let the temperature lie X around; 0: fixed"),
    _Flag("--dynatemp-exp", "dynatemp_exponent", number, "how the entropy is bent for that (1)"),
    _Flag("--mirostat", "mirostat", whole, "1 or 2 in place of all but the temperature; 0: not"),
    _Flag("--mirostat-ent", "mirostat_tau", number, "the surprise that it holds, in bits (5)"),
    _Flag("--mirostat-lr", "mirostat_eta", number, "how fast (0.1)"),
    _Flag("--adaptive-target", "adaptive_target", number, "the probability that adaptive_p steers for"),
    _Flag("--adaptive-decay", "adaptive_decay", number, "how slowly it forgets (0.9)"),
    _Flag("--samplers", "samplers", listed, "which act, in which order, with ; between them"),
    _Flag("--sampler-seq --sampling-seq", "samplers", str, 'the same as letters: "edskypmxt"'),
    _Flag("-l --logit-bias", "logit_bias", bias, "ID+X, ID-X or ID-inf: added to its logit", True),
)


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Options for all of them, in a group of their own."""
    group = parser.add_argument_group("sampling")
    for flag in _FLAGS:
        group.add_argument(
            *flag.names.split(), dest=flag.option, type=flag.read, action="append" if flag.is_repeatable else "store",
            metavar="X", help=flag.help,
        )  # fmt: skip


def sampling_options(args: argparse.Namespace) -> dict[str, Any]:
    """What was asked of sampling; refused before a model is loaded."""
    from opsin.engine.sampling import Sampling

    names = dict.fromkeys([*(flag.option for flag in _FLAGS), "max_tokens", "ignore_eos"])
    given = {name: getattr(args, name) for name in names}
    asked = {name: value for name, value in given.items() if value is not None}
    if asked.get("dry_sequence_breakers") == ["none"]:
        asked["dry_sequence_breakers"] = []
    Sampling(**asked)
    return asked
