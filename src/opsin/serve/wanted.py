"""What all requests for answers have in common: how to choose tokens, when to stop, how to send. In our words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from opsin.api import Sampling
from opsin.serve.errors import FieldError
from opsin.serve.fields import Fields
from opsin.serve.refused import ANSWER, refuse

MOST_CHOICES, MOST_STOPS, MOST_LOGPROBS = 16, 64, 20
MOST_STOP_CHARACTERS = 1 << 16  # of all stop strings together


@dataclass(frozen=True)
class Wanted:
    """What a client wants, beside what it asks about.

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


def wanted(fields: Fields, *, answers: int, logprobs: int | None, base: Sampling) -> Wanted:
    """Read a body. `answers` is how many a request may ask for, `base` what holds where it says nothing of sampling.

    Raises FieldError, naming the field.
    """
    refuse(fields, ANSWER)
    kind = fields.object("response_format").get("type", "text")
    if kind != "text":
        raise FieldError("response_format", f"{kind!r:.80} is not supported yet", hint="leave it out")
    stop = fields.texts("stop")
    if len(stop) > MOST_STOPS:
        raise FieldError("stop", f"{len(stop)} texts", hint=f"give at most {MOST_STOPS}")
    if (characters := sum(map(len, stop))) > MOST_STOP_CHARACTERS:
        raise FieldError("stop", f"{characters} characters", hint=f"give at most {MOST_STOP_CHARACTERS}")
    ping = fields.whole("sse_ping_interval", low=-1, high=86400)
    options = Fields(fields.object("stream_options"))
    refuse(options, {"continuous_usage_stats": (False,)})
    _, usage = options.get("include_usage")
    if usage is not None and not isinstance(usage, bool):
        raise FieldError("stream_options", f"include_usage is {usage!r:.80}, not true or false")
    return Wanted(
        sampling=_sampling(fields, logprobs, base),
        stop=stop,
        stream=fields.flag("stream"),
        usage=bool(usage),
        choices=fields.whole("n", "n_cmpl", low=1, high=min(answers, MOST_CHOICES)) or 1,
        ping_seconds=None if ping is None else max(0, ping),
    )


def _sampling(fields: Fields, logprobs: int | None, base: Sampling) -> Sampling:
    most = fields.whole("max_completion_tokens", "max_tokens", "n_predict", low=-1, high=1 << 31)
    seed = fields.whole("seed", low=-(1 << 63), high=(1 << 64) - 1)
    knobs: dict[str, Any] = {
        "temperature": fields.number("temperature", 0, 100),
        "top_k": fields.whole("top_k", low=-1, high=1 << 31),
        "top_p": fields.number("top_p", 0, 1, clamp=True),
        "min_p": fields.number("min_p", 0, 1, clamp=True),
        "max_tokens": None if most == -1 else most,
        "seed": None if seed is None or seed == -1 else seed % (1 << 64),
        "ignore_eos": fields.flag("ignore_eos"),
        "logprobs": logprobs,
    }
    if knobs["top_k"] == -1:  # as llama-server means it: all
        knobs["top_k"] = 0
    return replace(base, **{name: value for name, value in knobs.items() if value is not None})
