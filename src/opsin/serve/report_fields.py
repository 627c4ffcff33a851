"""Fields that ask for more to be told than the answer, or to tell it otherwise."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from opsin.serve.fields import unbuilt
from opsin.serve.thought_fields import ThoughtFields

MOST_LOGPROBS = 1000

_Path = Annotated[str, Meta(max_length=200)]
_Keep = Annotated[int, Meta(ge=-1, le=1 << 31, description="Told in the settings. No context is shifted here.")]
_Discard = Annotated[int, Meta(ge=0, le=1 << 31, description="Told in the settings. No context is shifted here.")]


class ReportFields(ThoughtFields, kw_only=True):
    """What is told beside the text of an answer, and how its lines are."""

    return_tokens: Annotated[bool, Meta(description="Tell the ids of a whole answer (/completion).")] = False
    return_token_ids: Annotated[bool, Meta(description="Tell ids of the prompt and of the answer, as vLLM does.")] = (
        False
    )
    return_tokens_as_token_ids: Annotated[
        bool, Meta(description='In log-probabilities a token is called "token_id:5", as vLLM does.')
    ] = False
    return_progress: Annotated[bool, Meta(description="A stream tells how much of its prompt is done.")] = False
    timings_per_token: Annotated[bool, Meta(description="Tell timings with each piece of a stream.")] = False
    verbose: Annotated[bool, Meta(description="Tell /completion's object as __verbose in OpenAI's shapes.")] = False
    response_fields: Annotated[
        list[_Path], Meta(max_length=100, description='Tell only these of /completion\'s object; "a/b" is b within a.')
    ] = []
    prompt_logprobs: (
        Annotated[
            int,
            Meta(ge=0, le=MOST_LOGPROBS, description="Tell log-probabilities of the prompt's ids, as vLLM does."),
        ]
        | None
    ) = None
    include_stop_str_in_output: Annotated[bool, Meta(description="Tell the stop text that ended the answer.")] = False
    n_indent: Annotated[
        int, Meta(ge=0, le=1000, description="End at a line that begins with fewer blanks (but the first).")
    ] = 0
    t_max_predict_ms: Annotated[
        int,
        Meta(ge=-1, le=1 << 53, description="End so long after the first token, once there is a line break; 0: never."),
    ] = 0
    n_keep: _Keep = 0
    n_discard: _Discard = 0
    top_n_tokens: Annotated[Any, unbuilt(0)] = None
    skip_special_tokens: Annotated[Any, unbuilt(True)] = None
