"""What all requests for answers have in common: how to choose tokens, when to stop, how to send."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Final

from msgspec import Meta

from opsin.api import Sampling
from opsin.api.facts import Facts
from opsin.errors import FieldError
from opsin.media.budget import WORDS
from opsin.serve.fields import Fields, unbuilt

MOST_LOGPROBS: Final = 20
_MOST_STOP_CHARACTERS = 1 << 16  # of all stop strings together
_LARGEST_SEED = (1 << 64) - 1

_MaxTokens = Annotated[
    int, Meta(ge=-1, le=1 << 31, description="Tokens of an answer; -1 for as many as the context holds.")
]
_Choices = Annotated[int, Meta(ge=1, le=16, description="Answers to each prompt.")]


class StreamOptions(Fields, kw_only=True):
    """Of a stream."""

    include_usage: Annotated[bool | None, Meta(description="Whether it ends with its usage.")] = None
    continuous_usage_stats: Annotated[Any, unbuilt(False)] = None


class AnswerFields(Fields, kw_only=True):
    """How to answer. What is left open is as the model's file recommends."""

    elsewhere: ClassVar[frozenset[str]] = frozenset(WORDS)

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
    max_completion_tokens: _MaxTokens | None = None
    max_tokens: _MaxTokens | None = None
    n_predict: _MaxTokens | None = None
    ignore_eos: Annotated[bool, Meta(description="Go on past the model's end of an answer.")] = False
    stop: Annotated[
        str | Annotated[list[str], Meta(max_length=64)],
        Meta(description="Texts that end an answer, with 65,536 characters together."),
    ] = ""
    n: _Choices | None = None
    n_cmpl: _Choices | None = None
    stream: Annotated[bool, Meta(description="Send the answer as server-sent events.")] = False
    stream_options: StreamOptions | None = None
    sse_ping_interval: (
        Annotated[
            int,
            Meta(
                ge=-1,
                le=86400,
                description="Seconds of silence after which a stream sends a comment; 0 and -1 for never.",
            ),
        ]
        | None
    ) = None
    response_format: Annotated[Any, unbuilt({}, {"type": "text"})] = None
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
    best_of: Annotated[Any, unbuilt(1)] = None
    length_penalty: Annotated[Any, unbuilt(1)] = None
    early_stopping: Annotated[Any, unbuilt(False)] = None
    guidance_scale: Annotated[Any, unbuilt(1)] = None
    negative_prompt: Annotated[Any, unbuilt("")] = None
    watermark: Annotated[Any, unbuilt(False)] = None
    grammar: Annotated[Any, unbuilt("")] = None
    json_schema: Annotated[Any, unbuilt({})] = None
    format: Annotated[Any, unbuilt("")] = None
    structured_outputs: Annotated[Any, unbuilt({})] = None
    structural_tag: Annotated[Any, unbuilt()] = None
    guided_json: Annotated[Any, unbuilt()] = None
    guided_regex: Annotated[Any, unbuilt()] = None
    guided_choice: Annotated[Any, unbuilt()] = None
    guided_grammar: Annotated[Any, unbuilt()] = None
    allowed_token_ids: Annotated[Any, unbuilt([])] = None
    bad_words: Annotated[Any, unbuilt([])] = None
    logits_processors: Annotated[Any, unbuilt([])] = None
    vllm_xargs: Annotated[Any, unbuilt({})] = None
    modalities: Annotated[Any, unbuilt(["text"])] = None
    prediction: Annotated[Any, unbuilt()] = None
    web_search_options: Annotated[Any, unbuilt()] = None
    verbosity: Annotated[Any, unbuilt("medium")] = None
    min_tokens: Annotated[Any, unbuilt(0)] = None
    min_length: Annotated[Any, unbuilt(0)] = None
    max_new_tokens: Annotated[Any, unbuilt(send="max_tokens")] = None
    max_output_tokens: Annotated[Any, unbuilt(send="max_tokens")] = None
    max_tokens_to_sample: Annotated[Any, unbuilt(send="max_tokens")] = None
    num_predict: Annotated[Any, unbuilt(send="max_tokens")] = None
    random_seed: Annotated[Any, unbuilt(send="seed")] = None
    t_max_predict_ms: Annotated[Any, unbuilt(-1, 0)] = None
    stop_sequences: Annotated[Any, unbuilt([], send="stop")] = None
    stop_token_ids: Annotated[Any, unbuilt([])] = None
    include_stop_str_in_output: Annotated[Any, unbuilt(False)] = None
    skip_special_tokens: Annotated[Any, unbuilt(True)] = None
    thinking_budget_tokens: Annotated[Any, unbuilt(-1)] = None
    thinking_token_budget: Annotated[Any, unbuilt()] = None
    reasoning_budget: Annotated[Any, unbuilt(-1)] = None
    reasoning_budget_tokens: Annotated[Any, unbuilt(-1)] = None
    reasoning_format: Annotated[Any, unbuilt("none", "auto")] = None
    thinking_forced_open: Annotated[Any, unbuilt(False)] = None
    include_reasoning: Annotated[Any, unbuilt(True)] = None
    echo: Annotated[Any, unbuilt(False)] = None
    n_indent: Annotated[Any, unbuilt(0)] = None
    prompt_logprobs: Annotated[Any, unbuilt()] = None
    post_sampling_probs: Annotated[Any, unbuilt(False)] = None
    top_n_tokens: Annotated[Any, unbuilt(0)] = None
    return_token_ids: Annotated[Any, unbuilt(False)] = None
    return_tokens_as_token_ids: Annotated[Any, unbuilt(False)] = None
    return_progress: Annotated[Any, unbuilt(False)] = None
    timings_per_token: Annotated[Any, unbuilt(False)] = None
    verbose: Annotated[Any, unbuilt(False)] = None


