"""The answers of a request, written: in one response, or as events while they are made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from opsin.serve.exchange import Exchange
from opsin.serve.generation import Answers, ResponseFormat
from opsin.serve.record import Record


async def write(exchange: Exchange, answers: Answers, form: ResponseFormat) -> None:
    """The answers in one response, or as events."""

    def read(place: int) -> bool:
        for _ in answers.taken(place):
            pass
        return not answers.is_over

    with ExitStack() as stack:
        stack.callback(answers.tell, Record.of(exchange.request.scope))
        if answers.request.stream:
            await _EventWriter(exchange, answers, form).write()
            return
        ready = stack.enter_context(answers.running())
        while not answers.is_over:
            for place in await ready.get(read):
                read(place)
        answers.count()
        answers.choose()
        await exchange.value(form.whole(answers))


class _EventWriter:
    """Writes answers as events. What is ready at once is written at once."""

    def __init__(self, exchange: Exchange, answers: Answers, form: ResponseFormat) -> None:
        self._exchange, self._answers, self._form = exchange, answers, form
        self._begun = False

    async def write(self) -> None:
        """All of them."""
        exchange, answers = self._exchange, self._answers
        with answers.running() as ready:
            while not answers.is_over:
                events = list[bytes]()
                try:
                    for place in await ready.get(self._write_now):
                        events.extend(self._events(place))
                finally:  # also what came before an error
                    if events:
                        await exchange.write(b"".join(events))
            answers.count()
            await exchange.write(b"".join(map(exchange.framing.frame, self._form.close(answers))))
            await exchange.end(marked=self._form.is_marked)

    def _write_now(self, place: int) -> bool:
        """Write what there is of the only answer, as most have it; whether that could be, and more will come."""
        if not self._begun or len(self._answers.choices) > 1 or not self._exchange.is_open:
            return False
        events = list[bytes]()
        try:
            events.extend(self._events(place))
        finally:
            self._exchange.write_now(b"".join(events))
        return not self._answers.is_over

    def _events(self, place: int) -> Iterator[bytes]:
        """What there is of an answer."""
        frame, form = self._exchange.framing.frame, self._form
        for delta in self._answers.taken(place):
            if not self._begun:
                self._begun = True
                yield from map(frame, form.begin(self._answers))
            yield from map(frame, form.delta(self._answers, delta))
