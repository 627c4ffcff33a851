"""What all requests for answers have in common: how to choose tokens, when to stop, how to send."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final

from msgspec import Meta

from opsin.api import Sampling, TextEnding
from opsin.api.facts import Facts
from opsin.api.replies import ReplyOptions
from opsin.errors import FieldError
from opsin.grammar import Grammar
from opsin.media.budget import WORDS
from opsin.serve.fields import Fields, read, unbuilt
from opsin.serve.grammar_fields import AskedForm, form_of
from opsin.serve.report_fields import ReportFields
from opsin.serve.sampling_fields import sampling_of
from opsin.text import LineLimits

_MOST_STOP_CHARACTERS = 1 << 16  # of all stop strings together

# All names of one thing; the first that is given holds.
_MOST_TOKENS: Final = (
    "max_completion_tokens", "max_tokens", "n_predict", "max_new_tokens", "max_output_tokens", "max_tokens_to_sample",
    "num_predict",
)  # fmt: skip

_MaxTokens = Annotated[
    int, Meta(ge=-1, le=1 << 31, description="Tokens of an answer; -1 for as many as the context holds.")
]
_Stop = Annotated[
    str | Annotated[list[str], Meta(max_length=64)],
    Meta(description="Texts that end an answer, with 65,536 characters together."),
]
_Choices = Annotated[int, Meta(ge=1, le=16, description="Answers to each prompt.")]


class StreamOptions(Fields, kw_only=True):
    """Of a stream."""

    include_usage: Annotated[bool | None, Meta(description="Whether it ends with its usage.")] = None
    continuous_usage_stats: Annotated[Any, unbuilt(False)] = None


class AnswerFields(ReportFields, kw_only=True):
    """How to answer. What is left open is as the model's file recommends."""

    elsewhere: ClassVar[frozenset[str]] = frozenset(WORDS)

    max_completion_tokens: _MaxTokens | None = None
    max_tokens: _MaxTokens | None = None
    n_predict: _MaxTokens | None = None
    max_new_tokens: _MaxTokens | None = None
    max_output_tokens: _MaxTokens | None = None
    max_tokens_to_sample: _MaxTokens | None = None
    num_predict: _MaxTokens | None = None
    stop: _Stop = ""
    stop_sequences: _Stop = ""
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
    id_slot: Annotated[int, Meta(ge=-1, le=1 << 20, description="The place that the answer takes; -1 for any.")] = -1
    vllm_xargs: Annotated[Any, unbuilt({})] = None
    modalities: Annotated[Any, unbuilt(["text"])] = None
    prediction: Annotated[Any, unbuilt()] = None
    web_search_options: Annotated[Any, unbuilt()] = None
    verbosity: Annotated[Any, unbuilt("medium")] = None


@dataclass(frozen=True)
class Usual:
    """What holds where a request says nothing: as the model's file recommends, and over it as the operator says."""

    sampling: Sampling
    stop: tuple[str, ...] = ()
    form: AskedForm | None = None


@dataclass(frozen=True)
class GenerationRequest:
    """What a client wants, beside what it asks about, in our words.

    Attributes:
        ending: where texts end.
        report: what is told beside texts.
        usage: whether a stream ends with its usage.
        choices: how many answers to each prompt.
        candidates: from how many these are the likeliest.
        reply: how it is read; None for text as it comes.
        form: what it is held to.
        slot: the place that the first answer takes, once it is free; -1 for any.
        ping_seconds: after so long a silence a stream sends a comment; None for the server's own, 0 for never.
    """

    sampling: Sampling
    ending: TextEnding = TextEnding()
    report: ReportFields = field(default_factory=ReportFields)
    stream: bool = False
    usage: bool = False
    choices: int = 1
    candidates: int = 1
    ping_seconds: float | None = None
    reply: ReplyOptions | None = None
    form: AskedForm | None = None
    slot: int = -1

    def ping(self, own: float) -> float:
        """Seconds of silence after which a comment is sent, where the server's `own` holds if nothing is said."""
        return 0.0 if not self.stream else own if self.ping_seconds is None else self.ping_seconds


def generation_request(
    fields: AnswerFields, *, answers: int, logprobs: int | None, usual: Usual, reply: ReplyOptions | None = None
) -> GenerationRequest:
    """`answers` is how many a request may ask for, `reply` how one is read.

    Raises FieldError, naming the field.
    """
    stop = _texts(fields.stop) or _texts(fields.stop_sequences)
    if (characters := sum(map(len, stop))) > _MOST_STOP_CHARACTERS:
        raise FieldError("stop", f"{characters} characters", hint=f"give at most {_MOST_STOP_CHARACTERS}")
    choices = _first(fields.n, fields.n_cmpl) or 1
    if choices > answers:
        raise FieldError("n", f"{choices} is out of range", hint=f"give 1 to {answers}")
    most = _first(*(getattr(fields, name) for name in _MOST_TOKENS))
    ping, options = fields.sse_ping_interval, fields.stream_options
    return GenerationRequest(
        sampling=sampling_of(fields, usual.sampling, max_tokens=None if most == -1 else most, logprobs=logprobs),
        ending=_ending(fields, stop or usual.stop),
        report=fields,
        stream=fields.stream,
        usage=bool(options is not None and options.include_usage),
        choices=choices,
        candidates=choices,
        ping_seconds=None if ping is None else max(0, ping),
        reply=reply,
        form=form_of(fields) or usual.form,
        slot=fields.id_slot,
    )


def check_defaults(defaults: Mapping[str, Any]) -> None:
    """Raises FieldError for what no request could say, or is not read."""
    for name in defaults:
        if name not in AnswerFields.__struct_fields__:
            raise FieldError(name, "not supported yet", hint="leave it out")
    sampling_of(read(defaults, AnswerFields), Sampling(), max_tokens=None, logprobs=None)


def usual_of(facts: Facts, defaults: Mapping[str, Any], grammar: Grammar | None) -> Usual:
    """What a file says, and over it an operator: `defaults` in a request's words, and the form of all answers."""
    form = None if grammar is None else AskedForm("the form of all answers", grammar)
    usual = Usual(facts.sampling, facts.stop, form)
    if not defaults:
        return usual
    request = generation_request(read(defaults, AnswerFields), answers=1, logprobs=None, usual=usual)
    return Usual(request.sampling, request.ending.stop, form)


def _texts(given: str | list[str]) -> tuple[str, ...]:
    return tuple(text for text in ([given] if isinstance(given, str) else given) if text)


def _ending(fields: AnswerFields, stop: tuple[str, ...]) -> TextEnding:
    milliseconds = fields.t_max_predict_ms
    lines = LineLimits(fields.n_indent, milliseconds / 1000 if milliseconds > 0 else None)
    return TextEnding(stop, fields.include_stop_str_in_output, lines)


def _first(*given: int | None) -> int | None:
    return next((value for value in given if value is not None), None)
