"""Logits of a whole prompt, beside whatever else runs.

Thread: anybody's; what needs the device runs on the engine's, between two steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from opsin.arrays import Floats
from opsin.engine.engine import Engine
from opsin.engine.logprobs import Logprobs, logprobs
from opsin.engine.room import Room
from opsin.engine.rows import PromptRows
from opsin.engine.runner import Runner
from opsin.errors import RequestError
from opsin.spans import MediaSpan, Prompt, TextSpan

LOOK_AGAIN_SECONDS = 0.05


def score(engine: Engine, runner: Runner, prompt: Prompt, sizes: Sequence[int] = ()) -> Floats:
    """float32 [rows, vocabulary] after each row of a prompt; its media is encoded first. `sizes` as `Runner.score`."""
    media = [span for span in prompt.spans if isinstance(span, MediaSpan)]
    if media:
        engine.embed(media)

    def run() -> Floats:
        room = Room.of(engine, PromptRows(prompt))
        try:
            return runner.score(
                prompt, room.pages, sizes, memory=room.memory, states=room.states, reach=room.reach(engine)
            )
        finally:
            room.give_back(engine)

    return engine.call(run)


def prompt_logprobs(
    engine: Engine, runner: Runner, prompt: Prompt, most: int, *, check: Callable[[], None] = lambda: None
) -> list[Logprobs]:
    """Of each id of a prompt of text but the first: how likely it was after those before it, and `most` rivals.

    Others' steps run in between. `check` is called now and then: what it raises ends the work.
    """
    if not all(isinstance(span, TextSpan) for span in prompt.spans):
        raise RequestError("a prompt with pictures has no log-probabilities", hint="send text alone")
    ids = [id for span in prompt.spans if isinstance(span, TextSpan) for id in span.ids]
    told: list[Logprobs] = []
    with _room(engine, PromptRows(prompt), check) as room:
        parts = runner.scoring(ids, room.pages, states=room.states, reach=room.reach(engine))

        def step() -> Floats:
            part = next(parts)
            engine.watch.saw(1)
            return part

        while len(told) < len(ids) - 1:
            check()
            for row in engine.call(step):
                if len(told) < len(ids) - 1:
                    told.append(logprobs(row, ids[len(told) + 1], most))
    return told


@contextmanager
def _room(engine: Engine, rows: PromptRows, check: Callable[[], None]) -> Iterator[Room]:
    """Room in the cache, waited for while others have it."""
    while True:
        check()
        try:
            room = engine.call(lambda: Room.of(engine, rows))
            break
        except RequestError:  # there is none now
            time.sleep(LOOK_AGAIN_SECONDS)
    try:
        yield room
    finally:
        engine.call(lambda: room.give_back(engine))
