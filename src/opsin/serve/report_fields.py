"""Fields that ask for more to be told than the answer, or to tell it otherwise."""

from __future__ import annotations

from typing import Annotated, Any

from opsin.serve.fields import unbuilt
from opsin.serve.thought_fields import ThoughtFields


class ReportFields(ThoughtFields, kw_only=True):
    """What is told beside the text of an answer."""

    echo: Annotated[Any, unbuilt(False)] = None
    best_of: Annotated[Any, unbuilt(1)] = None
    n_indent: Annotated[Any, unbuilt(0)] = None
    t_max_predict_ms: Annotated[Any, unbuilt(-1, 0)] = None
    prompt_logprobs: Annotated[Any, unbuilt()] = None
    post_sampling_probs: Annotated[Any, unbuilt(False)] = None
    top_n_tokens: Annotated[Any, unbuilt(0)] = None
    return_token_ids: Annotated[Any, unbuilt(False)] = None
    return_tokens_as_token_ids: Annotated[Any, unbuilt(False)] = None
    return_progress: Annotated[Any, unbuilt(False)] = None
    timings_per_token: Annotated[Any, unbuilt(False)] = None
    verbose: Annotated[Any, unbuilt(False)] = None
    include_stop_str_in_output: Annotated[Any, unbuilt(False)] = None
    skip_special_tokens: Annotated[Any, unbuilt(True)] = None
