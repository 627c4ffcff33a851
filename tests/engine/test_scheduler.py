"""The scheduler alone, with a model whose next id is a hash of the ids before."""

from __future__ import annotations

from hashlib import blake2b

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsin.engine.memory import MemoryPages
from opsin.engine.pages import PagePool, pages_for
from opsin.engine.sampling import Sampling
from opsin.engine.scheduler import BESIDE_MEDIA, WRITES, Scheduler
from opsin.engine.sequence import Sequence
from opsin.engine.states import Carried
from opsin.engine.step_budget import StepBudget
from opsin.ops import PAGE
from opsin.spans import MediaSpan, Prompt, memory_keys

CONTEXT = 640


def sequence(rows, tokens=3, seed=0):
    ids = [(seed * 7919 + i * 31) % 1000 for i in range(rows)]
    return Sequence(Prompt.of([ids]), Sampling(max_tokens=tokens), frozenset())


def next_id(ids):
    return int.from_bytes(blake2b(repr(ids).encode(), digest_size=2).digest(), "little")


class Cache:
    """What pages hold: for each row, all that its keys and values depend on."""

    def __init__(self):
        self.pages, self.memory, self.states = {}, {}, {}

    def compute(self, part):
        """Check that all rows before are there, and write those of a slice."""
        s = part.sequence
        rows = s.keys(s.known // PAGE)
        for page, key in zip(s.pages, rows[: part.start // PAGE], strict=False):
            assert self.pages[page] == (key, PAGE)
        if rest := part.start % PAGE:
            names = self.pages[s.pages[part.start // PAGE]][0]
            assert names[:rest] == s.names(part.start - rest, part.start)
        for block in range(part.start // PAGE, pages_for(part.start + part.rows)):
            filled = min(PAGE, part.start + part.rows - block * PAGE)
            names = s.names(block * PAGE, block * PAGE + filled)
            self.pages[s.pages[block]] = (rows[block] if filled == PAGE else names, filled)
        if part.writes == s.memory.left:
            for placed, pages in s.memory.unfilled:
                self.memory |= dict(zip(pages, memory_keys(placed.whole, PAGE), strict=True))
        if not part.rows:
            return
        if s.state.own >= 0:
            assert s.state.begin >= 0 or part.start == 0
            assert part.start == 0 or self.states[s.state.begin] == s.names(0, part.start)
            self.states[s.state.own] = s.names(0, part.start + part.rows)
        met = [placed.whole for placed in s.rows.memory if placed.start < part.start + part.rows]
        assert [self.memory[page] for page in s.memory.pages] == [
            key for whole in met for key in memory_keys(whole, PAGE)
        ]


def step(scheduler, budget, cache=None):
    """Plan a step, check what every plan promises, and take its results."""
    decoding = [s for s in scheduler.running if s.waiting_rows == 1]
    plan = scheduler.plan(budget)
    scheduler.pool.check()
    stretched = [part for part in plan if any(p.span.atomic for p in part.sequence.rows.media_from(part.start))]
    assert sum(part.rows for part in plan) <= (scheduler.rows if stretched else budget)
    assert len({id(part.sequence) for part in plan}) == len(plan)
    assert all(part.rows + part.writes > 0 and part.start == part.sequence.computed for part in plan)
    assert all(part.rows == 0 or part.writes == part.sequence.memory.left for part in plan)
    assert sum(part.writes for part in plan) <= WRITES
    scheduler.memory.pool.check()
    for pool, held in (
        (scheduler.pool, {page for s in scheduler.running for page in s.pages}),
        (scheduler.memory.pool, {page for s in scheduler.running for page in s.memory.pages}),
    ):
        assert len(held) == pool.count - pool.free
    assert not any(s.pages or s.memory.pages or s.state.own >= 0 for s in scheduler.waiting)
    check_states(scheduler)
    ready = [part for part in plan if part.sequence in decoding]
    assert stretched or plan[: len(ready)] == ready  # those who stream come first
    for part in plan:
        s = part.sequence
        assert len(s.pages) >= pages_for(part.start + part.rows)
        end = part.start + part.rows
        assert part.wanted == (part.rows > 0 and end == s.known)
        for placed in s.rows.media_from(part.start):
            assert placed.start >= end or not placed.span.rows or scheduler.ready(placed.span)
            assert not (placed.span.atomic and placed.start < end < placed.end)
        if cache is not None:
            cache.compute(part)
        scheduler.computed(s, part.rows, part.writes)
        if part.wanted and s.accept(next_id(s.ids), CONTEXT) is not None:
            scheduler.remove(s)
    return plan


def check_states(scheduler):
    """Each running sequence has a slot that nobody else has, and begins from its own, a kept one or zeros."""
    if scheduler.states is None:
        assert all(s.state == Carried() for s in scheduler.running)
        return
    pool, running = scheduler.states.pool, [s.state for s in scheduler.running]
    pool.check()
    own = {state.own for state in running}
    assert len(own) == len(running)
    assert min(own, default=0) >= 0
    kept = {state.begin for state in running} - own - {-1}
    assert not own & set(pool._key_of)
    assert kept <= set(pool._key_of)
    assert pool.count - pool.free == len(own | kept)


def run(scheduler, budget, cache=None, most=10_000):
    for _ in range(most):
        if not (scheduler.running or scheduler.waiting):
            return
        assert step(scheduler, budget, cache), "a step without work"
    raise AssertionError("it does not come to an end")


def alone(rows, tokens, seed):
    scheduler, s = Scheduler(PagePool(20), sequences=1, rows=512), sequence(rows, tokens, seed)
    scheduler.add(s)
    run(scheduler, 512)
    return s.ids


def test_a_prompt_is_cut_into_the_budget():
    scheduler = Scheduler(PagePool(10), sequences=2, rows=512)
    scheduler.add(sequence(300))
    parts = [step(scheduler, 128)[0] for _ in range(3)]
    assert [(p.start, p.rows, p.wanted) for p in parts] == [(0, 128, False), (128, 128, False), (256, 44, True)]


def test_those_who_stream_come_before_prompts():
    scheduler = Scheduler(PagePool(20), sequences=3, rows=512)
    old, young = sequence(400, seed=1), sequence(20, tokens=50, seed=2)
    scheduler.add(old)
    scheduler.add(young)
    step(scheduler, 420)
    old.ids += [1] * 100
    plan = step(scheduler, 64)
    assert [(p.sequence, p.rows) for p in plan] == [(young, 1), (old, 63)]


def test_waiting_sequences_start_in_order():
    scheduler = Scheduler(PagePool(40), sequences=2, rows=512)
    sequences = [sequence(10, seed=i) for i in range(5)]
    for s in sequences:
        scheduler.add(s)
    started = []
    while scheduler.running or scheduler.waiting:
        started += [p.sequence for p in step(scheduler, 64) if p.sequence not in started]
        assert len(scheduler.running) <= 2
    assert started == sequences


def test_a_large_one_at_the_head_is_not_overtaken():
    scheduler = Scheduler(PagePool(10), sequences=4, rows=512)
    first, large, small = sequence(300, 100), sequence(400, 2, seed=1), sequence(5, 2)
    for s in (first, large, small):
        scheduler.add(s)
    step(scheduler, 512)
    assert scheduler.running == [first]
    assert scheduler.waiting == [large, small]


def test_a_sequence_put_aside_gives_its_pages_and_starts_again():
    scheduler = Scheduler(PagePool(3), sequences=3, rows=512)
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
    scheduler = Scheduler(PagePool(10), sequences=2, rows=512)
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
    scheduler = Scheduler(PagePool(pages), sequences=most, rows=512)
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


# Cached beginnings


def test_a_prompt_begins_where_the_cache_ends():
    scheduler = Scheduler(PagePool(20), sequences=2, rows=512)
    for rows, start in ((300, 0), (300, 299), (256, 192), (257, 256), (100, 64), (64, 0)):
        scheduler.add(s := sequence(rows))
        part = step(scheduler, 512)[0]
        assert (part.start, part.rows) == (start, rows - start)
        assert s.stream.cached == start
        run(scheduler, 512)


def test_a_common_beginning_is_computed_once():
    scheduler = Scheduler(PagePool(40), sequences=8, rows=512)
    same = [sequence(400) for _ in range(4)]
    other = sequence(30, seed=9)
    for s in (*same, other):
        scheduler.add(s)
    parts = [part for _ in range(4) for part in step(scheduler, 200)]
    assert [s.stream.cached for s in same] == [0, 384, 384, 384]
    assert sum(part.rows for part in parts if part.sequence in same and part.rows > 1) == 400 + 3 * 16
    order = [part.sequence for part in parts]
    assert order.index(other) < order.index(same[1])  # nobody else waits for that


def test_whoever_waits_for_a_beginning_goes_on_when_its_leader_is_gone():
    scheduler = Scheduler(PagePool(40), sequences=8, rows=512)
    leader, follower = sequence(400), sequence(400)
    scheduler.add(leader)
    scheduler.add(follower)
    step(scheduler, 128)
    assert scheduler.running == [leader]
    scheduler.remove(leader)
    part = step(scheduler, 512)[0]
    assert (part.sequence, part.start) == (follower, 128)


def test_what_was_generated_is_cached_too():
    scheduler = Scheduler(PagePool(20), sequences=2, rows=512)
    scheduler.add(first := sequence(60, tokens=70))
    run(scheduler, 512)
    scheduler.add(Sequence(Prompt.of([[*first.ids, 1]]), Sampling(max_tokens=1), frozenset()))
    assert step(scheduler, 512)[0].start == 129


def test_a_conversation_goes_on_in_the_page_where_it_ended():
    """Until somebody filled the page with something else."""
    scheduler, cache = Scheduler(PagePool(20), sequences=2, rows=512), Cache()
    scheduler.add(first := of([7] * 30, picture(50), [1] * 10, tokens=5))
    for _ in range(5):
        step(scheduler, 512, cache)
    for question, start in (([2] * 20, 94), ([3] * 200, 95), ([4], 64)):
        scheduler.add(s := of([7] * 30, picture(50), [*first.ids[80:], *question]))
        assert step(scheduler, 512, cache)[0].start == start
        assert s.stream.cached == start
        scheduler.remove(s)


def test_of_a_page_where_another_ended_only_equal_rows_are_taken_over():
    for changed, start in (
        (of([7] * 70, picture(20), [1] * 9, [5]), 99),
        (of([7] * 70, picture(20, b"dog"), [1] * 10, [5]), 70),
        (of([7] * 70, picture(20), remembered(3, b"dog"), [1] * 10, [5]), 90),
        (of([8] * 70, picture(20), [1] * 10, [5]), 0),
    ):
        scheduler, cache = Scheduler(PagePool(20), sequences=2, rows=512), Cache()
        scheduler.add(of([7] * 70, picture(20), [1] * 10, tokens=1))
        step(scheduler, 512, cache)
        scheduler.add(changed)
        assert step(scheduler, 512, cache)[0].start == start, changed.prompt


def test_a_page_is_taken_over_by_one_alone():
    scheduler, cache = Scheduler(PagePool(20), sequences=3, rows=512), Cache()
    scheduler.add(sequence(30, tokens=1))
    step(scheduler, 512, cache)
    scheduler.add(one := sequence(40))
    scheduler.add(two := sequence(40))
    parts = step(scheduler, 512, cache)
    assert [(p.sequence, p.start) for p in parts] == [(one, 30), (two, 0)]
    assert one.pages != two.pages


def test_a_sequence_put_aside_finds_what_it_had_computed():
    scheduler = Scheduler(PagePool(9), sequences=2, rows=512)
    scheduler.add(s := sequence(130, 200))
    for _ in range(70):
        step(scheduler, 512)
    scheduler._restart_later(s)
    part = step(scheduler, 512)[0]
    assert (part.start, part.rows) == (199, 1)
    assert s.stream.cached == 0  # of its prompt, when it began
    run(scheduler, 512)
    assert s.ids == alone(130, 200, 0)


def test_cached_pages_are_not_promised_twice():
    """The pages that a sequence finds are no longer free for its rest."""
    scheduler = Scheduler(PagePool(5), sequences=3, rows=512)
    scheduler.add(sequence(256))
    run(scheduler, 512)
    scheduler.add(small := sequence(10, tokens=40, seed=5))
    step(scheduler, 512)
    scheduler.add(long := sequence(300))  # would find 4 of its 5 pages, and nothing for the last
    step(scheduler, 512)
    assert scheduler.running == [small]
    assert scheduler.waiting == [long]
    assert not long.was_started


# Media


def picture(rows, name=b"cat", *, atomic=False):
    return MediaSpan(name, rows, rows, atomic=atomic)


def remembered(rows, name):
    return MediaSpan(name + bytes([rows]), 0, 0, memory=rows)


def of(*parts, tokens=3):
    return Sequence(Prompt.of(parts), Sampling(max_tokens=tokens), frozenset())


def test_rows_stop_before_media_that_is_not_encoded():
    there = set()
    scheduler = Scheduler(PagePool(20), sequences=2, rows=512, ready=lambda span: span.digest in there)
    scheduler.add(s := of([1] * 100, picture(20), [2] * 50, picture(30, b"dog"), [3]))
    assert [(p.start, p.rows) for p in step(scheduler, 512)] == [(0, 100)]
    assert step(scheduler, 512) == []
    assert [span.digest for _, span in scheduler.missing()] == [b"cat", b"dog"]
    there.add(b"cat")
    assert [(p.start, p.rows) for p in step(scheduler, 12)] == [(100, 12)]
    assert scheduler.needed() == {b"cat", b"dog"}
    assert [(p.start, p.rows) for p in step(scheduler, 512)] == [(112, 58)]
    assert scheduler.needed() == {b"dog"}
    there.add(b"dog")
    step(scheduler, 512)
    assert s.generated == 1
    assert scheduler.needed() == set()


def test_few_rows_before_media_wait_for_it_where_nobody_else_has_work():
    """A step of few rows costs as much as a token; with the media's rows they cost next to nothing."""
    there = set()
    scheduler = Scheduler(PagePool(20), sequences=3, rows=512, ready=lambda span: span.digest in there)
    scheduler.add(first := of([1] * BESIDE_MEDIA, picture(20), [2]))
    assert step(scheduler, 512) == []
    assert [span.digest for _, span in scheduler.missing()] == [b"cat"]
    scheduler.add(second := of([2] * 3, picture(30, b"dog")))
    assert [part.sequence for part in step(scheduler, 512)] == [first, second]  # together they are not few
    there |= {b"cat", b"dog"}
    assert [(p.start, p.rows) for p in step(scheduler, 512)] == [(BESIDE_MEDIA, 21), (3, 30)]


def test_few_rows_before_media_go_along_with_those_who_stream():
    scheduler = Scheduler(PagePool(20), sequences=3, rows=512, ready=lambda span: False)
    scheduler.add(streaming := sequence(5, tokens=500))
    step(scheduler, 512)
    scheduler.add(waiting := of([1] * 10, picture(20), [2]))
    assert [(p.sequence, p.rows) for p in step(scheduler, 512)] == [(streaming, 1), (waiting, 10)]


def test_few_rows_that_wait_for_nothing_are_computed():
    scheduler = Scheduler(PagePool(20), sequences=3, rows=512)
    scheduler.add(of([1] * 10, picture(20), [2]))
    assert [p.rows for p in step(scheduler, 8)] == [8]


def test_rows_that_see_each_other_go_beyond_the_budget_but_not_beyond_a_step():
    scheduler = Scheduler(PagePool(20), sequences=3, rows=100)
    scheduler.add(of([1] * 10, picture(80, atomic=True), [2] * 20))
    assert [(p.start, p.rows) for p in step(scheduler, 32)] == [(0, 10)]
    assert [(p.start, p.rows) for p in step(scheduler, 32)] == [(10, 80)]
    assert [(p.start, p.rows) for p in step(scheduler, 32)] == [(90, 20)]


def test_media_as_large_as_a_step_comes_to_its_turn_beside_those_who_stream():
    scheduler = Scheduler(PagePool(40), sequences=3, rows=100)
    for _ in range(2):
        scheduler.add(sequence(5, tokens=500))
    step(scheduler, 100)
    scheduler.add(large := of(picture(100, atomic=True), [1]))
    parts = [part for _ in range(3) for part in step(scheduler, 34)]
    assert [(p.start, p.rows) for p in parts if p.sequence is large] == [(0, 100), (100, 1)]


def test_what_is_remembered_is_written_beside_those_who_stream():
    """Some rows of it a step; the rows that remember it are computed once all are there."""
    scheduler = Scheduler(PagePool(60), sequences=3, rows=512)
    scheduler.add(streaming := sequence(5, tokens=500))
    step(scheduler, 512)
    span = MediaSpan(b"cat", 0, 0, memory=2 * WRITES + 100)
    scheduler.add(s := of([1] * 3, span, [2] * 7))
    parts = [[(p.rows, p.writes) for p in step(scheduler, 512) if p.sequence is s] for _ in range(4)]
    assert parts == [[(0, WRITES)], [(0, WRITES)], [(10, 100)], [(1, 0)]]
    assert streaming.generated == 5
    scheduler.add(other := of([1] * 3, span, [3] * 7))
    assert [(p.rows, p.writes) for p in step(scheduler, 512) if p.sequence is other] == [(10, 0)]


jobs = st.lists(
    st.tuples(
        st.lists(
            st.one_of(
                st.integers(1, 150),
                st.builds(picture, st.integers(1, 90), st.sampled_from([b"a", b"b", b"c"]), atomic=st.booleans()),
                st.builds(remembered, st.integers(1, 150), st.sampled_from([b"d", b"e"])),
            ),
            min_size=1, max_size=4,
        ),
        st.integers(1, 100),
    ),
    min_size=1, max_size=8,
)  # fmt: skip


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    jobs=jobs, pages=st.integers(16, 26), beside=st.integers(12, 18), most=st.integers(1, 5),
    budget=st.integers(8, 128), arrivals=st.integers(0, 4), data=st.data(),
)  # fmt: skip
def test_whatever_is_cached_cancelled_or_encoded_late_answers_are_the_same(
    jobs, pages, beside, most, budget, arrivals, data
):
    there = set()
    scheduler = Scheduler(
        PagePool(pages), sequences=most, rows=128, ready=lambda span: span.digest in there,
        memory=MemoryPages(beside),
    )  # fmt: skip
    cache, live, cancelled = Cache(), [], []

    def turn():
        planned = step(scheduler, budget, cache)
        missing = [span.digest for _, span in scheduler.missing()]
        assert planned or missing, "nothing to do and nothing to wait for"
        if missing and (not planned or data.draw(st.booleans())):
            there.add(missing[0])
        if there and data.draw(st.integers(0, 9)) == 0:
            there.intersection_update(scheduler.needed())  # what is needed is never dropped

    for parts, tokens in jobs:
        spans = [part if isinstance(part, MediaSpan) else [(i * 31) % 1000 for i in range(part)] for part in parts]
        live.append(of(*spans, [7], tokens=tokens))
        scheduler.add(live[-1])
        for _ in range(arrivals):
            if scheduler.running or scheduler.waiting:
                turn()
        if data.draw(st.integers(0, 4)) == 0:
            victim = data.draw(st.sampled_from(live))
            scheduler.remove(victim)
            cancelled.append(victim)
    while scheduler.running or scheduler.waiting:
        turn()
    scheduler.pool.check()
    assert (scheduler.pool.free, scheduler.memory.pool.free) == (pages, beside)
    for s in live:
        if s not in cancelled:
            expected = s.ids[: s.prompt_rows]
            while len(expected) < s.known:
                expected.append(next_id(expected))
            assert s.ids == expected
            assert s.generated == s.sampling.max_tokens


def test_pace_gives_a_lonely_prompt_all_rows():
    budget = StepBudget(512)
    budget.saw(512, 10.0)
    assert budget.rows(streaming=False) == 512


def test_pace_keeps_a_step_within_its_time_while_somebody_streams():
    budget = StepBudget(512, seconds=0.1)
    assert budget.rows(streaming=True) == 512
    budget.saw(512, 0.512)
    assert budget.rows(streaming=True) == 100
    for _ in range(30):
        budget.saw(100, 0.2)
    assert 48 <= budget.rows(streaming=True) <= 51


def test_pace_leaves_room_for_prompts_beside_all_who_stream():
    budget = StepBudget(512, seconds=0.1, least=32)
    budget.saw(512, 100.0)
    assert budget.rows(streaming=True) == 32
    assert budget.rows(streaming=True, ready=31) == 63
    assert budget.rows(streaming=True, ready=500) == 512


def test_pace_does_not_learn_from_small_steps():
    budget = StepBudget(512)
    budget.saw(8, 5.0)
    assert budget.rows(streaming=True) == 512
