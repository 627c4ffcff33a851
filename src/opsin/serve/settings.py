"""llama-server's generation_settings: what holds of a request, or of the server's defaults, by all of its names."""

from __future__ import annotations

from typing import Any, Final

from opsin.api import Sampling
from opsin.serve.generation_request import GenerationRequest

LONG: Final = ("dry_sequence_breakers", "stop", "logit_bias", "grammar", "grammar_triggers", "preserved_tokens")
_ANY_SEED: Final = (1 << 32) - 1  # llama-server's word for a random one


def settings_of(request: GenerationRequest) -> dict[str, Any]:
    """What holds of one request."""
    sampling, report, ending = request.sampling, request.report, request.ending
    most = -1 if sampling.max_tokens is None else sampling.max_tokens
    return {
        **sampling_settings(sampling),
        "stop": list(ending.stop),
        "max_tokens": most,
        "n_predict": most,
        "n_keep": report.keep,
        "n_discard": report.discard,
        "n_indent": ending.lines.indent,
        "t_max_predict_ms": -1 if ending.lines.seconds is None else round(1000 * ending.lines.seconds),
        "stream": request.stream,
        **_held(),
        "chat_format": "Content-only",
        "reasoning_format": "none",
        "reasoning_in_content": False,
        "generation_prompt": "",
        "speculative.types": "none",
        "timings_per_token": report.timings,
        "backend_sampling": False,
        "lora": [],
    }


def short_settings_of(request: GenerationRequest) -> dict[str, Any]:
    """The same without what may be long, as /props and /slots tell it."""
    return {name: value for name, value in settings_of(request).items() if name not in LONG}


def sampling_settings(sampling: Sampling) -> dict[str, Any]:
    """How tokens are chosen."""
    return {
        "seed": _ANY_SEED if sampling.seed is None else sampling.seed,
        "temperature": sampling.temperature,
        "dynatemp_range": 0.0,
        "dynatemp_exponent": 1.0,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "top_n_sigma": -1.0,
        "xtc_probability": 0.0,
        "xtc_threshold": 0.1,
        "typical_p": 1.0,
        "repeat_last_n": 64,
        "repeat_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "dry_multiplier": 0.0,
        "dry_base": 1.75,
        "dry_allowed_length": 2,
        "dry_penalty_last_n": 64,
        "dry_sequence_breakers": ["\n", ":", '"', "*"],
        "mirostat": 0,
        "mirostat_tau": 5.0,
        "mirostat_eta": 0.1,
        "adaptive_target": -1.0,
        "adaptive_decay": 0.9,
        "ignore_eos": sampling.ignore_eos,
        "logit_bias": [],
        "n_probs": sampling.logprobs or 0,
        "min_keep": 0,
        "samplers": ["top_k", "temperature", "min_p", "top_p"],
        "post_sampling_probs": False,
    }


def _held() -> dict[str, Any]:
    """What form an answer is held to."""
    return {"grammar": "", "grammar_lazy": False, "grammar_triggers": [], "preserved_tokens": []}
