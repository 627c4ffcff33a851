"""The scheduler alone, with a model whose next id is a hash of the ids before."""

from __future__ import annotations

from hashlib import blake2b

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsin.engine.engine import Pace
from opsin.engine.pages import PagePool, pages_for
from opsin.engine.sampling import Sampling
from opsin.engine.scheduler import Scheduler
from opsin.engine.sequence import Sequence
from opsin.spans import Prompt

CONTEXT = 640


def sequence(rows, tokens=3, seed=0):
    ids = [(seed * 7919 + i * 31) % 1000 for i in range(rows)]
    return Sequence(Prompt.of([ids]), Sampling(max_tokens=tokens), frozenset())


def next_id(ids):
    return int.from_bytes(blake2b(repr(ids).encode(), digest_size=2).digest(), "little")


def step(scheduler, budget, cache=None):
    """Plan a step, check what every plan promises, and take its results."""
    decoding = [s for s in scheduler.running if s.waiting_rows == 1]
    plan = scheduler.plan(budget)
    scheduler.pool.check()
    assert sum(part.rows for part in plan) <= budget
    assert len({id(part.sequence) for part in plan}) == len(plan)
    assert all(part.rows > 0 and part.start == part.sequence.computed for part in plan)
    held = [page for s in scheduler.running for page in s.pages]
    assert len(set(held)) == len(held) == scheduler.pool.count - scheduler.pool.free
    assert not any(s.pages for s in scheduler.waiting)
    ready = [part for part in plan if part.sequence in decoding]
    assert plan[: len(ready)] == ready  # those who stream come first
    for part in plan:
        s = part.sequence
        assert len(s.pages) >= pages_for(part.start + part.rows)
        assert part.wanted == (part.start + part.rows == s.known)
        s.computed += part.rows
        if part.wanted and s.accept(next_id(s.ids), CONTEXT) is not None:
            scheduler.remove(s)
    return plan


def run(scheduler, budget, most=10_000):
    for _ in range(most):
        if not (scheduler.running or scheduler.waiting):
            return
        assert step(scheduler, budget), "a step without work"
    raise AssertionError("it does not come to an end")


def alone(rows, tokens, seed):
    scheduler, s = Scheduler(PagePool(20), sequences=1), sequence(rows, tokens, seed)
    scheduler.add(s)
    run(scheduler, 512)
    return s.ids


def test_a_prompt_is_cut_into_the_budget():
    scheduler = Scheduler(PagePool(10), sequences=2)
    scheduler.add(sequence(300))
    parts = [step(scheduler, 128)[0] for _ in range(3)]
    assert [(p.start, p.rows, p.wanted) for p in parts] == [(0, 128, False), (128, 128, False), (256, 44, True)]


def test_those_who_stream_come_before_prompts():
    scheduler = Scheduler(PagePool(20), sequences=3)
    old, young = sequence(400, seed=1), sequence(20, tokens=50, seed=2)
    scheduler.add(old)
    scheduler.add(young)
    step(scheduler, 420)
    old.ids += [1] * 100
    plan = step(scheduler, 64)
    assert [(p.sequence, p.rows) for p in plan] == [(young, 1), (old, 63)]


def test_waiting_sequences_start_in_order():
    scheduler = Scheduler(PagePool(40), sequences=2)
    sequences = [sequence(10, seed=i) for i in range(5)]
    for s in sequences:
        scheduler.add(s)
    started = []
    while scheduler.running or scheduler.waiting:
        started += [p.sequence for p in step(scheduler, 64) if p.sequence not in started]
        assert len(scheduler.running) <= 2
    assert started == sequences


def test_a_large_one_at_the_head_is_not_overtaken():
    scheduler = Scheduler(PagePool(10), sequences=4)
    first, large, small = sequence(300, 100), sequence(400, 2), sequence(5, 2)
    for s in (first, large, small):
        scheduler.add(s)
    step(scheduler, 512)
    assert scheduler.running == [first]
    assert scheduler.waiting == [large, small]


def test_a_sequence_put_aside_gives_its_pages_and_starts_again():
    scheduler = Scheduler(PagePool(3), sequences=3)
    old, young, late = sequence(60, 100, seed=1), sequence(60, 100, seed=2), sequence(100, seed=3)
    for s in (old, young, late):
        scheduler.add(s)
    while len(scheduler.running) != 1 or old.generated == 0:
        step(scheduler, 128)
    assert scheduler.running == [old]
    assert scheduler.waiting == [young, late]
    assert young.computed == 0
    run(scheduler, 128)
    assert old.ids == alone(60, 100, 1)
    assert young.ids == alone(60, 100, 2)


def test_removing_frees_pages_at_once():
    scheduler = Scheduler(PagePool(10), sequences=2)
    running, waiting = sequence(300), sequence(630)
    scheduler.add(running)
    scheduler.add(waiting)
    step(scheduler, 256)
    assert scheduler.pool.free == 6
    scheduler.remove(running)
    scheduler.remove(waiting)
    assert scheduler.pool.free == 10
    assert not scheduler.running
    assert not scheduler.waiting


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    jobs=st.lists(st.tuples(st.integers(1, 400), st.integers(1, 120), st.integers(0, 9)), min_size=1, max_size=9),
    pages=st.integers(10, 24), most=st.integers(1, 6), budget=st.integers(8, 512), arrivals=st.integers(1, 5),
)  # fmt: skip
def test_everybody_gets_the_answer_that_it_gets_alone(jobs, pages, most, budget, arrivals):
    scheduler = Scheduler(PagePool(pages), sequences=most)
    sequences = [sequence(rows, tokens, seed) for rows, tokens, seed in jobs]
    for s in sequences:
        scheduler.add(s)
        for _ in range(arrivals):
            if scheduler.running or scheduler.waiting:
                step(scheduler, budget)
    run(scheduler, budget)
    assert scheduler.pool.free == pages
    for s, job in zip(sequences, jobs, strict=True):
        assert s.ids == alone(*job)


def test_pace_gives_a_lonely_prompt_all_rows():
    pace = Pace(512)
    pace.saw(512, 10.0)
    assert pace.rows(streaming=False) == 512


def test_pace_keeps_a_step_within_its_time_while_somebody_streams():
    pace = Pace(512, seconds=0.1)
    assert pace.rows(streaming=True) == 512
    pace.saw(512, 0.512)
    assert pace.rows(streaming=True) == 100
    for _ in range(30):
        pace.saw(100, 0.2)
    assert 48 <= pace.rows(streaming=True) <= 51


def test_pace_leaves_room_for_prompts_beside_all_who_stream():
    pace = Pace(512, seconds=0.1, least=32)
    pace.saw(512, 100.0)
    assert pace.rows(streaming=True) == 32
    assert pace.rows(streaming=True, ready=31) == 63
    assert pace.rows(streaming=True, ready=500) == 512


def test_pace_does_not_learn_from_small_steps():
    pace = Pace(512)
    pace.saw(8, 5.0)
    assert pace.rows(streaming=True) == 512
