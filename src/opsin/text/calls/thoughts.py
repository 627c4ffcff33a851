"""Where a model's thoughts and its answer begin and end in its reply, found from its chat template by trying it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from opsin.text.calls.trials import ANSWER, HURRY, THINK, THOUGHT, Message, Trial, prompt_of, tools, turn_of

# Tags that say so themselves, for templates that show no thoughts: `<think>`, `[THINK]`, `<|START_THINKING|>`.
_TAG = re.compile(r"<\|?(?:[\w]+:)?think(?:ing)?(?::\w+)?\|?>|\[THINK\]|<\|START_THINKING\|>")
_PARTS = re.compile(r"<[^<>\s]+>|\[[^\[\]\n]+\]|[^<\[\n]+|.", re.DOTALL)
_MARKER = re.compile(r"\s*(<[^<>\s]+>|\[[^\[\]\n]+\])")


@dataclass(frozen=True)
class Around:
    """The markers at both ends of thoughts or of an answer. Thoughts without one to open begin with the reply."""

    open: str
    close: str


@dataclass(frozen=True)
class Turn:
    """How an assistant's turn is made.

    Attributes:
        opener: what stands before whatever a model writes: `<|im_start|>assistant`.
        thoughts: markers of thoughts; None for a model that does not show any.
        answer: markers of the answer, where a model writes some.
    """

    opener: str
    thoughts: Around | None
    answer: Around | None


def find_turn(source: str, trial: Trial) -> Turn:
    """Tries the template."""
    said: Message = {"role": "assistant", "content": ANSWER}
    thought: Message = {**said, "reasoning_content": THOUGHT, "thinking": THOUGHT, "reasoning": THOUGHT}
    shown = None if turn_of(trial, said, {}, None) else tools()
    plain, full = turn_of(trial, said, {}, shown), turn_of(trial, thought, THINK, shown)
    prompts = [prompt_of(trial, variables, shown) for variables in (THINK, HURRY)]
    opener = _opener(prompts[0], full or plain)
    turns = [text[text.find(opener) + len(opener) :] for text in (plain, full)]
    thoughts, rest = _shown_thoughts(turns[1]) or (_named_thoughts(source, prompts), turns[0])
    return Turn(opener, thoughts, _answer(rest, opener, thoughts))


def _opener(prompt: str, turn: str) -> str:
    """How a prompt begins that a turn has too, without the marker that opens thoughts."""
    before = turn.partition(ANSWER)[0].partition(THOUGHT)[0]
    start = _TAG.search(prompt)
    prompt = prompt[: start.start()] if start else prompt
    ends = [part.end() for part in _PARTS.finditer(prompt)]
    return next((prompt[:end].strip() for end in reversed(ends) if prompt[:end].strip() in before), "")


def _shown_thoughts(turn: str) -> tuple[Around, str] | None:
    """Thoughts that a turn shows, and what comes behind them."""
    before, found, behind = turn.partition(THOUGHT)
    close = _MARKER.match(behind)
    if not found or close is None or ANSWER in before:
        return None
    return Around(before.strip(), close[1]), behind[close.end() :]


def _named_thoughts(source: str, prompts: Sequence[str]) -> Around | None:
    """Thoughts that a template only asks for, or only takes out of earlier turns."""
    for text, tag in product((*prompts, source), (_TAG,)):
        for found in tag.finditer(text):
            close = _closing(found[0])
            if close in source or close in text:
                return Around(found[0], close)
    return None


def _closing(tag: str) -> str:
    return tag.replace("START", "END") if "START" in tag else f"{tag[0]}/{tag[1:]}"


def _answer(turn: str, opener: str, thoughts: Around | None) -> Around | None:
    """Markers before an answer, and what ends it, if there are such."""
    before, found, behind = turn.partition(ANSWER)
    noise = (opener, *((thoughts.open, thoughts.close) if thoughts is not None else ()))
    for text in filter(None, noise):
        before = before.replace(text, "")
    close = _MARKER.match(behind)
    return Around(before.strip(), close[1] if close else "") if found and before.strip() else None
