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
from opsin.engine.windows import Held, deepest, is_near, reaching
from opsin.errors import RequestError
from opsin.nn.batch import MEMORY, GroupShape
from opsin.ops import PAGE
from opsin.spans import Prompt


@dataclass(frozen=True)
class KeptRows:
    """The first `rows` rows of a prompt.

    Attributes:
        pages: what they are in each KV group, [pages, bytes of one]; with a window, what the next row sees of them.
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
    near = engine.windows.find(found.pages, found.rows)
    groups = {name: runner.pages[name].read(near if is_near(s) else found.pages) for name, s in _own(runner).items()}
    states = {name: kept.read(found.state) for name, kept in runner.states.items() if found.state >= 0}
    return KeptRows(found.rows, groups, states)


def write_rows(engine: Engine, runner: Runner, prompt: Prompt, kept: KeptRows) -> None:
    """Put back what `read_rows` gave of this prompt, for whoever begins with the same rows.

    Raises RequestError where it has no room, or is of another shape than this model's; then nothing is put back.
    """
    sequence = _sequence(runner, prompt)
    _check(engine, runner, sequence, kept)
    if not kept.rows:
        return
    pages = engine.borrow_pages(kept.rows)
    near = Held()
    engine.windows.forget(pages)
    try:
        reaching(engine.windows, near, pages)(kept.rows, kept.rows)
        slots = engine.states.pool.take(1) if engine.states is not None else []
        if slots is None:
            raise RequestError("there is no room for another recurrent state now", hint="load with more for states")
    except RequestError:
        engine.windows.release(near)
        engine.return_pages(pages)
        raise
    for name, contents in kept.pages.items():
        runner.pages[name].write(near.places if is_near(runner.decoder.groups[name]) else pages, contents)
    for name, state in kept.states.items():
        runner.states[name].write(slots[0], state)
    full, rest = divmod(kept.rows, PAGE)
    for page, key in zip(pages, sequence.keys(full), strict=False):
        engine.pool.keep(page, key)
    if rest:
        engine.pool.keep_tail(pages[full], sequence.before(full), sequence.names(full * PAGE, kept.rows))
    engine.return_pages(pages)
    engine.windows.release(near)
    if engine.states is not None:
        engine.states.pool.keep(slots[0], sequence.key(kept.rows))
        engine.states.pool.give_back(slots)


def forget_rows(engine: Engine, runner: Runner, prompt: Prompt) -> int:
    """Nobody finds the rows of this prompt any more; how many these were. Who uses them goes on."""
    sequence = _sequence(runner, prompt)
    keys = sequence.keys(sequence.known // PAGE)
    pages = engine.pool.find(keys)
    tail, more = _tail(engine, sequence, pages)
    rows = len(pages) * PAGE + more
    if engine.states is not None:
        ends = [*keys[: len(pages)], *([sequence.key(rows)] if more else [])]
        engine.states.pool.forget([slot for key in ends for slot in engine.states.pool.find([key])])
    engine.pool.forget([*pages, tail] if more else pages)
    return rows


def _own(runner: Runner) -> dict[str, GroupShape]:
    """KV groups of a sequence's own rows."""
    return {name: shape for name, shape in runner.decoder.groups.items() if name != MEMORY}


def _sequence(runner: Runner, prompt: Prompt) -> Sequence:
    return Sequence(prompt, Sampling(), frozenset(), runner.decoder.axes)


def _find(engine: Engine, sequence: Sequence) -> _Found:
    keys, states = sequence.keys(sequence.known // PAGE), engine.states
    pages = engine.pool.find(keys)
    start = len(pages) * PAGE
    tail, more = _tail(engine, sequence, pages, lambda count: states is None or states.has(sequence.key(start + count)))
    if not more:
        del pages[deepest(engine.windows, states, pages, keys) :]
    rows = len(pages) * PAGE + more
    state = states.pool.find([sequence.key(rows)])[0] if states is not None and rows else -1
    return _Found(rows, [*pages, tail] if more else pages, state)


def _tail(
    engine: Engine, sequence: Sequence, pages: list[int], fits: Callable[[int], bool] = lambda count: True
) -> tuple[int, int]:
    """The page that begins with the most rows after these full ones, and how many these are."""
    full = len(pages)
    names = sequence.names(full * PAGE, min((full + 1) * PAGE, sequence.known))

    def whole(page: int, count: int) -> bool:
        return fits(count) and engine.windows.has([*pages, page], full * PAGE + count)

    return engine.pool.find_tail(sequence.before(full), names, whole)


def _check(engine: Engine, runner: Runner, sequence: Sequence, kept: KeptRows) -> None:
    """Raises RequestError for what is not of this model and prompt."""
    groups, whole = _own(runner), pages_for(kept.rows)
    fits = 0 <= kept.rows <= sequence.known and kept.pages.keys() == groups.keys()
    near = whole - engine.windows.first(kept.rows)
    fits = fits and all(len(kept.pages[name]) == (near if is_near(s) else whole) for name, s in groups.items())
    if not fits or kept.states.keys() != (runner.states.keys() if kept.rows else set()):
        raise RequestError("the rows are of another model", hint="restore them where they were saved")
