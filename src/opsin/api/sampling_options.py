"""Options of sampling as keywords, so that a wrong one is a type error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypedDict

from opsin.engine.sampling import Sampling
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


def sampling_from(base: Sampling, options: Mapping[str, object]) -> Sampling:
    """`base`, but for what the options say. Raises RequestError for one that there is not."""
    known = Sampling.__dataclass_fields__
    wrong = [name for name in options if name not in known]
    if wrong:
        raise RequestError(f"{wrong[0]} is no option of sampling", hint=", ".join(known))
    return replace(base, **options)  # type: ignore[arg-type]
