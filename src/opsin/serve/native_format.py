"""llama-server's own shape of answers: of /completion and /infill, and of `__verbose` elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from opsin.api import Answer
from opsin.serve.generation import Answers, Delta, RunningChoice
from opsin.serve.settings import settings_of
from opsin.serve.usage import prompt_logprobs_of


class NativeFormat:
    """It has no usage, and a stream no mark at its end."""

    is_marked = False

    def whole(self, told: Answers) -> Mapping[str, Any] | list[Any]:
        made = [_selected(told, native_whole(told, choice)) for choice in told.choices]
        return made if len(made) > 1 else made[0]

    def begin(self, told: Answers) -> Iterable[Mapping[str, Any]]:
        return ()

    def delta(self, told: Answers, delta: Delta) -> Iterable[Mapping[str, Any]]:
        piece, choice = delta.piece, told.choices[delta.choice]
        if piece.ids or piece.text or piece.progress is not None:
            yield native_piece(told, choice, delta)
        if delta.is_last:
            yield _selected(told, native_whole(told, choice))

    def close(self, told: Answers) -> Iterable[Mapping[str, Any]]:
        return ()


def native_whole(told: Answers, choice: RunningChoice) -> dict[str, Any]:
    """An answer that is over. Of a stream its text and its tokens were told before."""
    answer, request, model = choice.answer, told.request, told.service.model
    whole = {
        **_chunk(choice, "" if request.stream else choice.text, len(answer.ids)),
        "tokens": answer.ids if request.report.return_tokens and not request.stream else [],
        "stop": True,
        "id_slot": choice.slot,
        "model": told.service.name,
        "generation_settings": settings_of(request, model.guesses, model.tokenizer.end_ids),
        "prompt": told.prompt(choice.index).text,
        "has_new_line": "\n" in choice.text,
        "truncated": _is_truncated(told, answer),
        "stop_type": _stop_type(answer),
        "stopping_word": answer.stopping_word or "",
        "tokens_cached": _in_cache(answer),
        "timings": told.timings(choice.index),
    }
    logprobs = told.logprobs(choice.end if request.stream else [*choice.logprobs, *choice.end])
    return {**whole, "completion_probabilities": logprobs} if logprobs else whole


def verbose(told: Answers, choice: RunningChoice) -> dict[str, Any]:
    """The same beside other shapes, where it was asked for."""
    return {"__verbose": native_whole(told, choice)} if told.is_verbose else {}


def about_prompt(told: Answers) -> dict[str, Any]:
    """Ids of the prompt and how likely they were, as vLLM tells them of conversations."""
    prompt, report = told.prompts[0], told.request.report
    value: dict[str, Any] = {}
    if report.return_token_ids:
        value["prompt_token_ids"] = [*prompt.ids]
    if prompt.logprobs is not None:
        value["prompt_logprobs"] = prompt_logprobs_of(prompt.logprobs, prompt.tokenizer)
    return value


def native_piece(told: Answers, choice: RunningChoice, delta: Delta) -> dict[str, Any]:
    """A piece of a stream."""
    piece, logprobs = delta.piece, told.logprobs(delta.piece.logprobs)
    chunk = {**_chunk(choice, piece.text, piece.count), "tokens": piece.ids, "stop": False, **told.extras(delta)}
    return {**chunk, "completion_probabilities": logprobs} if logprobs else chunk


def _chunk(choice: RunningChoice, text: str, count: int) -> dict[str, Any]:
    return {
        "index": choice.index,
        "content": text,
        "id_slot": -1,
        "tokens_predicted": count,
        "tokens_evaluated": choice.answer.prompt_tokens,
    }


def _selected(told: Answers, whole: dict[str, Any]) -> dict[str, Any]:
    """Those fields that were asked for; `a/b` is what a holds as b."""
    if not told.request.report.response_fields:
        return whole
    found = {}
    for path in told.request.report.response_fields:
        value: Any = whole
        for name in path.split("/"):
            value = value.get(name, _NOTHING) if isinstance(value, dict) else _NOTHING
        if value is not _NOTHING:
            found[path] = value
    return found


_NOTHING = object()


def _stop_type(answer: Answer) -> str:
    if answer.stopping_word is not None:
        return "word"
    if not answer.prompt_tokens:
        return "none"
    return "limit" if answer.reason == "length" else "eos"


def _is_truncated(told: Answers, answer: Answer) -> bool:
    """Whether the context ended it."""
    return answer.reason == "length" and answer.prompt_tokens + len(answer.ids) >= told.service.model.context


def _in_cache(answer: Answer) -> int:
    """Rows that the cache holds at its end: the last id of an answer that was cut is never computed."""
    is_cut = answer.ids and (answer.reason == "length" or answer.stopping_word is not None)
    return answer.prompt_tokens + len(answer.ids) - bool(is_cut)
