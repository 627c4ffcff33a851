"""Which answers run in which place, as llama-server's /slots tells it.

Thread: the event loop's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from opsin.api import Answer
from opsin.serve.generation_request import GenerationRequest
from opsin.serve.model_card import ModelCard
from opsin.serve.settings import short_settings_of
from opsin.spans import Prompt


class Seated(Protocol):
    """One of a request's answers. `slot` is its place; -1 while it waits for one."""

    answer: Answer
    text: str
    slot: int


@dataclass
class _Task:
    number: int
    choice: Seated
    request: GenerationRequest
    prompt: Prompt
    wanted: int


class Slots:
    """Places for answers. What the last answer in each was is kept, without its text.

    `keeps`: so is what finds its rows in the cache, for whoever saves them.
    """

    def __init__(self, *, keeps: bool = False) -> None:
        self._keeps, self._rows = keeps, dict[int, Prompt]()
        self._running: dict[int, _Task] = {}
        self._waiting: list[_Task] = []
        self._last: dict[int, dict[str, Any]] = {}
        self._numbers = 0

    def enter(
        self, choices: Sequence[Seated], request: GenerationRequest, card: ModelCard, prompts: Sequence[Prompt]
    ) -> None:
        """Answers to these prompts begin, each in the first free one of the model's places, or in the next that is so.

        The first may have been asked for one place.
        """
        for choice, prompt in zip(choices, prompts, strict=True):
            wanted = request.slot if choice is choices[0] and request.slot < card.sequences else -1
            self._waiting.append(_Task(self._numbers, choice, request, prompt, wanted))
            self._numbers += 1
        self._place(card)

    def leave(self, choices: Sequence[Seated], card: ModelCard) -> None:
        """These are over, or nobody waits for them."""
        gone = {id(choice) for choice in choices}
        self._waiting = [task for task in self._waiting if id(task.choice) not in gone]
        for slot, task in list(self._running.items()):
            if id(task.choice) in gone:
                self._last[slot] = _told(task, card, runs=False)
                self.put(slot, task.prompt.gone_on(task.choice.answer.ids) if self._keeps else None)
                del self._running[slot]
        self._place(card)

    def runs(self, slot: int) -> bool:
        """Whether an answer runs there."""
        return slot in self._running

    def rows(self, slot: int) -> Prompt | None:
        """What finds the rows of the last answer there, with its prompt; None where there was none."""
        return self._rows.get(slot)

    def put(self, slot: int, prompt: Prompt | None) -> None:
        """This is there now, or nothing."""
        self._rows.pop(slot, None)
        if prompt is not None:
            self._rows[slot] = prompt

    def told(self, card: ModelCard, busy: int) -> list[dict[str, Any]]:
        """One entry for each place. `busy` are inside, also those whose prompts are being made."""
        others = busy - len(self._running)
        entries = []
        for slot in range(card.sequences):
            task = self._running.get(slot)
            known = self._last.get(slot, {}) if task is None else _told(task, card, runs=True)
            is_busy = task is not None or others > 0
            others -= task is None and others > 0
            head = {"id": slot, "n_ctx": card.context, "speculative": bool(card.guesses), "is_processing": is_busy}
            entries.append({**head, **known})
        return entries

    def _place(self, card: ModelCard) -> None:
        for slot in range(card.sequences):
            task = next((task for task in self._waiting if task.wanted in (-1, slot)), None)
            if slot not in self._running and task is not None:
                self._waiting.remove(task)
                self._running[slot] = task
                task.choice.slot = slot


def _told(task: _Task, card: ModelCard, *, runs: bool) -> dict[str, Any]:
    answer, most = task.choice.answer, task.request.sampling.max_tokens
    count, usage = len(answer.ids), answer.usage
    following = {
        "has_next_token": runs,
        "has_new_line": "\n" in task.choice.text,
        "n_remain": -1 if most is None or not runs else most - count,
        "n_decoded": count if runs else 0,
    }
    return {
        "id_task": task.number,
        "n_prompt_tokens": answer.prompt_tokens + count,
        "n_prompt_tokens_processed": answer.prompt_tokens - usage.cached,
        "n_prompt_tokens_cache": usage.cached,
        "params": short_settings_of(task.request, card.guesses),
        "next_token": [following],
    }