@dataclass(frozen=True)
class GenerationRequest:
    """What a client wants, beside what it asks about, in our words.

    Attributes:
        usage: whether a stream ends with its usage.
        choices: how many answers to each prompt.
        ping_seconds: after so long a silence a stream sends a comment; None for the server's own, 0 for never.
    """

    sampling: Sampling
    stop: tuple[str, ...] = ()
    stream: bool = False
    usage: bool = False
    choices: int = 1
    ping_seconds: float | None = None

    def ping(self, own: float) -> float:
        """Seconds of silence after which a comment is sent, where the server's `own` holds if nothing is said."""
        return 0.0 if not self.stream else own if self.ping_seconds is None else self.ping_seconds


def generation_request(fields: AnswerFields, *, answers: int, logprobs: int | None, base: Facts) -> GenerationRequest:
    """`answers` is how many a request may ask for, `base` what holds where it says nothing of sampling or stopping.

    Raises FieldError, naming the field.
    """
    stop = tuple(text for text in ([fields.stop] if isinstance(fields.stop, str) else fields.stop) if text)
    if (characters := sum(map(len, stop))) > _MOST_STOP_CHARACTERS:
        raise FieldError("stop", f"{characters} characters", hint=f"give at most {_MOST_STOP_CHARACTERS}")
    choices = _first(fields.n, fields.n_cmpl) or 1
    if choices > answers:
        raise FieldError("n", f"{choices} is out of range", hint=f"give 1 to {answers}")
    ping, options = fields.sse_ping_interval, fields.stream_options
    return GenerationRequest(
        sampling=_sampling(fields, logprobs, base.sampling),
        stop=stop or base.stop,
        stream=fields.stream,
        usage=bool(options is not None and options.include_usage),
        choices=choices,
        ping_seconds=None if ping is None else max(0, ping),
    )


def _sampling(fields: AnswerFields, logprobs: int | None, base: Sampling) -> Sampling:
    if fields.seed is not None and fields.seed > _LARGEST_SEED:
        raise FieldError("seed", f"{fields.seed} is out of range", hint=f"give -1 to {_LARGEST_SEED}")
    most = _first(fields.max_completion_tokens, fields.max_tokens, fields.n_predict)
    top_p, min_p = (None if p is None else min(max(p, 0.0), 1.0) for p in (fields.top_p, fields.min_p))
    options: dict[str, Any] = {
        "temperature": fields.temperature,
        "top_k": None if fields.top_k is None else max(0, fields.top_k),
        "top_p": top_p,
        "min_p": min_p,
        "max_tokens": None if most == -1 else most,
        "seed": None if fields.seed is None or fields.seed == -1 else fields.seed % (1 << 64),
        "ignore_eos": fields.ignore_eos,
        "logprobs": logprobs,
    }
    return replace(base, **{name: value for name, value in options.items() if value is not None})


def _first(*given: int | None) -> int | None:
    return next((value for value in given if value is not None), None)
