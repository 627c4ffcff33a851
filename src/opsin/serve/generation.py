"""The answers of one request: started, and read by the event loop while the engine makes them.

How they look on the way out is a `ResponseFormat`'s affair.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple, Protocol

from opsin.api import Answer, Logprobs, Model, Piece, Question, Times
from opsin.errors import FieldError
from opsin.serve.exchange import Exchange
from opsin.serve.generation_request import GenerationRequest
from opsin.serve.metrics import AnswerCost
from opsin.serve.ready import Ready
from opsin.serve.record import Record
from opsin.serve.service import Service
from opsin.serve.usage import logprobs_of, timings_of, token_entry, usage_of
from opsin.spans import MediaSpan, Prompt, TextSpan
from opsin.text import Tokenizer

_AT_ONCE = 32  # pieces of an answer that are written while nobody else has a turn
_FREE_LOGPROBS, _MOST_ENTRIES = 20, 1 << 18  # rivals of a token, and all of a request that asks for more


class Delta(NamedTuple):
    """What came at once of one of a request's answers.

    `piece` is as the model wrote it: its text, ids, log-probabilities, when it was made, whether it is the last, or how
    far the prompt is.
    """

    choice: int
    piece: Piece

    @property
    def text(self) -> str:
        return self.piece.text

    @property
    def is_last(self) -> bool:
        return self.piece.reason is not None


@dataclass
class RunningChoice:
    """One of a request's answers, and what was read of it by now."""

    index: int
    answer: Answer
    text: str = ""
    logprobs: list[Logprobs] = field(default_factory=list)
    end: tuple[Logprobs, ...] = ()  # of the id that ended it, where one did
    is_over: bool = False
    told_at: float = 0.0  # when the last of its ids by now was made
    slot: int = -1  # its place among those that run at once

    def take(self, piece: Piece) -> Delta:
        """The next of it."""
        self.text += piece.text
        self.logprobs += piece.logprobs
        self.end = () if piece.end is None else (piece.end,)
        self.is_over = piece.reason is not None
        return Delta(self.index, piece)


@dataclass(frozen=True)
class ToldPrompt:
    """What is told of a prompt: its ids, and of all but the first how likely they were; and what finds its rows."""

    tokenizer: Tokenizer
    rows: Prompt
    logprobs: Sequence[Logprobs] | None = None

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """Without its pictures."""
        return tuple(id for span in self.rows.spans if isinstance(span, TextSpan) for id in span.ids)

    @cached_property
    def text(self) -> str:
        """As the model reads it, without its pictures."""
        return self.tokenizer.decode(self.ids, special=True)


