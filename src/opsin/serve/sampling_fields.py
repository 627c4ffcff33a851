"""Fields that say how tokens are chosen, in the names that llama-server, OpenAI's clients and vLLM give them."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from msgspec import Meta

from opsin.api import Sampling
from opsin.errors import FieldError
from opsin.serve.fields import Fields, unbuilt

_LARGEST_SEED = (1 << 64) - 1


class SamplingFields(Fields, kw_only=True):
    """How tokens are chosen. What is left open is as the model's file recommends."""

    temperature: (
        Annotated[float, Meta(ge=0, le=100, description="Divides logits; 0 takes the likeliest token.")] | None
    ) = None
    top_k: (
        Annotated[int, Meta(ge=-1, le=1 << 31, description="Keep so many likeliest tokens; 0 and -1 keep all.")] | None
    ) = None
    top_p: (
        Annotated[float, Meta(description="Keep the likeliest tokens whose probabilities sum to it, 0 to 1.")] | None
    ) = None
    min_p: (
        Annotated[
            float, Meta(description="Keep tokens of at least this share of the likeliest one's probability, 0 to 1.")
        ]
        | None
    ) = None
    seed: (
        Annotated[
            int,
            Meta(
                ge=-(1 << 63),
                description="The same gives the same answer; -1 for a random one.",
                extra={"hint": f"give {-(1 << 63)} to {_LARGEST_SEED}"},
            ),
        ]
        | None
    ) = None
    ignore_eos: Annotated[bool, Meta(description="Go on past the model's end of an answer.")] = False
    logit_bias: Annotated[Any, unbuilt({}, [])] = None
    presence_penalty: Annotated[Any, unbuilt(0)] = None
    frequency_penalty: Annotated[Any, unbuilt(0)] = None
    repeat_penalty: Annotated[Any, unbuilt(1)] = None
    repetition_penalty: Annotated[Any, unbuilt(1)] = None
    encoder_repetition_penalty: Annotated[Any, unbuilt(1)] = None
    no_repeat_ngram_size: Annotated[Any, unbuilt(0)] = None
    penalty_alpha: Annotated[Any, unbuilt(0)] = None
    dry_multiplier: Annotated[Any, unbuilt(0)] = None
    dynatemp_range: Annotated[Any, unbuilt(0)] = None
    dynamic_temperature: Annotated[Any, unbuilt(False)] = None
    smoothing_factor: Annotated[Any, unbuilt(0)] = None
    mirostat: Annotated[Any, unbuilt(0)] = None
    mirostat_mode: Annotated[Any, unbuilt(0)] = None
    top_n_sigma: Annotated[Any, unbuilt(-1)] = None
    top_a: Annotated[Any, unbuilt(0)] = None
    tfs_z: Annotated[Any, unbuilt(1)] = None
    typical_p: Annotated[Any, unbuilt(1)] = None
    epsilon_cutoff: Annotated[Any, unbuilt(0)] = None
    eta_cutoff: Annotated[Any, unbuilt(0)] = None
    xtc_probability: Annotated[Any, unbuilt(0)] = None
    adaptive_target: Annotated[Any, unbuilt(-1)] = None
    min_keep: Annotated[Any, unbuilt(0, 1)] = None
    samplers: Annotated[Any, unbuilt(["top_k", "temperature", "min_p", "top_p"])] = None
    do_sample: Annotated[Any, unbuilt(True, send="temperature: 0")] = None
    use_beam_search: Annotated[Any, unbuilt(False)] = None
    num_beams: Annotated[Any, unbuilt(1)] = None
    length_penalty: Annotated[Any, unbuilt(1)] = None
    early_stopping: Annotated[Any, unbuilt(False)] = None
    guidance_scale: Annotated[Any, unbuilt(1)] = None
    negative_prompt: Annotated[Any, unbuilt("")] = None
    watermark: Annotated[Any, unbuilt(False)] = None
    allowed_token_ids: Annotated[Any, unbuilt([])] = None
    bad_words: Annotated[Any, unbuilt([])] = None
    logits_processors: Annotated[Any, unbuilt([])] = None
    min_tokens: Annotated[Any, unbuilt(0)] = None
    min_length: Annotated[Any, unbuilt(0)] = None
    random_seed: Annotated[Any, unbuilt(send="seed")] = None
    stop_token_ids: Annotated[Any, unbuilt([])] = None


def sampling_of(fields: SamplingFields, base: Sampling, *, max_tokens: int | None, logprobs: int | None) -> Sampling:
    """`base` is what holds where the fields say nothing. Raises FieldError, naming the field."""
    if fields.seed is not None and fields.seed > _LARGEST_SEED:
        raise FieldError("seed", f"{fields.seed} is out of range", hint=f"give -1 to {_LARGEST_SEED}")
    top_p, min_p = (None if p is None else min(max(p, 0.0), 1.0) for p in (fields.top_p, fields.min_p))
    options: dict[str, Any] = {
        "temperature": fields.temperature,
        "top_k": None if fields.top_k is None else max(0, fields.top_k),
        "top_p": top_p,
        "min_p": min_p,
        "max_tokens": max_tokens,
        "seed": None if fields.seed is None or fields.seed == -1 else fields.seed % (1 << 64),
        "ignore_eos": fields.ignore_eos,
        "logprobs": logprobs,
    }
    return replace(base, **{name: value for name, value in options.items() if value is not None})
