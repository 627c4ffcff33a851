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

from opsin.api import Answer, Model, Question
from opsin.serve.exchange import Exchange
from opsin.serve.generation_request import GenerationRequest
from opsin.serve.service import Service
from opsin.serve.stream import DONE, event
from opsin.serve.usage import logprobs_of, timings_of, usage_of


@dataclass(frozen=True)
class Delta:
    """A piece of the text of one of a request's answers; `end` says that the answer is over."""

    choice: int
    text: str
    end: bool = False


@dataclass
class Answers:
    """Running answers and what is known of them: those to each prompt stand together.

    Attributes:
        first: when the first text of each answer came, in seconds of `time.perf_counter`.
    """

    service: Service
    request: GenerationRequest
    kind: str
    answers: list[Answer]
    start: float
    first: dict[int, float] = field(default_factory=dict)
    _sent: dict[int, int] = field(default_factory=dict)  # log-probabilities, by answer

    def __post_init__(self) -> None:
        self.head = {"id": f"{self.kind}-{uuid.uuid4().hex}", "created": int(time.time()), "model": self.service.name}

    @property
    def usage(self) -> dict[str, Any]:
        return usage_of(self.answers, self.request.choices)

    def timings(self, index: int) -> dict[str, float]:
        """How long an answer has taken up to now, as llama-server tells it."""
        now = time.perf_counter()
        return timings_of(self.answers[index].usage, self.first.get(index, now) - self.start, now - self.start)

    def logprobs(self, index: int, *, rest: bool = False) -> list[dict[str, Any]] | None:
        """Those that have not been sent yet; None where none were asked for, or of a rest where none is left."""
        if self.request.sampling.logprobs is None:
            return None
        start = self._sent.get(index, 0)
        content = logprobs_of(self.answers[index], start, self.service.model.tokenizer)
        self._sent[index] = start + len(content)
        return None if rest and not content else content

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """The pieces as they come. Whoever stops reading cancels all answers. Raises what an answer raises."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Queue[Delta | BaseException] = asyncio.Queue()

        def tell(answer: Answer, news: Delta | BaseException) -> None:
            try:
                loop.call_soon_threadsafe(ready.put_nowait, news)
            except RuntimeError:  # the loop has ended: nobody reads
                answer.cancel()

        def read(choice: int, answer: Answer) -> None:
            try:
                for text in answer:
                    tell(answer, Delta(choice, text))
                tell(answer, Delta(choice, "", end=True))
            except BaseException as error:  # noqa: BLE001 - handed to whoever reads
                tell(answer, error)

        left = len(self.answers)
        try:
            for choice, answer in enumerate(self.answers):
                self.service.readers.submit(read, choice, answer)
            while left:
                delta = await ready.get()
                if isinstance(delta, BaseException):
                    raise delta
                if delta.end:
                    left -= 1
                if not self.first:
                    self.service.metrics.add("first_token_seconds_total", time.perf_counter() - self.start)
                self.first.setdefault(delta.choice, time.perf_counter())
                yield delta
            self._count()
        finally:
            for answer in self.answers:
                answer.cancel()

    def _count(self) -> None:
        metrics, usage, end = self.service.metrics, self.usage, time.perf_counter()
        details = usage["prompt_tokens_details"]
        metrics.add("prompt_tokens_total", usage["prompt_tokens"])
        metrics.add("cached_tokens_total", details["cached_tokens"])
        metrics.add("media_tokens_total", details["image_tokens"])
        metrics.add("generated_tokens_total", usage["completion_tokens"])
        metrics.add("generating_seconds_total", end - min(self.first.values(), default=end))
        metrics.add("answer_seconds_total", end - self.start)


class ResponseFormat(Protocol):
    """How answers look on the way out."""

    @property
    def is_marked(self) -> bool:
        """Whether a stream ends with a mark."""
        ...

    def whole(self, told: Answers, texts: list[str]) -> Mapping[str, Any] | list[Any]: ...

    def begin(self, told: Answers) -> Iterable[Mapping[str, Any]]:
        """What stands before all pieces."""
        ...

    def piece(self, told: Answers, index: int, text: str) -> Mapping[str, Any]: ...

    def end(self, told: Answers, index: int) -> Mapping[str, Any]:
        """What tells that one answer is over."""
        ...

    def usage(self, told: Answers) -> Mapping[str, Any]:
        """What stands after all answers, where it was asked for."""
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
            answers.append(model.generate(question, sampling, stop=request.stop))
    return answers


async def write(exchange: Exchange, generation: Answers, form: ResponseFormat) -> None:
    """The answers in one response, or as events."""
    deltas = generation.deltas()
    async with aclosing(deltas):
        if generation.request.stream:
            await _write_events(exchange, generation, form, deltas)
            return
        texts = [""] * len(generation.answers)
        async for delta in deltas:
            texts[delta.choice] += delta.text
        await exchange.value(form.whole(generation, texts))


async def _write_events(
    exchange: Exchange, generation: Answers, form: ResponseFormat, deltas: AsyncGenerator[Delta, None]
) -> None:
    begun = False
    async for delta in deltas:
        if not begun:
            begun = True
            for value in form.begin(generation):
                await exchange.event(event(value))
        if delta.text:
            await exchange.event(event(form.piece(generation, delta.choice, delta.text)))
        if delta.end:
            await exchange.event(event(form.end(generation, delta.choice)))
    if generation.request.usage:
        await exchange.event(event(form.usage(generation)))
    if form.is_marked:
        await exchange.event(DONE)
    await exchange.end()