@dataclass
class Answers:
    """A request's running answers and what is known of them: those to each prompt stand together.

    Attributes:
        prompts: that are answered, each by as many answers as there are candidates.
        start: when somebody began to wait, in seconds of `time.perf_counter`, and
        submitted: when the prompts were handed to the engine.
        media: digests of the prompts' pictures.
    """

    service: Service
    request: GenerationRequest
    kind: str
    answers: list[Answer]
    prompts: list[ToldPrompt]
    start: float
    submitted: float
    media: frozenset[bytes]

    def __post_init__(self) -> None:
        self.head = {"id": f"{self.kind}{uuid.uuid4().hex}", "created": int(time.time()), "model": self.service.name}
        self.choices = [RunningChoice(index, answer) for index, answer in enumerate(self.answers)]
        self._heard = False
        self._ready = Ready[int]()

    @property
    def is_over(self) -> bool:
        """Whether all answers are over."""
        return all(choice.is_over for choice in self.choices)

    @property
    def is_verbose(self) -> bool:
        """Whether llama-server's own object stands beside other shapes: by the request, or by --verbose."""
        return self.request.report.verbose or bool(self.service.options.defaults.get("verbose"))

    @property
    def usage(self) -> dict[str, Any]:
        return usage_of(self.answers, self.request.candidates)

    def prompt(self, index: int) -> ToldPrompt:
        """The prompt of one of the choices."""
        return self.prompts[index // self.request.choices]

    def tell(self, record: Record) -> None:
        """What the log and spans say of them: tokens and times."""
        usage = self.usage
        details = usage["prompt_tokens_details"]
        record.tokens |= {
            "prompt_tokens": usage["prompt_tokens"],
            "cached_tokens": details["cached_tokens"],
            "generated_tokens": usage["completion_tokens"],
        }
        for answer in self.answers:
            if answer.ids:
                times = answer.times
                record.stages += [
                    ("queue", self.submitted, times.started), ("read", times.started, times.first),
                    ("generate", times.first, times.last),
                ]  # fmt: skip
        encoding = self.service.model.engine.watch.encoding(self.media)
        if encoding is not None and encoding[0] >= self.start:
            record.stages.append(("encode", *encoding))

    def timings(self, index: int, piece: Piece | None = None) -> dict[str, float]:
        """How long an answer has taken up to a piece, or in all, as llama-server tells it."""
        answer = self.choices[index].answer
        usage, times = answer.usage, answer.times
        if piece is None:
            return timings_of(usage, times, len(answer.ids))
        if piece.progress is not None:
            done = piece.progress.done
            return timings_of(replace(usage, prompt=done), Times(times.started, piece.at, piece.at), 0)
        return timings_of(usage, replace(times, last=piece.at), piece.count)

    def extras(self, delta: Delta) -> dict[str, Any]:
        """What stands beside a piece of a stream, where it was asked for."""
        piece = delta.piece
        told: dict[str, Any] = {}
        if self.request.report.timings_per_token:
            told["timings"] = self.timings(delta.choice, piece)
        if (progress := piece.progress) is not None:
            milliseconds = round(1000 * (piece.at - self.choices[delta.choice].answer.times.started))
            counts = {"total": progress.total, "cache": progress.cached, "processed": progress.done}
            told["prompt_progress"] = {**counts, "time_ms": milliseconds}
        return told

    def logprobs(self, told: Iterable[Logprobs]) -> list[dict[str, Any]] | None:
        """Of some tokens; None where none were asked for."""
        if self.request.sampling.logprobs is None:
            return None
        as_ids, drawn = self.request.report.return_tokens_as_token_ids, self.request.sampling.post_sampling_probs
        return logprobs_of(told, self.service.model.tokenizer, as_ids=as_ids, drawn=drawn)

    def token(self, id: int) -> dict[str, Any]:
        """The entry of a token of which nobody knows how likely it was."""
        return token_entry(id, self.service.model.tokenizer, as_ids=self.request.report.return_tokens_as_token_ids)

    def choose(self) -> None:
        """Of the answers to each prompt keep the likeliest, by their ids' mean log-probability, as OpenAI does."""
        each, kept = self.request.candidates, self.request.choices
        if each == kept:
            return
        groups = [self.choices[start : start + each] for start in range(0, len(self.choices), each)]
        best = [choice for group in groups for choice in sorted(group, key=_mean, reverse=True)[:kept]]
        self.choices = [replace(choice, index=index) for index, choice in enumerate(best)]

    @contextmanager
    def running(self) -> Iterator[Ready[int]]:
        """While somebody reads them: places of those of which there may be more. Afterwards they are cancelled."""
        slots, card, mine = self.service.slots, self.service.card, self.choices
        try:
            asked = [self.prompts[choice.index // self.request.candidates].rows for choice in mine]
            slots.enter(mine, self.request, card, asked)
            for place, choice in enumerate(mine):
                choice.answer.listen(partial(self.service.on_loop, partial(self._ready.put, place)))
            yield self._ready
        finally:
            slots.leave(mine, card)
            for answer in self.answers:
                answer.cancel()

    def taken(self, place: int) -> Iterator[Delta]:
        """What there is of an answer, by its place, to be taken at once, but not more than others can wait for.

        Taking it raises what the answer raises.
        """
        choice, count = self.choices[place], 0
        answer = choice.answer
        piece = answer.next_piece(wait=False)
        while piece is not None:
            if not self._heard and piece.progress is None:
                self._hear()
            self._observe_gap(choice, piece)
            yield choice.take(piece)
            count += 1
            if count == _AT_ONCE:
                self._ready.put(place)
                break
            piece = answer.next_piece(wait=False) if answer.has_more else None

    def _hear(self) -> None:
        """The first token of all."""
        self._heard, waited = True, time.perf_counter() - self.start
        self.service.metrics.add("first_token_seconds_total", waited)
        self.service.metrics.observe("time_to_first_token_seconds", waited)

    def _observe_gap(self, choice: RunningChoice, piece: Piece) -> None:
        """The time between tokens; where several make a piece, it is shared among them."""
        if not piece.ids:
            return
        gaps = len(piece.ids) if choice.told_at else len(piece.ids) - 1
        begin, choice.told_at = choice.told_at or choice.answer.times.first, piece.at
        for _ in range(gaps):
            self.service.metrics.observe("time_between_tokens_seconds", (piece.at - begin) / gaps)

    def count(self) -> None:
        """Into the metrics, once they are over."""
        metrics = self.service.metrics
        for number, answer in enumerate(self.answers):
            usage, times, is_first = answer.usage, answer.times, number % self.request.candidates == 0
            metrics.observe("queue_seconds", times.started - self.submitted)
            metrics.answered(
                AnswerCost(
                    prompt_tokens=usage.prompt if is_first else 0, cached_tokens=usage.cached if is_first else 0,
                    media_tokens=usage.pictures + usage.sounds if is_first else 0, generated_tokens=len(answer.ids),
                    prompt_seconds=max(0.0, times.first - times.started),
                    generating_seconds=max(0.0, times.last - times.first),
                )
            )  # fmt: skip
        metrics.add("answer_seconds_total", time.perf_counter() - self.start)


def _mean(choice: RunningChoice) -> float:
    told = [token.chosen[1] for token in choice.logprobs]
    return sum(told) / len(told) if told else 0.0


class ResponseFormat(Protocol):
    """How answers look on the way out: a protocol's shapes, and nothing of how answers are made."""

    @property
    def is_marked(self) -> bool:
        """Whether a stream ends with a mark."""
        ...

    def whole(self, told: Answers) -> Mapping[str, Any] | list[Any]:
        """All answers, which are over."""
        ...

    def begin(self, told: Answers) -> Iterable[Mapping[str, Any]]:
        """What stands before all pieces."""
        ...

    def delta(self, told: Answers, delta: Delta) -> Iterable[Mapping[str, Any]]:
        """What a piece becomes; the last one of an answer tells that it is over."""
        ...

    def close(self, told: Answers) -> Iterable[Mapping[str, Any]]:
        """What stands after all answers."""
        ...


async def generate(
    service: Service, exchange: Exchange, questions: list[Question], request: GenerationRequest, *, kind: str
) -> Answers:
    """Start the answers to all questions."""
    media = frozenset(s.digest for question in questions for s in question.prompt.spans if isinstance(s, MediaSpan))
    submitted = time.perf_counter()
    answers, prompts = await service.work(partial(_start, service.model, questions, request))
    return Answers(service, request, kind, answers, prompts, exchange.started, submitted, media)


def _start(
    model: Model, questions: list[Question], request: GenerationRequest, *, check: Callable[[], None]
) -> tuple[list[Answer], list[ToldPrompt]]:
    """Answers to questions, each with a seed of its own; before them, log-probabilities of the prompts."""
    check()
    _check_entries(model, questions, request)
    grammar = None
    if request.form is not None:
        request.form.check(model)
        grammar = request.form.grammar
    prompts = [_told(model, question, request.report.prompt_logprobs, check) for question in questions]
    answers: list[Answer] = []
    ranked = request.candidates > request.choices and request.sampling.logprobs is None
    asked = replace(request.sampling, logprobs=0) if ranked else request.sampling
    for question in questions:
        for choice in range(request.candidates):
            if not len(question.prompt):  # as llama-server answers it
                answers.append(Answer.empty(model.tokenizer.stream()))
                continue
            sampling = asked if asked.seed is None else replace(asked, seed=(asked.seed + choice) % 2**64)
            made = model.generate(
                question, sampling, stop=request.ending, progress=request.report.return_progress, reply=request.reply,
                grammar=grammar,
            )  # fmt: skip
            answers.append(made)
    return answers, prompts


def _check_entries(model: Model, questions: list[Question], request: GenerationRequest) -> None:
    """Refuse more log-probabilities than can be written while others have their turn."""
    asked, of_prompt = request.sampling.logprobs or 0, request.report.prompt_logprobs or 0
    most = min(request.sampling.max_tokens or model.context, model.context)
    entries = sum(len(question.prompt) * of_prompt + most * asked * request.candidates for question in questions)
    if max(asked, of_prompt) > _FREE_LOGPROBS and entries > _MOST_ENTRIES:
        what = f"up to {entries} log-probabilities of rivals, at most {_MOST_ENTRIES}"
        raise FieldError("logprobs", what, hint=f"ask for {_FREE_LOGPROBS} rivals, or for fewer tokens (max_tokens)")


def _told(model: Model, question: Question, most: int | None, check: Callable[[], None]) -> ToldPrompt:
    known: Sequence[Logprobs] | None = None
    if most is not None:
        known = model.prompt_logprobs(question.prompt, most, check=check) if len(question.prompt) > 1 else ()
    return ToldPrompt(model.tokenizer, question.prompt.gone_on(()), known)
