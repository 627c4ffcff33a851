"""The answers of one request: started, read by the event loop while they run on threads, and written.

How they look on the way out is a `ResponseFormat`'s affair.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from opsin.api import Answer, Logprobs, Model, Piece, Question
from opsin.serve.exchange import Exchange
from opsin.serve.generation_request import GenerationRequest
from opsin.serve.service import Service
from opsin.serve.stream import DONE, event
from opsin.serve.usage import logprobs_of, timings_of, usage_of


@dataclass(frozen=True)
class Delta:
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
    is_over: bool = False

    def take(self, piece: Piece) -> Delta:
        """The next of it."""
        self.text += piece.text
        self.logprobs += piece.logprobs
        self.is_over = piece.reason is not None
        return Delta(self.index, piece)


@dataclass
class Answers:
    """A request's running answers and what is known of them: those to each prompt stand together.

    Attributes:
        start: when somebody began to wait, in seconds of `time.perf_counter`.
    """

    service: Service
    request: GenerationRequest
    kind: str
    answers: list[Answer]
    start: float

    def __post_init__(self) -> None:
        self.head = {"id": f"{self.kind}-{uuid.uuid4().hex}", "created": int(time.time()), "model": self.service.name}
        self.choices = [RunningChoice(index, answer) for index, answer in enumerate(self.answers)]

    @property
    def is_over(self) -> bool:
        """Whether all answers are over."""
        return all(choice.is_over for choice in self.choices)

    @property
    def usage(self) -> dict[str, Any]:
        return usage_of(self.answers, self.request.choices)

    def timings(self, index: int, piece: Piece | None = None) -> dict[str, float]:
        """How long an answer has taken up to a piece, or up to now, as llama-server tells it."""
        answer = self.answers[index]
        times = answer.times if piece is None else replace(answer.times, last=piece.at)
        return timings_of(answer.usage, times, len(answer.ids) if piece is None else piece.count)

    def logprobs(self, told: Iterable[Logprobs]) -> list[dict[str, Any]] | None:
        """Of some tokens; None where none were asked for."""
        if self.request.sampling.logprobs is None:
            return None
        return logprobs_of(told, self.service.model.tokenizer)

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """The pieces as they come. Whoever stops reading cancels all answers. Raises what an answer raises."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Queue[tuple[RunningChoice, Piece | BaseException]] = asyncio.Queue()

        def tell(choice: RunningChoice, news: Piece | BaseException) -> None:
            try:
                loop.call_soon_threadsafe(ready.put_nowait, (choice, news))
            except RuntimeError:  # the loop has ended: nobody reads
                choice.answer.cancel()

        def read(choice: RunningChoice) -> None:
            try:
                while (piece := choice.answer.next_piece()) is not None:
                    tell(choice, piece)
            except BaseException as error:  # noqa: BLE001 - handed to whoever reads
                tell(choice, error)

        heard = False
        try:
            for choice in self.choices:
                self.service.readers.submit(read, choice)
            while not self.is_over:
                choice, news = await ready.get()
                if isinstance(news, BaseException):
                    raise news
                if not heard and news.progress is None:
                    heard = True
                    self.service.metrics.add("first_token_seconds_total", time.perf_counter() - self.start)
                yield choice.take(news)
            self._count()
        finally:
            for answer in self.answers:
                answer.cancel()

    def _count(self) -> None:
        metrics, usage = self.service.metrics, self.usage
        details = usage["prompt_tokens_details"]
        metrics.add("prompt_tokens_total", usage["prompt_tokens"])
        metrics.add("cached_tokens_total", details["cached_tokens"])
        metrics.add("media_tokens_total", details["image_tokens"])
        metrics.add("generated_tokens_total", usage["completion_tokens"])
        times = [answer.times for answer in self.answers]
        metrics.add("generating_seconds_total", max(t.last for t in times) - min(t.first for t in times))
        metrics.add("answer_seconds_total", time.perf_counter() - self.start)


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
    answers = await service.work(partial(_start, service.model, questions, request))
    return Answers(service, request, kind, answers, exchange.started)


def _start(
    model: Model, questions: list[Question], request: GenerationRequest, *, check: Callable[[], None]
) -> list[Answer]:
    """Answers to questions, each with a seed of its own."""
    check()
    answers: list[Answer] = []
    for question in questions:
        for choice in range(request.choices):
            seed = request.sampling.seed
            sampling = request.sampling if seed is None else replace(request.sampling, seed=(seed + choice) % 2**64)
            answers.append(model.generate(question, sampling, stop=request.stop, reply=request.reply))
    return answers


async def write(exchange: Exchange, answers: Answers, form: ResponseFormat) -> None:
    """The answers in one response, or as events."""
    deltas = answers.deltas()
    async with aclosing(deltas):
        if answers.request.stream:
            await _write_events(exchange, answers, form, deltas)
            return
        async for _ in deltas:
            pass
        await exchange.value(form.whole(answers))


async def _write_events(
    exchange: Exchange, answers: Answers, form: ResponseFormat, deltas: AsyncGenerator[Delta, None]
) -> None:
    begun = False
    async for delta in deltas:
        if not begun:
            begun = True
            for value in form.begin(answers):
                await exchange.event(event(value))
        for value in form.delta(answers, delta):
            await exchange.event(event(value))
    for value in form.close(answers):
        await exchange.event(event(value))
    if form.is_marked:
        await exchange.event(DONE)
    await exchange.end()
