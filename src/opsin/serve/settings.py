"""llama-server's generation_settings: what holds of a request, or of the server's defaults, by all of its names."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, Final

from opsin.api import Sampling
from opsin.serve.generation_request import GenerationRequest

LONG: Final = (
    "dry_sequence_breakers",
    "stop",
    "logit_bias",
    "grammar",
    "grammar_lazy",
    "grammar_triggers",
    "preserved_tokens",
)
_TOLD: Final = (
    "temperature", "dynatemp_range", "dynatemp_exponent", "top_k", "top_p", "min_p", "top_n_sigma", "xtc_probability",
    "xtc_threshold", "typical_p", "repeat_last_n", "repeat_penalty", "presence_penalty", "frequency_penalty",
    "dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n", "mirostat", "mirostat_tau",
    "mirostat_eta", "adaptive_target", "adaptive_decay", "ignore_eos", "min_keep", "post_sampling_probs",
)  # fmt: skip
_ANY_SEED: Final = (1 << 32) - 1  # llama-server's word for a random one


def settings_of(request: GenerationRequest, guesses: Sequence[str], ends: Collection[int] = ()) -> dict[str, Any]:
    """What holds of one request. `guesses` are what guesses tokens ahead, `ends` ids that end an answer."""
    sampling, report, ending = request.sampling, request.report, request.ending
    most = -1 if sampling.max_tokens is None else sampling.max_tokens
    ignored = [_bias(id, -math.inf) for id in sorted(ends)] if sampling.ignore_eos else []
    return {
        **sampling_settings(sampling),
        "logit_bias": [*(_bias(token, bias) for token, bias in sampling.biases), *ignored],
        "stop": list(ending.stop),
        "max_tokens": most,
        "n_predict": most,
        "n_keep": report.n_keep,
        "n_discard": report.n_discard,
        "n_indent": ending.lines.indent,
        "t_max_predict_ms": -1 if ending.lines.seconds is None else round(1000 * ending.lines.seconds),
        "stream": request.stream,
        **_held(),
        "chat_format": "Content-only",
        "reasoning_format": "none",
        "reasoning_in_content": False,
        "generation_prompt": "",
        "speculative.types": ",".join(guesses) or "none",
        "timings_per_token": report.timings_per_token,
        "backend_sampling": False,
        "lora": [],
    }


def short_settings_of(request: GenerationRequest, guesses: Sequence[str]) -> dict[str, Any]:
    """The same without what may be long, as /props and /slots tell it."""
    return {name: value for name, value in settings_of(request, guesses).items() if name not in LONG}


def sampling_settings(sampling: Sampling) -> dict[str, Any]:
    """How tokens are chosen."""
    told = {name: getattr(sampling, name) for name in _TOLD}
    return {
        **told,
        "seed": _ANY_SEED if sampling.seed is None else sampling.seed,
        "dry_sequence_breakers": list(sampling.dry_sequence_breakers),
        "n_probs": sampling.logprobs or 0,
        "samplers": list(sampling.samplers),
    }


def _bias(token: int | str, bias: float) -> dict[str, int | str | float | None]:
    """null is minus infinity, as JSON makes it."""
    return {"token": token, "bias": bias if bias > -math.inf else None}


def _held() -> dict[str, Any]:
    """What form an answer is held to."""
    return {"grammar": "", "grammar_lazy": False, "grammar_triggers": [], "preserved_tokens": []}
