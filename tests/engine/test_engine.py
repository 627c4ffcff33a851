"""The engine on a tiny quantised model: many streams, each as if it were alone."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from prompts import LIMITS, ids_of, prompt_of
from rows_of_logits import candidates_of
from waiting import PATIENCE, until

from opsin.engine.engine import Engine
from opsin.engine.runner import Limits, Runner
from opsin.engine.sampler import Sampler
from opsin.engine.sampling import Sampling
from opsin.errors import DeviceError, FileError, RequestError
from opsin.ops.device import Stopped
from opsin.spans import MediaSpan, Prompt

GREEDY = Sampling(temperature=0.0, max_tokens=12)


def ids(stream):
    return [output.id for output in stream if output.id is not None]


def reasons(stream):
    return [output.reason for output in stream if output.reason]


@pytest.fixture(scope="module")
def runner(decoder):
    return Runner(*decoder, LIMITS, "f16")


@pytest.fixture
def engine(runner):
    """An engine whose pages must all be free in the end."""
    made = Engine(runner, frozenset())
    yield made
    if made._thread.is_alive():
        assert until(lambda: made.pool.free == LIMITS.pages), f"{made.pool.free} of {LIMITS.pages} pages are free"
        made.pool.check()
    made.close()
    assert made.pool.free == LIMITS.pages


@pytest.fixture
def endless(runner, monkeypatch):
    """Steps that end only when they are stopped."""
    started, step = threading.Event(), runner.step

    def endless(plan):
        while True:
            step(plan)
            started.set()

    monkeypatch.setattr(runner, "step", endless)
    return started


# Answers


def test_an_answer_follows_the_likeliest_ids(engine, runner):
    prompt = ids_of(150)
    answer = ids(engine.submit(Prompt.of([prompt]), GREEDY))
    known = prompt + answer
    logits = engine.call(lambda: runner.score(known, list(range(3))))
    assert answer == logits[len(prompt) - 1 : -1].argmax(1).tolist()


def test_logits_of_steps_equal_those_of_a_whole_pass(engine, runner, monkeypatch):
    prompt, seen, step = ids_of(150), [], runner.step

    def watched(plan):
        candidates = step(plan)
        if plan[-1].wanted:
            seen.append(candidates.whole()[-1].copy())
        return candidates

    monkeypatch.setattr(runner, "step", watched)
    known = prompt + ids(engine.submit(Prompt.of([prompt]), Sampling(seed=3, max_tokens=30)))
    whole = engine.call(lambda: runner.score(known, list(range(3))))
    assert len(seen) == 30
    assert np.array_equal(np.array(seen), whole[len(prompt) - 1 : -1])


def test_answers_under_load_equal_the_answers_alone(engine):
    jobs = [(prompt_of(5 + 23 * i, seed=i), Sampling(seed=i, max_tokens=10 + i)) for i in range(16)]
    alone = [ids(engine.submit(*job)) for job in jobs]
    together = [ids(stream) for stream in [engine.submit(*job) for job in jobs]]
    assert together == alone
    assert len({tuple(answer[:5]) for answer in alone}) > 12  # not all the same


def test_several_sequences_share_a_step(engine, runner, monkeypatch):
    sizes, step, gate = [], runner.step, threading.Event()

    def watched(plan):
        gate.wait(PATIENCE)
        sizes.append(len(plan))
        return step(plan)

    monkeypatch.setattr(runner, "step", watched)
    sampling = Sampling(temperature=0.0, max_tokens=50)
    streams = [engine.submit(prompt_of(20, seed=i), sampling) for i in range(16)]
    gate.set()
    assert [len(ids(stream)) for stream in streams] == [50] * 16
    assert max(sizes) == 16
    assert len(sizes) < 16 * 50 / 4


def test_a_small_cache_makes_sequences_wait_and_changes_nothing(decoder, engine):
    jobs = [(prompt_of(40 + i, seed=i), Sampling(seed=i, max_tokens=60)) for i in range(6)]
    expected = [ids(engine.submit(*job)) for job in jobs]
    small = Engine(Runner(*decoder, Limits(rows=64, outputs=8, sequences=8, context=192, pages=5), "f16"), frozenset())
    assert [ids(stream) for stream in [small.submit(*job) for job in jobs]] == expected
    assert until(lambda: small.pool.free == 5)
    small.close()


def test_streams_submitted_by_many_threads_are_their_own(engine):
    before = set(threading.enumerate())
    jobs = [(prompt_of(3 + i, seed=i), Sampling(seed=i, max_tokens=8)) for i in range(32)]
    alone = [ids(engine.submit(*job)) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda job: ids(engine.submit(*job)), jobs)) == alone
    assert not set(threading.enumerate()) - before


# Ends


def test_no_tokens_are_an_answer_too(engine):
    outputs = list(engine.submit(prompt_of(5), Sampling(max_tokens=0)))
    assert [(p.id, p.reason) for p in outputs] == [(None, "length")]


def test_one_token(engine):
    outputs = list(engine.submit(prompt_of(5), Sampling(max_tokens=1)))
    assert [(p.id is not None, p.reason) for p in outputs] == [(True, "length")]


def test_the_end_of_turn_ends_it_unless_it_is_ignored(runner):
    plain = Engine(runner, frozenset())
    answer = ids(plain.submit(prompt_of(9), GREEDY))
    plain.close()
    end = answer[4]
    engine = Engine(runner, frozenset({end}))
    outputs = list(engine.submit(prompt_of(9), GREEDY))
    assert [p.id for p in outputs] == [*answer[: answer.index(end)], None]
    assert outputs[-1].reason == "stop"
    ignoring = Sampling(temperature=0.0, max_tokens=12, ignore_eos=True)
    assert ids(engine.submit(prompt_of(9), ignoring)) == answer
    engine.close()


def test_a_full_context_ends_it(engine):
    stream = engine.submit(prompt_of(500), Sampling(seed=0))
    outputs = list(stream)
    assert len(outputs) == 12
    assert outputs[-1].reason == "length"


def test_the_longest_prompt_gives_one_token(engine):
    assert len(ids(engine.submit(prompt_of(511), GREEDY))) == 1


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt.of([]), "the prompt is empty"),
        (prompt_of(512), "the prompt .512 tokens. exceeds the available context size .512 tokens"),
        (Prompt.of([[1, 2, 100_000]]), "id 100000 lies outside the vocabulary of 265"),
        (Prompt.of([[1, -1]]), "id -1 lies outside"),
        (Prompt.of([[1, 1 << 70]]), "lies outside"),
        (Prompt.of([[1], MediaSpan(b"x", 4, 4)]), "holds media"),
    ],
)
def test_what_cannot_work_is_refused_when_submitted(engine, prompt, message):
    with pytest.raises(RequestError, match=message):
        engine.submit(prompt, GREEDY)


# Cancelling


def test_cancelling_a_long_prompt_stops_its_step(engine, endless):
    stream = engine.submit(prompt_of(400), GREEDY)
    assert endless.wait(PATIENCE)
    stream.cancel()
    assert reasons(stream) == ["cancelled"]  # though the step has no end of its own
    assert until(lambda: engine.pool.free == LIMITS.pages)


def test_cancelling_one_leaves_the_others_their_step(engine):
    expected = ids(engine.submit(prompt_of(80, seed=1), GREEDY))
    others = [engine.submit(prompt_of(80, seed=1), GREEDY) for _ in range(3)]
    victim = engine.submit(prompt_of(300, seed=2), Sampling(seed=0))
    victim.cancel()
    assert [ids(stream) for stream in others] == [expected] * 3
    assert reasons(victim) == ["cancelled"]


def test_cancelling_what_waits(engine, runner, endless):
    streams = [engine.submit(prompt_of(400, seed=i), GREEDY) for i in range(12)]  # pages for 8 of them
    assert endless.wait(PATIENCE)
    for stream in streams:
        stream.cancel()
    assert [reasons(stream) for stream in streams] == [["cancelled"]] * 12


def test_cancelling_twice_and_after_the_end_does_nothing(engine):
    stream = engine.submit(prompt_of(4), GREEDY)
    answer = ids(stream)
    stream.cancel()
    stream.cancel()
    assert ids(engine.submit(prompt_of(4), GREEDY)) == answer


def test_cancelling_does_not_stop_a_call(engine, runner):
    """Ended answers are cancelled by whoever read them, at any moment; a call must not notice."""
    ended = engine.submit(prompt_of(4), GREEDY)
    ids(ended)
    inside = threading.Event()

    def work():
        inside.set()
        cancelled.wait(PATIENCE)
        return runner.score(ids_of(100), [0, 1])

    cancelled = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        logits = pool.submit(engine.call, work)
        assert inside.wait(PATIENCE)
        ended.cancel()
        cancelled.set()
        assert logits.result().shape == (100, 265)


def test_cancels_at_any_moment_leave_nothing_behind(engine, runner, monkeypatch):
    random, step, left = np.random.default_rng(0), runner.step, [0]
    expected = ids(engine.submit(prompt_of(70), GREEDY))

    def watched(plan):
        """No answer comes to its end, however late it is cancelled."""
        left[0] -= 1
        assert left[0] > 0 or cancelled.wait(PATIENCE)
        return step(plan)

    monkeypatch.setattr(runner, "step", watched)
    for round in range(60):
        left[0], cancelled = 150, threading.Event()
        streams = [engine.submit(prompt_of(int(random.integers(1, 300)), seed=i), Sampling(seed=i)) for i in range(5)]
        witness = engine.submit(prompt_of(70), GREEDY) if round % 10 == 0 else None
        time.sleep(float(random.random()) * 0.004)
        for stream in streams:
            stream.cancel()
        cancelled.set()
        assert all(reasons(stream) == ["cancelled"] for stream in streams)
        assert witness is None or ids(witness) == expected


# Failures


def test_a_failed_step_ends_those_who_took_part_and_nobody_else(engine, runner, monkeypatch):
    step, failed, gate = runner.step, [], threading.Event()

    def failing(plan):
        gate.wait(PATIENCE)
        if not failed:
            failed.extend(part.sequence.stream for part in plan)
            raise DeviceError("a kernel failed")
        return step(plan)

    monkeypatch.setattr(runner, "step", failing)
    streams = [engine.submit(prompt_of(400, seed=i), GREEDY) for i in range(12)]
    gate.set()
    ended = []
    for stream in streams:
        try:
            assert len(ids(stream)) == 12
        except DeviceError as error:
            assert error.message == "a kernel failed"
            ended.append(stream)
    assert ended == failed
    assert 0 < len(ended) < 12
    assert len(ids(engine.submit(prompt_of(4), GREEDY))) == 12


def test_a_surprise_in_a_step_is_a_device_error(engine, runner, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(runner, "step", lambda plan: 1 / 0)
        with pytest.raises(DeviceError, match="ZeroDivisionError"):
            ids(engine.submit(prompt_of(4), GREEDY))
    assert len(ids(engine.submit(prompt_of(4), GREEDY))) == 12


def test_a_surprise_in_planning_reaches_every_stream(engine, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(engine._scheduler, "plan", lambda budget: 1 / 0)
        for stream in [engine.submit(prompt_of(4), GREEDY) for _ in range(3)]:
            with pytest.raises(DeviceError, match="ZeroDivisionError"):
                ids(stream)
    assert len(ids(engine.submit(prompt_of(4), GREEDY))) == 12


def test_one_sampler_that_fails_harms_nobody_else(engine, monkeypatch):
    expected = [ids(engine.submit(prompt_of(30, seed=i), Sampling(seed=i, max_tokens=9))) for i in range(4)]
    roll = Sampler.roll

    def failing(self):
        if self.sampling.seed == 2:
            raise ZeroDivisionError
        return roll(self)

    monkeypatch.setattr(Sampler, "roll", failing)
    streams = [engine.submit(prompt_of(30, seed=i), Sampling(seed=i, max_tokens=9)) for i in range(4)]
    with pytest.raises(DeviceError, match="ZeroDivisionError"):
        ids(streams.pop(2))
    assert [ids(stream) for stream in streams] == expected[:2] + expected[3:]


@pytest.mark.parametrize("knobs", [{"temperature": 0.0}, {"temperature": 1.0}])
def test_logits_that_are_no_numbers_are_an_error(engine, runner, monkeypatch, knobs):
    step = runner.step

    def broken(plan):
        return candidates_of(np.full_like(step(plan).whole(), np.nan))

    monkeypatch.setattr(runner, "step", broken)
    with pytest.raises(FileError, match="no numbers"):
        ids(engine.submit(prompt_of(4), Sampling(**knobs)))


def test_more_sequences_than_a_step_has_outputs_are_refused():
    with pytest.raises(RequestError, match="outputs=8"):
        Limits(rows=64, outputs=8, sequences=9)
    with pytest.raises(RequestError, match="rows=8"):
        Limits(rows=8, outputs=64, sequences=9)


# Calls and closing


def test_a_call_runs_on_the_thread_of_the_engine(engine):
    assert engine.call(threading.current_thread) is engine._thread


def test_a_call_between_steps_does_not_disturb_answers(engine, runner):
    expected = ids(engine.submit(prompt_of(100), GREEDY))
    stream = engine.submit(prompt_of(100), GREEDY)

    def score():
        pages = engine.borrow_pages(200)
        try:
            return runner.score(ids_of(200, seed=3), pages)
        finally:
            engine.return_pages(pages)

    first, second = engine.call(score), engine.call(score)
    assert np.array_equal(first, second)
    assert ids(stream) == expected


def test_an_error_in_a_call_is_the_callers(engine):
    with pytest.raises(KeyError, match="mine"):
        engine.call(lambda: {}["mine"])
    assert len(ids(engine.submit(prompt_of(4), GREEDY))) == 12


def test_borrowing_more_than_there_is_is_refused(engine):
    with pytest.raises(RequestError, match="do not fit"):
        engine.call(lambda: engine.borrow_pages(LIMITS.pages * 64 + 1))


def test_closing_ends_streams_with_an_error(engine, endless):
    running, waiting = (engine.submit(prompt_of(400, seed=i), GREEDY) for i in range(2))
    assert endless.wait(PATIENCE)
    engine.close()  # though the step has no end of its own
    for stream in (running, waiting):
        with pytest.raises(DeviceError, match="closed"):
            ids(stream)


def test_closing_ends_calls_that_run_or_wait(engine, runner, decoder):
    inside = threading.Event()

    def work():
        while True:
            runner.score(ids_of(100), [0, 1])
            inside.set()

    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(engine.call, work)
        assert inside.wait(PATIENCE)
        waiting = pool.submit(engine.call, lambda: "never")
        assert until(lambda: len(engine._calls) == 1)
        engine.close()
        for future in (running, waiting):
            with pytest.raises(DeviceError, match="closed"):
                future.result(PATIENCE)


def test_nothing_begins_after_closing(engine):
    engine.close()
    engine.close()
    for begin in (
        lambda: engine.submit(prompt_of(4), GREEDY),
        lambda: engine.submit(prompt_of(4), Sampling(max_tokens=0)),
        lambda: engine.call(lambda: 1),
    ):
        with pytest.raises(DeviceError, match="closed"):
            begin()


def test_closing_leaves_no_thread_and_the_device_works(engine, runner):
    engine.close()
    assert not engine._thread.is_alive()
    assert runner.score(ids_of(10), [0]).shape == (10, 265)


def test_a_call_that_waits_for_the_engine_is_refused(engine):
    """It runs on the thread that it would wait for."""
    waits = (lambda: engine.call(lambda: 1), lambda: ids(engine.submit(prompt_of(4), GREEDY)), engine.close)
    for inside in waits:
        with ThreadPoolExecutor(1) as pool, pytest.raises(RequestError, match="cannot wait for itself"):
            pool.submit(engine.call, inside).result(PATIENCE)
    assert len(ids(engine.submit(prompt_of(4), GREEDY))) == 12


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_hangs_on_an_engine_whose_thread_died(runner, monkeypatch):
    """Nothing known ends it, so it is ended by force."""
    engine = Engine(runner, frozenset())

    def die(plan):
        raise SystemExit

    monkeypatch.setattr(runner, "step", die)
    stream = engine.submit(prompt_of(4), GREEDY)
    with ThreadPoolExecutor(1) as pool, pytest.raises(DeviceError, match="the engine ended"):
        pool.submit(ids, stream).result(PATIENCE)
    with ThreadPoolExecutor(1) as pool, pytest.raises(DeviceError, match="closed"):
        pool.submit(engine.call, lambda: 1).result(PATIENCE)
    with ThreadPoolExecutor(1) as pool, pytest.raises(DeviceError, match="the engine ended"):
        pool.submit(ids, engine.submit(prompt_of(4), GREEDY)).result(PATIENCE)
    engine.close()


def test_a_stopped_step_is_done_again(engine, runner, monkeypatch):
    expected, step, stops = ids(engine.submit(prompt_of(150), GREEDY)), runner.step, iter(range(100))

    def stopping(plan):
        result = step(plan)
        if next(stops) % 3 == 0:
            raise Stopped
        return result

    monkeypatch.setattr(runner, "step", stopping)
    assert ids(engine.submit(prompt_of(150), GREEDY)) == expected
