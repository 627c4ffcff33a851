"""Options of sampling as keywords, so that a wrong one is a type error."""

from __future__ import annotations

from typing import TypedDict


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
