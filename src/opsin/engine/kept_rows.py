"""What the cache holds of a prompt: read out, put back later, or forgotten.

Thread: the engine's, inside `Engine.call`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from opsin.arrays import Bytes
from opsin.engine.engine import Engine
from opsin.engine.pages import pages_for
from opsin.engine.runner import Runner
from opsin.engine.sampling import Sampling
from opsin.engine.sequence import Sequence
from opsin.errors import RequestError
from opsin.nn.batch import MEMORY
from opsin.ops import PAGE
from opsin.spans import Prompt


@dataclass(frozen=True)
class KeptRows:
    """The first `rows` rows of a prompt.

    Attributes:
        pages: what they are in each KV group, [pages, bytes of one].
        states: the recurrent states after them, by kind.
    """

    rows: int
    pages: Mapping[str, Bytes]
    states: Mapping[str, Bytes]


@dataclass(frozen=True)
class _Found:
    """Where they lie. `state` is a slot; -1 where the model has none."""

    rows: int
    pages: list[int]
    state: int


def read_rows(engine: Engine, runner: Runner, prompt: Prompt) -> KeptRows:
    """As many rows of a prompt as the cache holds and somebody could go on from, perhaps none."""
    found = _find(engine, _sequence(runner, prompt))
    groups = {name: pages.read(found.pages) for name, pages in runner.pages.items() if name != MEMORY}
    states = {name: kept.read(found.state) for name, kept in runner.states.items() if found.state >= 0}
    return KeptRows(found.rows, groups, states)


def write_rows(engine: Engine, runner: Runner, prompt: Prompt, kept: KeptRows) -> None:
    """Put back what `read_rows` gave of this prompt, for whoever begins with the same rows.

    Raises RequestError where it has no room, or is of another shape than this model's; then nothing is put back.
    """
    sequence = _sequence(runner, prompt)
    _check(runner, sequence, kept)
    if not kept.rows:
        return
    pages = engine.borrow_pages(kept.rows)
    slots = engine.states.pool.take(1) if engine.states is not None else []
    if slots is None:
        engine.return_pages(pages)
        raise RequestError("there is no room for another recurrent state now", hint="load with more for states")
    for name, contents in kept.pages.items():
        runner.pages[name].write(pages, contents)
    for name, state in kept.states.items():
        runner.states[name].write(slots[0], state)
    full, rest = divmod(kept.rows, PAGE)
    for page, key in zip(pages, sequence.keys(full), strict=False):
        engine.pool.keep(page, key)
    if rest:
        engine.pool.keep_tail(pages[full], sequence.before(full), sequence.names(full * PAGE, kept.rows))
    engine.return_pages(pages)
    if engine.states is not None:
        engine.states.pool.keep(slots[0], sequence.key(kept.rows))
        engine.states.pool.give_back(slots)


def forget_rows(engine: Engine, runner: Runner, prompt: Prompt) -> int:
    """Nobody finds the rows of this prompt any more; how many these were. Who uses them goes on."""
    sequence = _sequence(runner, prompt)
    keys = sequence.keys(sequence.known // PAGE)
    pages = engine.pool.find(keys)
    tail, more = _tail(engine, sequence, len(pages))
    rows = len(pages) * PAGE + more
    if engine.states is not None:
        ends = [*keys[: len(pages)], *([sequence.key(rows)] if more else [])]
        engine.states.pool.forget([slot for key in ends for slot in engine.states.pool.find([key])])
    engine.pool.forget([*pages, tail] if more else pages)
    return rows


def _sequence(runner: Runner, prompt: Prompt) -> Sequence:
    return Sequence(prompt, Sampling(), frozenset(), runner.decoder.axes)


def _find(engine: Engine, sequence: Sequence) -> _Found:
    keys, states = sequence.keys(sequence.known // PAGE), engine.states
    pages = engine.pool.find(keys)
    start = len(pages) * PAGE
    tail, more = _tail(
        engine, sequence, len(pages), lambda count: states is None or states.has(sequence.key(start + count))
    )
    if states is not None and not more:
        del pages[states.deepest(keys[: len(pages)]) :]
    rows = len(pages) * PAGE + more
    state = states.pool.find([sequence.key(rows)])[0] if states is not None and rows else -1
    return _Found(rows, [*pages, tail] if more else pages, state)


def _tail(
    engine: Engine, sequence: Sequence, full: int, fits: Callable[[int], bool] = lambda count: True
) -> tuple[int, int]:
    """The page that begins with the most rows after so many full ones, and how many these are."""
    names = sequence.names(full * PAGE, min((full + 1) * PAGE, sequence.known))
    return engine.pool.find_tail(sequence.before(full), names, fits)


def _check(runner: Runner, sequence: Sequence, kept: KeptRows) -> None:
    """Raises RequestError for what is not of this model and prompt."""
    groups = {name for name in runner.pages if name != MEMORY}
    fits = 0 <= kept.rows <= sequence.known and kept.pages.keys() == groups
    fits = fits and all(len(pages) == pages_for(kept.rows) for pages in kept.pages.values())
    if not fits or kept.states.keys() != (runner.states.keys() if kept.rows else set()):
        raise RequestError("the rows are of another model", hint="restore them where they were saved")
