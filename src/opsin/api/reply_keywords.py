"""Tools and thoughts as keywords, so that a wrong one is a type error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypedDict

from opsin.api.arguments import check_type
from opsin.api.picture_options import PictureOptions
from opsin.api.prompt_options import PromptOptions
from opsin.api.replies import ReplyOptions
from opsin.api.sampling_options import SamplingOptions
from opsin.api.tools import Declaration, Tools
from opsin.errors import RequestError


class ReplyKeywords(TypedDict, total=False):
    """What a reply may hold beside text.

    Attributes:
        tools: functions of Python, or declarations as OpenAI writes them.
        tool_choice: auto, none, required, or a tool's name.
        parallel_tool_calls: whether several may be called at once.
        think: whether to think, where the template lets choose.
        thought_tokens: after so many tokens thoughts are ended.
        variables: what else the template reads.
    """

    tools: Sequence[Declaration | Callable[..., object]]
    tool_choice: str
    parallel_tool_calls: bool | None
    think: bool | None
    thought_tokens: int | None
    variables: Mapping[str, object]


class ChatOptions(SamplingOptions, PictureOptions, ReplyKeywords, total=False):
    """How to choose tokens, how finely to look at pictures, what a reply may hold."""


REPLY_WORDS: Final = tuple(ReplyKeywords.__annotations__)


def reply_options(given: ReplyKeywords) -> tuple[PromptOptions, ReplyOptions]:
    """What the template is told, and what is wanted of the reply."""
    choice = check_type(given.get("tool_choice", "auto"), str, "tool_choice")
    parallel, think = (
        _choice(given.get("parallel_tool_calls"), "parallel_tool_calls"),
        _choice(given.get("think"), "think"),
    )
    tools = Tools.of(given.get("tools", ()), choice, parallel=parallel)
    variables = given.get("variables", {})
    if not isinstance(variables, Mapping):
        raise RequestError(f"variables of the type {type(variables).__name__}", hint="give {name: value}")
    variables = dict(variables)
    if think is not None:
        variables |= {"enable_thinking": think, "thinking": think}
    most = given.get("thought_tokens")
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 0):
        raise RequestError(f"thought_tokens={most!r:.80}", hint="give a whole number, or None for no limit")
    most = 0 if most is None and think is False else most
    return PromptOptions(tools.declared, variables), ReplyOptions(tools, thought_tokens=most)


def _choice(given: object, name: str) -> bool | None:
    return given if given is None else check_type(given, bool, name, "give True, False or None")
