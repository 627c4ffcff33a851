"""One request for answers: from questions to what is sent. How that looks is a `Shape`'s affair."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from opsin.api import Answer, Model, Question
from opsin.serve.generation_request import GenerationRequest
from opsin.serve.running import Delta, deltas
from opsin.serve.service import Service
from opsin.serve.stream import DONE, event, respond, unless_gone
from opsin.serve.usage import logprobs_of, timings_of, usage_of

Ask = Callable[[Model, Callable[[], None]], list[Question]]


@dataclass
class Told:
    """What is known of a request's answers: those to each prompt stand together.

    Attributes:
        first: when the first text of each answer came, in seconds of `time.perf_counter`.
    """

    service: Service
    wanted: GenerationRequest
    kind: str
    answers: list[Answer] = field(default_factory=list)
    start: float = field(default_factory=time.perf_counter)
    first: dict[int, float] = field(default_factory=dict)
    _sent: dict[int, int] = field(default_factory=dict)  # log-probabilities, by answer

    def __post_init__(self) -> None:
        self.head = {"id": f"{self.kind}-{uuid.uuid4().hex}", "created": int(time.time()), "model": self.service.name}

    @property
    def usage(self) -> dict[str, Any]:
        return usage_of(self.answers, self.wanted.choices)

    def timings(self, index: int) -> dict[str, float]:
        """How long an answer has taken up to now, as llama-server tells it."""
        now = time.perf_counter()
        return timings_of(self.answers[index].usage, self.first.get(index, now) - self.start, now - self.start)

    def logprobs(self, index: int, *, rest: bool = False) -> list[dict[str, Any]] | None:
        """Those that have not been sent yet; None where none were asked for, or of a rest where none is left."""
        if self.wanted.sampling.logprobs is None:
            return None
        start = self._sent.get(index, 0)
        content = logprobs_of(self.answers[index], start, self.service.model.tokenizer)
        self._sent[index] = start + len(content)
        return None if rest and not content else content


class Shape(Protocol):
    """How answers look on the way out."""

    @property
    def is_marked(self) -> bool:
        """Whether a stream ends with a mark."""
        ...

    def whole(self, told: Told, texts: list[str]) -> Mapping[str, Any] | list[Any]: ...

    def begin(self, told: Told) -> Iterable[Mapping[str, Any]]:
        """What stands before all pieces."""
        ...

    def piece(self, told: Told, index: int, text: str) -> Mapping[str, Any]: ...

    def end(self, told: Told, index: int) -> Mapping[str, Any]:
        """What tells that one answer is over."""
        ...

    def usage(self, told: Told) -> Mapping[str, Any]:
        """What stands after all answers, where it was asked for."""
        ...


class Job:
    """One request.

    Args:
        ask: makes its questions, `prompts` of them.
        made: called when they are made: the body is not needed any more.
    """

    def __init__(
        self, service: Service, wanted: GenerationRequest, shape: Shape, ask: Ask, *, kind: str,
        made: Callable[[], None], prompts: int = 1,
    ) -> None:  # fmt: skip
        self._service, self._shape, self._made = service, shape, made
        self._ask: Ask | None = ask  # until the prompts are made: what it holds may be large
        self._places = prompts * wanted.choices
        self._told = Told(service, wanted, kind)

    async def respond(self, request: Request) -> Response:
        """The answers in one response, or as events."""
        wanted = self._told.wanted
        if not wanted.stream:
            return JSONResponse(await unless_gone(request, self.whole()))
        ping = self._service.options.ping_seconds if wanted.ping_seconds is None else wanted.ping_seconds
        return await respond(request, self.events(), ping, self._service.ended)

    async def whole(self) -> Mapping[str, Any] | list[Any]:
        """All answers in one value."""
        texts = [""] * self._places
        async with aclosing(self._deltas()) as pieces:
            async for delta in pieces:
                texts[delta.choice] += delta.text
        return self._shape.whole(self._told, texts)

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The answers as server-sent events."""
        told, shape, begun = self._told, self._shape, False
        async with aclosing(self._deltas()) as pieces:
            async for delta in pieces:
                if not begun:
                    begun = True
                    for value in shape.begin(told):
                        yield event(value)
                if delta.text:
                    yield event(shape.piece(told, delta.choice, delta.text))
                if delta.end:
                    yield event(shape.end(told, delta.choice))
        if told.wanted.usage:
            yield event(shape.usage(told))
        if shape.is_marked:
            yield DONE

    async def _deltas(self) -> AsyncGenerator[Delta, None]:
        service, told = self._service, self._told
        seconds = service.options.seconds
        until = asyncio.get_running_loop().time() + seconds
        with service.admit(self._places):
            told.answers = await service.make(self._begin, until)
            self._ask = None
            self._made()
            async with aclosing(deltas(told.answers, service.readers, until=until, seconds=seconds)) as pieces:
                async for delta in pieces:
                    if not told.first:
                        service.metrics.add("first_token_seconds_total", time.perf_counter() - told.start)
                    told.first.setdefault(delta.choice, time.perf_counter())
                    yield delta
            self._counted()

    def _begin(self, check: Callable[[], None]) -> list[Answer]:
        """Make the questions and start their answers. `check` raises where nobody waits for them."""
        model, wanted = self._service.model, self._told.wanted
        assert self._ask is not None
        questions = self._ask(model, check)
        check()
        answers: list[Answer] = []
        for question in questions:
            for choice in range(wanted.choices):
                seed = wanted.sampling.seed
                sampling = wanted.sampling if seed is None else replace(wanted.sampling, seed=(seed + choice) % 2**64)
                answers.append(model.generate(question, sampling, stop=wanted.stop))
        return answers

    def _counted(self) -> None:
        told, metrics = self._told, self._service.metrics
        usage, end = told.usage, time.perf_counter()
        details = usage["prompt_tokens_details"]
        metrics.add("prompt_tokens_total", usage["prompt_tokens"])
        metrics.add("cached_tokens_total", details["cached_tokens"])
        metrics.add("media_tokens_total", details["image_tokens"])
        metrics.add("generated_tokens_total", usage["completion_tokens"])
        metrics.add("generating_seconds_total", end - min(told.first.values(), default=end))
        metrics.add("answer_seconds_total", end - told.start)
