"""Recurrent states in the scheduler: where they are kept, who begins from them, and who gives them back."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_scheduler import Cache, next_id, of, picture, run, sequence, step

from opsin.engine.pages import PagePool
from opsin.engine.rows import Placed
from opsin.engine.sampling import Sampling
from opsin.engine.scheduler import Scheduler
from opsin.engine.sequence import Sequence
from opsin.engine.states import APART, EVERY, REST, SHARE, StateSlots, places
from opsin.errors import RequestError
from opsin.ops import PAGE
from opsin.spans import MediaSpan, Prompt


def made(pages=200, states=12, sequences=4, rows=512):
    return Scheduler(PagePool(pages), sequences=sequences, rows=rows, states=StateSlots(states)), Cache()


def first_part(scheduler, cache, s, budget=512):
    scheduler.add(s)
    return next(part for part in step(scheduler, budget, cache) if part.sequence is s)


def follow(s, *ids, tokens=3):
    """A prompt of all that a sequence computed, and of more."""
    return Sequence(Prompt.of([[*s.ids[: s.computed], *ids]]), Sampling(max_tokens=tokens), frozenset())


# Where states are kept


def test_a_long_prompt_has_few_places_and_one_near_its_end():
    rows = 20 * EVERY + 30
    found = places(rows, 0, 0, 0, [])
    assert found[-1] == (rows - REST) // PAGE * PAGE
    assert all(place % PAGE == 0 for place in found)
    assert all(b - a >= rows // SHARE for a, b in zip([0, *found], found, strict=False))
    assert SHARE // 2 <= len(found) <= SHARE


@pytest.mark.parametrize("rows", [1, REST, PAGE + REST, APART + REST - 1])
def test_short_prompts_have_no_places(rows):
    assert places(rows, 0, 0, 0, []) == []
    assert places(APART + REST, 0, 0, 0, []) == [APART]


def test_media_and_found_pages_have_places():
    media = [Placed(100, MediaSpan(b"cat", 150, 150)), Placed(900, MediaSpan(b"dog", 210, 210))]
    assert places(1500, 0, 0, 0, media) == [192, 512, 1088, 1472]
    assert places(1500, 0, 0, 640, media) == [192, 640, 1088, 1472]
    assert places(1500, 0, 0, 1408, media) == [192, 512, 1088, 1472]  # too near to the end
    assert places(1500, 700, 192, 640, media) == [1088, 1472]


def test_nothing_is_kept_near_what_is_kept_already():
    assert places(1000, 900, 896, 0, []) == []
    assert places(1000 + PAGE, 900, 896, 0, []) == [1024]


def test_a_prompt_ends_a_step_before_its_end_and_its_state_is_found_again():
    scheduler, cache = made()
    scheduler.add(s := sequence(300))
    assert [(p.start, p.rows, p.wanted) for _ in range(2) for p in step(scheduler, 512, cache)] == [
        (0, 256, False), (256, 44, True),
    ]  # fmt: skip
    run(scheduler, 512, cache)
    part = first_part(scheduler, cache, sequence(300))
    assert (part.start, part.rows) == (256, 44)
    assert part.sequence.stream.cached == 256
    assert s.computed == 302


def test_a_conversation_goes_on_where_its_answer_ended():
    for rows in (300, 319, 318):  # within a page, and where one is full
        scheduler, cache = made()
        scheduler.add(s := sequence(rows, tokens=3))
        run(scheduler, 512, cache)
        part = first_part(scheduler, cache, follow(s, *range(40)))
        assert (part.start, part.rows) == (s.computed, 40)
        assert scheduler.states.pool.count - scheduler.states.pool.free == 1
        assert not scheduler.states.has(s.key(s.computed)) or s.computed % PAGE == 0  # who else could begin there?


def test_rows_of_an_answer_that_differ_are_no_beginning():
    """A state cannot be cut back: then it goes on from the last full page before."""
    scheduler, cache = made()
    scheduler.add(s := sequence(300, tokens=40))
    run(scheduler, 512, cache)
    other = Sequence(Prompt.of([[*s.ids[:335], 1, 2]]), Sampling(max_tokens=1), frozenset())
    assert first_part(scheduler, cache, other).start == 320
    run(scheduler, 512, cache)
    other = Sequence(Prompt.of([[*s.ids[:310], 1, 2]]), Sampling(max_tokens=1), frozenset())
    assert first_part(scheduler, cache, other).start == 256


def test_of_an_answer_the_last_full_page_is_kept_alone():
    scheduler, cache = made()
    scheduler.add(s := sequence(300, tokens=300))
    run(scheduler, 512, cache)
    kept = [rows for rows in range(1, s.computed + 1) if scheduler.states.has(s.key(rows))]
    assert kept == [256, 576, 599]


def test_answers_that_go_on_take_turns_in_two_slots():
    scheduler, cache = made(states=9)
    scheduler.add(s := sequence(10, tokens=600))
    run(scheduler, 512, cache)
    assert s.computed > 9 * PAGE
    assert set(cache.states) <= {0, 1}


def test_a_kept_state_of_an_answer_stays_while_another_reads_it():
    scheduler, cache = made()
    scheduler.add(s := sequence(300, tokens=100))
    while s.computed < 383:
        step(scheduler, 512, cache)
    other = Sequence(Prompt.of([[*s.ids[:330], 1, 2]]), Sampling(max_tokens=1), frozenset())
    assert first_part(scheduler, cache, other).start == 320
    assert s.computed == 384
    assert scheduler.states.has(s.key(320))
    run(scheduler, 512, cache)


def test_media_that_was_seen_is_a_beginning_for_other_questions():
    scheduler, cache = made()
    scheduler.add(of([7] * 30, picture(300), [1] * 400))
    run(scheduler, 512, cache)
    assert first_part(scheduler, cache, of([7] * 30, picture(300), [2] * 400)).start == 320


def test_a_beginning_that_others_share_has_a_state_from_the_second_time_on():
    scheduler, cache = made()
    starts = []
    for seed in range(3):
        s = of([7] * 200, [seed] * 500)
        starts.append(first_part(scheduler, cache, s).start)
        run(scheduler, 512, cache)
    assert starts == [0, 0, 192]


# Together


def test_forks_begin_where_the_first_leaves_its_state():
    scheduler, cache = made(sequences=8)
    same = [sequence(400, tokens=5) for _ in range(4)]
    other = sequence(30, seed=9)
    for s in (*same, other):
        scheduler.add(s)
    parts = [part for _ in range(4) for part in step(scheduler, 200, cache)]
    assert [s.stream.cached for s in same] == [0, 384, 384, 384]
    assert sum(part.rows for part in parts if part.sequence in same and part.rows > 1) == 400 + 3 * 16
    order = [part.sequence for part in parts]
    assert order.index(other) < order.index(same[1])  # nobody else waits for that
    run(scheduler, 200, cache)
    assert len({tuple(s.ids) for s in same}) == 1


def test_whoever_waits_for_a_state_goes_on_when_its_leader_is_gone():
    scheduler, cache = made()
    leader, follower = sequence(400), sequence(400)
    scheduler.add(leader)
    scheduler.add(follower)
    step(scheduler, 100, cache)
    assert scheduler.running == [leader]
    scheduler.remove(leader)
    part = step(scheduler, 512, cache)[0]
    assert (part.sequence, part.start) == (follower, 100)


def test_nobody_waits_for_a_state_that_is_never_kept():
    """Short prompts are computed by each, at once."""
    scheduler, cache = made()
    for _ in range(2):
        scheduler.add(sequence(120))
    assert [(p.start, p.rows) for p in step(scheduler, 512, cache)] == [(0, 120)] * 2


def test_a_state_is_kept_where_somebody_reads_it():
    """However many kept ones are forgotten meanwhile."""
    scheduler, cache = made(states=3, sequences=2)
    scheduler.add(sequence(300))
    run(scheduler, 512, cache)
    scheduler.add(again := sequence(300, tokens=100))
    scheduler.add(other := sequence(300, tokens=100, seed=4))
    run(scheduler, 512, cache)
    for s, seed in ((again, 0), (other, 4)):
        assert s.ids == alone(300, 100, seed)


def test_with_one_slot_there_is_still_a_conversation():
    scheduler, cache = made(states=1, sequences=4)
    scheduler.add(s := sequence(300))
    scheduler.add(sequence(100, seed=3))
    step(scheduler, 512, cache)
    assert scheduler.running == [s]
    scheduler.remove(scheduler.waiting[0])
    run(scheduler, 512, cache)
    assert first_part(scheduler, cache, follow(s, 5, 6)).start == s.computed


def test_the_last_free_slot_may_be_the_one_where_somebody_begins():
    scheduler, cache = made(states=2)
    scheduler.add(sequence(300))
    run(scheduler, 512, cache)
    scheduler.add(dropped := sequence(300))
    scheduler.plan(512)
    scheduler.remove(dropped)
    scheduler.add(sequence(50, tokens=20, seed=7))
    step(scheduler, 512, cache)
    assert first_part(scheduler, cache, sequence(300)).start == 256
    run(scheduler, 512, cache)


def test_those_without_a_slot_wait_in_order():
    scheduler, cache = made(states=2, sequences=4)
    sequences = [sequence(20, tokens=5, seed=i) for i in range(5)]
    for s in sequences:
        scheduler.add(s)
    step(scheduler, 512, cache)
    assert scheduler.running == sequences[:2]
    run(scheduler, 512, cache)
    assert [s.generated for s in sequences] == [5] * 5


def test_a_sequence_put_aside_goes_on_where_it_was():
    scheduler, cache = made(states=2, sequences=2)
    scheduler.add(s := sequence(130, 200))
    for _ in range(70):
        step(scheduler, 512, cache)
    computed = s.computed
    scheduler._restart_later(s)
    part = step(scheduler, 512, cache)[0]
    assert (part.start, part.rows) == (computed, 1)
    run(scheduler, 512, cache)
    assert s.ids == alone(130, 200, 0)


def test_a_state_of_a_step_that_came_to_no_end_is_not_kept():
    """It may be half written. What was kept before stays."""
    scheduler, cache = made()
    scheduler.add(s := sequence(300, tokens=100))
    for _ in range(50):
        step(scheduler, 512, cache)
    scheduler.plan(512)
    scheduler.remove(s)
    assert scheduler.states.pool.free == 12
    part = first_part(scheduler, cache, follow(s, 1))
    assert (part.start, s.computed) == (320, 348)


def test_a_plan_that_is_dropped_changes_no_state():
    there = set()
    scheduler, cache = made()
    scheduler.ready = lambda span: span.digest in there
    scheduler.add(s := of([1] * 10, picture(20), [2]))
    assert step(scheduler, 512) == []
    assert s.state.settled
    there.add(b"cat")
    run(scheduler, 512, cache)


def test_a_job_borrows_two_slots():
    slots = StateSlots(3)
    taken = slots.borrow()
    assert len(set(taken)) == 2
    with pytest.raises(RequestError, match="no room for another recurrent state now"):
        slots.borrow()
    slots.pool.give_back(taken)
    slots.pool.check()
    assert slots.pool.free == 3


def alone(rows, tokens, seed):
    scheduler, cache = made(pages=20, states=1, sequences=1)
    scheduler.add(s := sequence(rows, tokens, seed))
    run(scheduler, 512, cache)
    return s.ids


jobs = st.lists(
    st.tuples(
        st.lists(
            st.one_of(
                st.integers(1, 200),
                st.builds(picture, st.integers(1, 90), st.sampled_from([b"a", b"b", b"c"]), atomic=st.booleans()),
            ),
            min_size=1, max_size=2,
        ),
        st.integers(1, 100),
    ),
    min_size=1, max_size=8,
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    jobs=jobs, pages=st.integers(28, 60), states=st.integers(1, 9), most=st.integers(1, 5),
    budget=st.integers(8, 128), arrivals=st.integers(0, 4), data=st.data(),
)  # fmt: skip
def test_whatever_becomes_of_states_answers_are_the_same(jobs, pages, states, most, budget, arrivals, data):
    scheduler, cache = made(pages, states, most, rows=128)
    live, cancelled = [], []
    for parts, tokens in jobs:
        if live and data.draw(st.booleans()):
            before = data.draw(st.sampled_from(live))
            cut = data.draw(st.integers(1, min(before.known, 120)))
            spans = [] if before.rows.media else [before.ids[:cut]]
        else:
            spans = []
        spans += [part if isinstance(part, MediaSpan) else [(i * 31) % 1000 for i in range(part)] for part in parts]
        live.append(of(*spans, [7], tokens=tokens))
        scheduler.add(live[-1])
        for _ in range(arrivals):
            if scheduler.running or scheduler.waiting:
                step(scheduler, budget, cache)
        if data.draw(st.integers(0, 4)) == 0:
            victim = data.draw(st.sampled_from(live))
            if data.draw(st.booleans()):
                for part in scheduler.plan(budget):  # a step that is stopped: what it writes is lost
                    cache.states[part.sequence.state.own] = None
                    if part.sequence is not victim:
                        scheduler.remove(part.sequence)
                        cancelled.append(part.sequence)
            scheduler.remove(victim)
            cancelled.append(victim)
    run(scheduler, budget, cache)
    scheduler.pool.check()
    scheduler.states.pool.check()
    assert (scheduler.pool.free, scheduler.states.pool.free) == (pages, states)
    for s in live:
        if s not in cancelled:
            expected = s.ids[: s.prompt_rows]
            while len(expected) < s.known:
                expected.append(next_id(expected))
            assert s.ids == expected
            assert s.generated == s.sampling.max_tokens
