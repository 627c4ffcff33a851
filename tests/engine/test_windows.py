"""Layers with a window keep the pages of the window alone, and nobody sees anything else for it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prompts import ids_of
from test_scheduler import Cache, run, sequence, step
from waiting import until

from opsin.api.memory_need import cache_bytes
from opsin.engine.draft_model import DraftModel
from opsin.engine.engine import Engine
from opsin.engine.guessing import Guessing
from opsin.engine.kept_rows import read_rows, write_rows
from opsin.engine.pages import PagePool, pages_for
from opsin.engine.runner import Limits, Runner
from opsin.engine.sampling import Sampling
from opsin.engine.scheduler import Scheduler
from opsin.engine.scoring import score
from opsin.engine.sequence import Sequence
from opsin.engine.trace import trace
from opsin.engine.windows import WindowPlaces, count_places
from opsin.models.gpt_oss import GptOss
from opsin.ops import PAGE
from opsin.spans import Prompt

WINDOW = 24
LIMITS = Limits(rows=64, outputs=64, sequences=2, context=1024, pages=40)


class NearCache(Cache):
    """What places hold, too: for each row, all that its keys and values depend on."""

    def __init__(self, window):
        super().__init__()
        self.window, self.near = window, {}

    def compute(self, part):
        super().compute(part)
        s, end = part.sequence, part.start + part.rows
        place_of = dict(enumerate(s.near.places, s.near.first))
        for block in range(max(0, part.start - self.window + 1) // PAGE, pages_for(end)):
            before, names = (s.before(block), s.names(block * PAGE, min(end, (block + 1) * PAGE)))
            known = part.start - block * PAGE
            if known > 0:
                assert self.near[place_of[block]][0] == before
                assert self.near[place_of[block]][1][:known] == names[:known]
            self.near[place_of[block]] = before, names


def made(window, pages=40, sequences=1, rows=64):
    places = count_places(window, sequences=sequences, rows=rows, pages=pages)
    scheduler = Scheduler(PagePool(pages), sequences=sequences, rows=rows, windows=WindowPlaces(window, places))
    return scheduler, NearCache(window)


def begins(scheduler, cache, ids):
    """At which row a prompt of these ids begins; it is computed to its end."""
    scheduler.add(s := Sequence(Prompt.of([ids]), Sampling(max_tokens=1), frozenset()))
    start = step(scheduler, 64, cache)[0].start
    run(scheduler, 64, cache)
    assert not s.near.places
    return start


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    jobs=st.lists(st.tuples(st.integers(1, 400), st.integers(1, 120), st.integers(0, 5)), min_size=1, max_size=9),
    pages=st.integers(10, 24), most=st.integers(1, 6), budget=st.integers(8, 512), arrivals=st.integers(1, 5),
    window=st.sampled_from([1, 24, 64, 65, 200]),
)  # fmt: skip
def test_rows_find_what_they_see(jobs, pages, most, budget, arrivals, window):
    scheduler, cache = made(window, pages, most, rows=512)
    scheduler.windows = WindowPlaces(window, count_places(window, sequences=2, rows=512, pages=pages))
    for rows, tokens, seed in jobs:
        scheduler.add(sequence(rows, tokens, seed))
        for _ in range(arrivals):
            if scheduler.running or scheduler.waiting:
                step(scheduler, budget, cache)
                scheduler.windows.check()
    run(scheduler, budget, cache)
    scheduler.windows.check()
    assert (scheduler.windows.used, scheduler.pool.free) == (0, pages)


def test_a_long_sequence_holds_its_window_and_its_step():
    scheduler, cache = made(100, pages=20)
    scheduler.add(s := sequence(700, tokens=100))
    while scheduler.running or scheduler.waiting:
        step(scheduler, 64, cache)
        assert len(s.near.places) <= 4  # 99 rows before 64
    assert scheduler.windows.count == 7


def test_a_prompt_begins_where_its_window_is_still_there():
    scheduler, cache = made(WINDOW)
    long, other = sequence(500).ids, sequence(300, seed=1).ids
    assert begins(scheduler, cache, long) == 0
    assert begins(scheduler, cache, [*long, 1, 2]) == 500
    assert begins(scheduler, cache, [*long[:200], 1]) == 0  # its window is another's by now
    assert begins(scheduler, cache, [*long[:200], 2]) == 200  # what was computed again is found
    for _ in range(2):
        begins(scheduler, cache, other)
    assert begins(scheduler, cache, long) == 0


@dataclass(frozen=True, eq=False)
class Near(GptOss):
    """A plain decoder whose every other layer has a window."""

    GLU: ClassVar = "silu"


@pytest.fixture(scope="module")
def near(decoder):
    device, whole = decoder
    return device, Near(**{field.name: getattr(whole, field.name) for field in fields(whole)}, window=WINDOW)


@pytest.fixture
def engine(near):
    """An engine that guesses, and its runner; nothing is held in the end."""
    runner = Runner(*near, LIMITS, "f32")
    made = Engine(runner, frozenset(), guessing=Guessing(most=5, always=True))
    yield made, runner
    assert until(lambda: (made.pool.free, made.windows.used) == (LIMITS.pages, 0))
    made.windows.check()
    made.close()


def logits_of(near, ids):
    """By pages that lie one after another, of which none is given back."""
    return trace(*near, ids, ["logits"], {}, LIMITS.context)["logits"]


def answer(engine, near, ids, cached, tokens=40):
    """An answer, which must be the likeliest of what is computed at once; all ids."""
    stream = engine.submit(Prompt.of([ids]), Sampling(temperature=0.0, max_tokens=tokens))
    drawn = [output.id for output in stream if output.id is not None]
    assert stream.cached == cached
    assert drawn == logits_of(near, [*ids, *drawn]).argmax(1)[len(ids) - 1 : -1].tolist()
    return [*ids, *drawn]


def test_answers_are_those_of_all_pages(near, engine):
    made, _ = engine
    assert made.windows.count == 3 * 2 + 1
    first = answer(made, near, ids_of(500), 0, tokens=150)
    second = answer(made, near, [*first, 5, 6, 7], 649)
    answer(made, near, [*second[:128], 1], 0)
    answer(made, near, [*second[:128], 2], 128)


def test_many_at_once_are_answered_as_one(near, engine):
    made, _ = engine
    prompts = [ids_of(40 + 90 * i, seed=i) for i in range(5)]
    greedy = Sampling(temperature=0.0, max_tokens=70)
    streams = [made.submit(Prompt.of([ids]), greedy) for ids in prompts]
    for ids, stream in zip(prompts, streams, strict=True):
        drawn = [output.id for output in stream if output.id is not None]
        assert drawn == logits_of(near, [*ids, *drawn]).argmax(1)[len(ids) - 1 : -1].tolist()


def test_a_draft_model_with_windows_reads_what_it_would_with_all_pages(near):
    """Drawn ids are often not the likeliest: it goes on from what was drawn."""
    drafter = DraftModel(runner := Runner(*near, LIMITS, "f32"))
    made = Engine(Runner(*near, LIMITS, "f32"), frozenset(), guessing=Guessing(most=5, always=True, drafter=drafter))
    step, wrong, right, guessed = runner.step, [], 0, 0

    def checked(plan):
        candidates = step(plan)
        texts = [part.sequence for part in plan if part.wanted]
        likeliest = [logits_of(near, text.ids)[-1].argmax() for text in texts]
        wrong.extend(texts if candidates.ids[:, 0].tolist() != likeliest else ())
        return candidates

    runner.step = checked
    drawn = Sampling(seed=1, temperature=20.0, top_k=0, top_p=1.0, min_p=0.0, max_tokens=12)
    # What a window sees leaves the first page at row 87.
    streams = [made.submit(Prompt.of([ids_of(count, seed=count)]), drawn) for count in (80, 120, 83, 86)]
    for stream in streams:
        assert len([output for output in stream if output.id is not None]) == 12
        right, guessed = right + stream.right, guessed + stream.guessed
    assert right < guessed
    assert not wrong
    assert until(lambda: (drafter.pool.free, drafter._windows.used) == (LIMITS.pages, 0))
    drafter._windows.check()
    made.close()


@pytest.mark.parametrize("sizes", [(), (7, 64, 1, 63, 2)], ids=["whole", "odd"])
def test_logits_are_those_of_all_pages(near, engine, sizes):
    made, runner = engine
    ids = ids_of(400)
    got = score(made, runner, Prompt.of([ids]), sizes)
    np.testing.assert_array_equal(got, logits_of(near, ids))


def test_rows_that_are_kept_are_gone_on_with_elsewhere(near, engine):
    made, runner = engine
    prompt = Prompt.of([answer(made, near, ids_of(300), 0)])
    kept = made.call(lambda: read_rows(made, runner, prompt))
    assert (kept.rows, len(kept.pages["self"]), len(kept.pages["window"])) == (339, 6, 2)
    other = Engine(again := Runner(*near, LIMITS, "f32"), frozenset())
    score(other, again, Prompt.of([ids_of(300, seed=1)]))  # leaves something in the places of some pages
    other.call(lambda: write_rows(other, again, prompt, kept))
    answer(other, near, [*prompt.spans[0].ids, 9], 339)
    answer(other, near, [*prompt.spans[0].ids[:256], 9], 0)
    assert other.windows.used == 0
    other.close()


def test_pages_of_windows_are_few(near):
    device, decoder = near
    for sequences, context, places in ((1, 8192, 12), (2, 1024, 14), (32, 1024, 16)):
        limits = replace(LIMITS, rows=512, sequences=sequences, context=context, pages=context // PAGE)
        runner = Runner(device, decoder, limits, "f16")
        assert runner.places == places
        foretold = cache_bytes([*decoder.groups.values()], "f16", count=limits.pages, sequences=sequences)
        assert foretold <= runner.cache_bytes < foretold + (1 << 14)
