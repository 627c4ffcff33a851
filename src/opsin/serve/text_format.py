"""OpenAI's text_completion: the shape of /v1/completions."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from opsin.api import Logprobs
from opsin.serve.generation import Answers, Delta, RunningChoice
from opsin.serve.native_format import native_piece, native_whole
from opsin.serve.usage import FINGERPRINT, finish_reason, prompt_logprobs_of
from opsin.text import Tokenizer


class TextOffsets:
    """Where the text of each token of a choice begins in the choice's; one that shows nothing adds nothing to it.

    The tokens are told of in their order, in as many calls as they come in. Thread: the loop's.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._decoder, self._at = tokenizer, getincrementaldecoder("utf-8")("replace"), 0

    def prompt(self, ids: Sequence[int], text: str) -> list[int]:
        """Of a prompt whose text is told; the file may put a token before it."""
        stream, at, found = self._tokenizer.stream(special=True), 0, list[int]()
        for id in ids:
            found.append(at)
            piece = stream.push(id)
            at += len(piece) if at or text.startswith(piece) else 0
        self._at = len(text)
        return found

    def answer(self, tokens: Iterable[Logprobs]) -> list[int]:
        """Of further tokens of an answer."""
        found = list[int]()
        for token in tokens:
            found.append(self._at)
            piece = self._tokenizer.piece(token.chosen[0])
            self._at += len(self._decoder.decode(piece.removeprefix(b" ") if token.begins else piece))
        return found


class TextFormat:
    """`echoes` are the prompts' texts, told before their answers; None where they are not wanted."""

    is_marked = True

    def __init__(self, echoes: Sequence[str] | None = None) -> None:
        self._echoes = echoes
        self._offsets: dict[int, TextOffsets] = {}  # of each choice of a stream

    def whole(self, told: Answers) -> Mapping[str, Any]:
        first = told.choices[0]
        value = {**_head(told), "choices": [self._whole(told, choice) for choice in told.choices]}
        value |= {"usage": told.usage, "timings": told.timings(0)}
        return {**value, "__verbose": native_whole(told, first)} if told.is_verbose else value

    def begin(self, told: Answers) -> Iterable[Mapping[str, Any]]:
        """Prompts, where they are told."""
        if self._echoes is not None:
            for choice in told.choices:
                tokens, echo = _prompt_tokens(told, choice), self._echo(told, choice)
                offsets = self._offsets_of(told, choice).prompt(told.prompt(choice.index).ids if tokens else (), echo)
                yield self._event(told, choice, echo, tokens, offsets)

    def delta(self, told: Answers, delta: Delta) -> Iterable[Mapping[str, Any]]:
        choice, piece, report = told.choices[delta.choice], delta.piece, told.request.report
        tokens: Sequence[Logprobs] = piece.logprobs
        ids: Sequence[int] = piece.ids
        if delta.text or piece.progress is not None or (report.timings_per_token and piece.ids):
            offsets = self._offsets_of(told, choice).answer(tokens)
            event = self._event(told, choice, delta.text, tokens, offsets, ids=ids)
            verbose = {"__verbose": native_piece(told, choice, delta)} if told.is_verbose else {}
            yield {**event, **told.extras(delta), **verbose}
            tokens, ids = (), ()
        if delta.is_last:
            yield self._last(told, choice, [*tokens, *choice.end], ids)

    def close(self, told: Answers) -> Iterable[Mapping[str, Any]]:
        if told.request.usage:
            yield {**_head(told), "choices": [], "usage": told.usage, "timings": told.timings(0)}

    def _whole(self, told: Answers, choice: RunningChoice) -> dict[str, Any]:
        prompt, report, echo = told.prompt(choice.index), told.request.report, self._echo(told, choice)
        before = _prompt_tokens(told, choice) if self._echoes is not None else []
        tokens, texts = [*choice.logprobs, *choice.end], TextOffsets(prompt.tokenizer)
        offsets = [*texts.prompt(prompt.ids if before else (), echo), *texts.answer(tokens)]
        value = {
            "index": choice.index,
            "text": echo + choice.text,
            "logprobs": _logprobs(told, [*before, *tokens], offsets),
            "finish_reason": finish_reason(choice.answer),
        }
        if report.return_token_ids:
            value |= {"token_ids": choice.answer.ids, "prompt_token_ids": list(prompt.ids)}
        if prompt.logprobs is not None and self._echoes is None:
            value["prompt_logprobs"] = prompt_logprobs_of(prompt.logprobs, prompt.tokenizer)
        return value

    def _last(
        self, told: Answers, choice: RunningChoice, tokens: Sequence[Logprobs], ids: Sequence[int]
    ) -> dict[str, Any]:
        """llama-server tells the usage with the last answer's end, OpenAI after it, where it was asked for."""
        offsets = self._offsets_of(told, choice).answer(tokens)
        event = self._event(told, choice, "", tokens, offsets, ids=ids, end=finish_reason(choice.answer))
        event["timings"] = told.timings(choice.index)
        if told.is_over and not told.request.usage:
            event["usage"] = told.usage
        if told.is_verbose:
            event["__verbose"] = native_whole(told, choice)
        return event

    def _event(
        self, told: Answers, choice: RunningChoice, text: str, tokens: Sequence[Logprobs | int],
        offsets: Sequence[int], *, ids: Sequence[int] = (), end: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        value = {
            "index": choice.index,
            "text": text,
            "logprobs": _logprobs(told, tokens, offsets) if tokens else None,
            "finish_reason": end,
        }
        if told.request.report.return_token_ids:
            value["token_ids"] = [*ids]
        return {**_head(told), "choices": [value]}

    def _offsets_of(self, told: Answers, choice: RunningChoice) -> TextOffsets:
        if choice.index not in self._offsets:
            self._offsets[choice.index] = TextOffsets(told.prompt(choice.index).tokenizer)
        return self._offsets[choice.index]

    def _echo(self, told: Answers, choice: RunningChoice) -> str:
        return "" if self._echoes is None else self._echoes[choice.index // told.request.choices]


def _prompt_tokens(told: Answers, choice: RunningChoice) -> list[Logprobs | int]:
    """The prompt's: of the first nobody knows how likely it was."""
    prompt = told.prompt(choice.index)
    return [] if prompt.logprobs is None or not prompt.ids else [prompt.ids[0], *prompt.logprobs]


def _logprobs(told: Answers, tokens: Sequence[Logprobs | int], offsets: Sequence[int]) -> dict[str, Any] | None:
    """In OpenAI's shape for texts, and beside it llama-server's, which is that of conversations."""
    known = [token for token in tokens if not isinstance(token, int)]
    content = told.logprobs(known)
    if content is None:
        return None
    entries = [*(told.token(token) for token in tokens if isinstance(token, int)), *content]
    return {
        "content": content,
        "tokens": [entry["token"] for entry in entries],
        "token_logprobs": [entry.get("logprob") for entry in entries],
        "top_logprobs": [_rivals(entry) for entry in entries],
        "text_offset": [*offsets],
    }


def _rivals(entry: Mapping[str, Any]) -> dict[str, float] | None:
    """The likeliest, and the token itself, as vLLM has it too."""
    if "logprob" not in entry:
        return None
    return {one["token"]: one["logprob"] for one in [*entry["top_logprobs"], entry]}


def _head(told: Answers) -> dict[str, Any]:
    return {**told.head, "object": "text_completion", "system_fingerprint": FINGERPRINT}
