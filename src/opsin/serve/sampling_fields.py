"""Fields that say how tokens are chosen, in the names that llama-server, OpenAI's clients and vLLM give them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final

from msgspec import Meta

from opsin.api import Sampling
from opsin.engine.sampling import (
    MOST_ALLOWED,
    MOST_BIASES,
    MOST_BREAKERS,
    MOST_ENDS,
    MOST_SAMPLERS,
    MOST_WORDS,
    Bias,
)  # fmt: skip
from opsin.errors import FieldError
from opsin.serve.fields import Fields, unbuilt

_LARGEST_SEED = (1 << 64) - 1
_MOST = 1 << 31
# Numbers that are moved into their range, as llama-server moves them; what it refuses, the fields refuse.
_MOVED: Final[Mapping[str, tuple[float, float]]] = {
    "temperature": (0, math.inf), "dynatemp_range": (0, math.inf), "top_k": (0, _MOST), "top_p": (0, 1),
    "min_p": (0, 1), "typical_p": (0, 1), "xtc_probability": (0, 1), "xtc_threshold": (0, 1), "mirostat": (0, 2),
    "adaptive_target": (-math.inf, 1),
}  # fmt: skip
_AS_THEY_STAND: Final = (
    "dynatemp_exponent", "top_n_sigma", "repeat_penalty", "presence_penalty", "frequency_penalty", "repeat_last_n",
    "dry_multiplier", "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers", "mirostat_tau",
    "mirostat_eta", "adaptive_decay", "samplers", "min_keep", "ignore_eos", "min_tokens", "stop_token_ids",
    "bad_words", "allowed_token_ids", "post_sampling_probs",
)  # fmt: skip


def _number(description: str, *, ge: float | None = None, le: float | None = None) -> Meta:
    return Meta(description=description, ge=ge, le=le)


_Id = Annotated[int, Meta(ge=0, le=_MOST)]
_Word = Annotated[str, Meta(min_length=1, max_length=1000)]
_Bias = float | bool


class SamplingFields(Fields, kw_only=True):
    """How tokens are chosen. What is left open is as the model's file recommends."""

    temperature: Annotated[float, _number("Divides logits; 0 takes the likeliest token.")] | None = None
    dynatemp_range: Annotated[float, _number("Let the temperature lie so far around, by the entropy.")] | None = None
    dynatemp_exponent: Annotated[float, _number("How the entropy is bent on the way.", ge=0, le=1e6)] | None = None
    top_k: (
        Annotated[int, _number("Keep so many likeliest tokens; 0 and less keep all.", ge=-_MOST, le=_MOST)] | None
    ) = None
    top_p: Annotated[float, _number("Keep the likeliest whose probabilities sum to it, 0 to 1.")] | None = None
    min_p: Annotated[float, _number("Keep those of this share of the likeliest's probability, 0 to 1.")] | None = None
    typical_p: Annotated[float, _number("Keep the most typical ones up to this probability; 1 keeps all.")] | None = (
        None
    )
    top_n_sigma: (
        Annotated[float, _number("Keep those within so many standard deviations of the largest logit; 0: all.")] | None
    ) = None
    xtc_probability: Annotated[float, _number("How often to leave out all likely ones but one.")] | None = None
    xtc_threshold: Annotated[float, _number("From which probability a token is likely; above 0.5: none.")] | None = None
    repeat_penalty: Annotated[float, _number("Divides positive logits of tokens seen before; 1: none.")] | None = None
    repetition_penalty: (
        Annotated[float, _number("The same, of the whole text unless repeat_last_n says otherwise.")] | None
    ) = None
    presence_penalty: Annotated[float, _number("Is taken from logits of tokens seen before.")] | None = None
    frequency_penalty: Annotated[float, _number("Is taken from them for each time.")] | None = None
    repeat_last_n: (
        Annotated[int, _number("How many last tokens penalties look at; -1: all, 0: none.", ge=-1, le=_MOST)] | None
    ) = None
    dry_multiplier: Annotated[float, _number("How strongly no run of tokens is said again; 0: not.")] | None = None
    dry_base: Annotated[float, _number("What that grows with; below 1 counts as not given.")] | None = None
    dry_allowed_length: Annotated[int, _number("A run that may be said again.", ge=0, le=_MOST)] | None = None
    dry_penalty_last_n: (
        Annotated[int, _number("How many last tokens it looks at; -1: all, 0: none.", ge=-1, le=_MOST)] | None
    ) = None
    dry_sequence_breakers: (
        Annotated[list[_Word], Meta(max_length=MOST_BREAKERS, description="Texts that no run reaches across.")] | None
    ) = None
    mirostat: (
        Annotated[int, _number("1 or 2: hold surprise constant, in place of samplers.", ge=-_MOST, le=_MOST)] | None
    ) = None
    mirostat_mode: Annotated[int, _number("The same.", ge=-_MOST, le=_MOST)] | None = None
    mirostat_tau: Annotated[float, _number("Which surprise, in bits.")] | None = None
    mirostat_eta: Annotated[float, _number("How fast to steer for it.")] | None = None
    adaptive_target: (
        Annotated[float, _number("The probability that tokens shall have, where samplers names adaptive_p.")] | None
    ) = None
    adaptive_decay: Annotated[float, _number("How slowly it forgets.", ge=0, le=0.99)] | None = None
    samplers: (
        Annotated[
            str | Annotated[list[str], Meta(max_length=MOST_SAMPLERS)],
            Meta(description='Which samplers act, in which order: names, or letters as "edskypmxt".'),
        ]
        | None
    ) = None
    min_keep: Annotated[int, _number("Tokens that stay, whatever cuts.", ge=0, le=_MOST)] | None = None
    logit_bias: (
        Annotated[
            Annotated[dict[str, _Bias], Meta(max_length=MOST_BIASES)]
            | Annotated[list[tuple[int | str, _Bias]], Meta(max_length=MOST_BIASES)],
            Meta(description="What is added to logits, by id or text: a number, or false for never."),
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
    random_seed: Annotated[int, Meta(ge=-(1 << 63), description="The same, as Mistral calls it.")] | None = None
    ignore_eos: Annotated[bool, Meta(description="Go on past the model's end of an answer.")] = False
    min_tokens: Annotated[int, _number("No end before so many tokens.", ge=0, le=_MOST)] | None = None
    min_length: Annotated[int, _number("The same.", ge=0, le=_MOST)] | None = None
    min_new_tokens: Annotated[int, _number("The same.", ge=0, le=_MOST)] | None = None
    stop_token_ids: (
        Annotated[list[_Id], Meta(max_length=MOST_ENDS, description="Ids that end an answer, too.")] | None
    ) = None
    bad_words: (
        Annotated[list[_Word], Meta(max_length=MOST_WORDS, description="Texts that are never written.")] | None
    ) = None
    allowed_token_ids: (
        Annotated[list[_Id], Meta(max_length=MOST_ALLOWED, description="The only ids that may be chosen.")] | None
    ) = None
    do_sample: Annotated[bool, Meta(description="false takes the likeliest token, whatever the temperature.")] = True
    post_sampling_probs: Annotated[
        bool, Meta(description="Tell probabilities of what is drawn from in the end, and not the model's own.")
    ] = False
    encoder_repetition_penalty: Annotated[Any, unbuilt(1)] = None
    no_repeat_ngram_size: Annotated[Any, unbuilt(0)] = None
    penalty_alpha: Annotated[Any, unbuilt(0)] = None
    dynamic_temperature: Annotated[Any, unbuilt(False, send="dynatemp_range")] = None
    smoothing_factor: Annotated[Any, unbuilt(0)] = None
    top_a: Annotated[Any, unbuilt(0)] = None
    tfs_z: Annotated[Any, unbuilt(1)] = None
    epsilon_cutoff: Annotated[Any, unbuilt(0)] = None
    eta_cutoff: Annotated[Any, unbuilt(0)] = None
    use_beam_search: Annotated[Any, unbuilt(False)] = None
    num_beams: Annotated[Any, unbuilt(1)] = None
    length_penalty: Annotated[Any, unbuilt(1)] = None
    early_stopping: Annotated[Any, unbuilt(False)] = None
    guidance_scale: Annotated[Any, unbuilt(1)] = None
    negative_prompt: Annotated[Any, unbuilt("")] = None
    watermark: Annotated[Any, unbuilt(False)] = None
    logits_processors: Annotated[Any, unbuilt([])] = None


def sampling_of(fields: SamplingFields, base: Sampling, *, max_tokens: int | None, logprobs: int | None) -> Sampling:
    """`base` is what holds where the fields say nothing. Raises RequestError, naming the field."""
    seed = fields.random_seed if fields.seed is None else fields.seed
    if seed is not None and seed > _LARGEST_SEED:
        raise FieldError("seed", f"{seed} is out of range", hint=f"give -1 to {_LARGEST_SEED}")
    options: dict[str, Any] = {
        "max_tokens": max_tokens,
        "logprobs": logprobs,
        "seed": None if seed is None or seed == -1 else seed % (1 << 64),
        "mirostat": fields.mirostat_mode,
        "repeat_penalty": fields.repetition_penalty,
        "min_tokens": fields.min_length if fields.min_new_tokens is None else fields.min_new_tokens,
        "dry_base": None if fields.dry_base is None or fields.dry_base < 1 else fields.dry_base,
        "logit_bias": None if fields.logit_bias is None else _biases(fields.logit_bias),
    }
    if fields.repetition_penalty is not None and fields.repeat_last_n is None:
        options["repeat_last_n"] = -1
    for name in (*_MOVED, *_AS_THEY_STAND):
        if (value := getattr(fields, name)) is not None:
            low, high = _MOVED.get(name, (None, None))
            options[name] = value if low is None or high is None else min(max(value, low), high)
    if not fields.do_sample:
        options["temperature"] = 0.0
    return replace(base, **{name: value for name, value in options.items() if value is not None})


def _biases(given: Mapping[str, _Bias] | Sequence[tuple[int | str, _Bias]]) -> Sequence[Bias]:
    """Pairs as they stand; of an object, whose names are texts, those that are numbers are ids."""
    pairs: list[tuple[int | str, _Bias]]
    if isinstance(given, Mapping):
        pairs = [(int(text) if text.isdecimal() and text.isascii() else text, bias) for text, bias in given.items()]
    else:
        pairs = [*given]
    wrong = next((pair for pair in pairs if pair[1] is True), None)
    if wrong is not None:
        raise FieldError("logit_bias", f"{wrong!r:.80}", hint="give a number, or false for never")
    return pairs
