"""Options of sampling as keywords, so that a wrong one is a type error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypedDict

from opsin.engine.sampling import Bias, Processor, Sampling
from opsin.errors import RequestError


class SamplingOptions(TypedDict, total=False):
    """Those of `Sampling`, which says what they mean; a test compares the two."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    seed: int | None
    max_tokens: int | None
    ignore_eos: bool
    logprobs: int | None
    post_sampling_probs: bool
    typical_p: float
    top_n_sigma: float
    dynatemp_range: float
    dynatemp_exponent: float
    xtc_probability: float
    xtc_threshold: float
    repeat_penalty: float
    presence_penalty: float
    frequency_penalty: float
    repeat_last_n: int
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_penalty_last_n: int
    dry_sequence_breakers: Sequence[str]
    mirostat: int
    mirostat_tau: float
    mirostat_eta: float
    adaptive_target: float
    adaptive_decay: float
    samplers: Sequence[str]
    min_keep: int
    logit_bias: Mapping[int | str, float | bool] | Sequence[Bias]
    min_tokens: int
    stop_token_ids: Sequence[int]
    bad_words: Sequence[str]
    allowed_token_ids: Sequence[int]
    processors: Sequence[Processor]


def sampling_from(base: Sampling, options: Mapping[str, object]) -> Sampling:
    """`base`, but for what the options say. Raises RequestError for one that there is not."""
    known = Sampling.__dataclass_fields__
    wrong = [name for name in options if name not in known]
    if wrong:
        raise RequestError(f"{wrong[0]} is no option of sampling", hint=", ".join(known))
    return replace(base, **options)  # type: ignore[arg-type]
